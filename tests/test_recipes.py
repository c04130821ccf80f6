"""Recipes: the paper's numbers, overriding, and the exact text of every refusal."""

import pytest

from alexnet_jax import recipes
from alexnet_jax.config import PlateauSchedule, StepsSchedule
from alexnet_jax.errors import ConfigError
from alexnet_jax.networks import NETWORKS, network

NAMES = [
    "cifar-18pct",
    "cifar-conv-local-11pct",
    "cifar-conv-local-13pct",
    "cifar10-quick",
    "cifar10-towers",
    "digits",
    "figure1",
    "finetune",
    "imagenet",
    "imagenet-plateau",
]


def refusal(name="digits", overrides=None, assignments=()):
    with pytest.raises(ConfigError) as failure:
        recipes.load(name, overrides, tuple(assignments))
    return str(failure.value)


def imagenet_recipes():
    return [recipes.load(name) for name in ("imagenet", "imagenet-plateau")]


# What ships.


def test_the_recipes_that_ship():
    assert recipes.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_loads_and_survives_being_written(name, tmp_path):
    recipe = recipes.load(name)
    assert recipe.name == name
    written = tmp_path / "other-name.toml"
    written.write_text(recipes.dump(recipe))
    assert recipes.load(str(written)) == recipe
    assert recipes.differences(recipe, recipes.load(str(written))) == []


@pytest.mark.parametrize("recipe", imagenet_recipes(), ids=lambda recipe: recipe.name)
def test_the_numbers_of_the_paper(recipe):
    assert recipe.network == "code2012"
    assert recipe.data.image_size == 256  # section 2
    assert recipe.augment.crop  # section 4.1
    assert recipe.augment.flip
    assert recipe.augment.colour_noise == 0.1
    assert recipe.optimizer.batch_size == 128  # section 5
    assert recipe.optimizer.learning_rate == 0.01
    assert recipe.optimizer.momentum == 0.9
    assert recipe.optimizer.weight_decay == 0.0005
    assert recipe.eval.views == (1, 10)  # section 4.1


def test_as_run_and_as_written():
    run, text = (recipe.schedule for recipe in imagenet_recipes())
    assert isinstance(run, StepsSchedule)
    assert run.epochs == 90  # "roughly 90 cycles"
    assert len(run.drops) == 3  # "reduced three times"
    assert not run.drop_biases  # the notebook: .02 throughout
    assert recipes.load("imagenet").optimizer.bias_learning_rate == 0.02
    assert isinstance(text, PlateauSchedule)
    assert text.max_drops == 3
    assert text.drop_biases  # "an equal learning rate for all layers"
    assert recipes.load("imagenet-plateau").optimizer.bias_learning_rate == 0.01


def test_the_cifar_recipe_is_layer_params_80sec():
    recipe = recipes.load("cifar10-quick")
    assert recipe.network == "cifar-80sec"
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (optimizer.batch_size, optimizer.momentum) == (128, 0.9)
    assert (optimizer.learning_rate, optimizer.bias_learning_rate) == (0.001, 0.002)
    assert optimizer.weight_decay == 0.004
    assert optimizer.layer_weight_decay == {"fc64": 0.03, "fc10": 0.03}
    assert isinstance(schedule, StepsSchedule)
    # Published: a tenth of the rate at the end. How long before it is the project's.
    (drop,) = (drop * schedule.epochs for drop in schedule.drops)
    assert drop == pytest.approx(schedule.epochs - 1)
    assert not recipe.augment.crop
    assert not recipe.augment.flip


# cuda-convnet, layer-params-*.cfg: decay by layer, the two crops' sides, and the
# updates before each drop, in epochs of 40,000 and then of 50,000 pictures.
PUBLISHED = {
    "cifar-18pct": ({"conv1": 0.004, "fc10": 1.0}, 32, [120, 130]),
    "cifar-conv-local-13pct": (
        {"conv1": 0, "local3": 0.004, "local4": 0.004, "fc10": 0.004},
        24,
        [100 * 4 / 5 + 40, 100 * 4 / 5 + 50],
    ),
    "cifar-conv-local-11pct": (
        {"conv1": 0, "local3": 0.004, "local4": 0.004, "fc10": 0.01},
        24,
        [350 * 4 / 5 + 150, 350 * 4 / 5 + 160],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_cifar_claims_have_their_published_numbers(name):
    recipe = recipes.load(name)
    decays, side, drops = PUBLISHED[name]
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert recipe.network == name
    assert (optimizer.batch_size, optimizer.momentum) == (128, 0.9)
    assert (optimizer.learning_rate, optimizer.bias_learning_rate) == (0.001, 0.002)
    for layer, decay in decays.items():
        own = optimizer.layer_weight_decay.get(layer, optimizer.weight_decay)
        assert own == decay, layer
    assert isinstance(schedule, StepsSchedule)
    assert [d * schedule.epochs for d in schedule.drops] == pytest.approx(drops)
    assert schedule.epochs == drops[-1] + 10
    cropped = side < recipe.data.image_size
    assert network(name).input_size == side
    assert recipe.augment.crop == recipe.augment.flip == cropped
    assert recipe.eval.views[0] == (10 if cropped else 1)


def test_figure_1_is_learned_without_regularisation_at_a_constant_rate():
    recipe = recipes.load("figure1")
    assert recipe.network == "figure1-relu"
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert optimizer.weight_decay == 0
    assert optimizer.layer_weight_decay == {}
    assert (recipe.augment.crop, recipe.augment.flip) == (False, False)
    assert recipe.augment.colour_noise == 0
    assert (optimizer.batch_size, optimizer.momentum) == (128, 0.9)
    assert isinstance(schedule, StepsSchedule)
    assert (schedule.drops, schedule.layer_drops, schedule.freeze) == ((), {}, {})
    assert schedule.epochs * 50_000 % 128 == 0  # whole epochs, whole batches


def test_every_number_of_a_recipe_has_its_comment_at_hand():
    assert "# section 5" in recipes.text("imagenet")


# Overriding.


def test_values_by_dotted_key():
    recipe = recipes.load("digits", {"run.seed": 4, "schedule.freeze.conv1": 0.5})
    assert recipe.run.seed == 4
    assert recipe.schedule.freeze == {"conv1": 0.5}
    untouched = recipes.load("digits")
    assert recipes.differences(untouched, recipe) == [
        "run.seed: 0 -> 4",
        "schedule.freeze.conv1: None -> 0.5",
    ]


@pytest.mark.parametrize(
    ("assignment", "section", "field", "value"),
    [
        ("run.seed=3", "run", "seed", 3),
        (" run.seed = 3 ", "run", "seed", 3),
        ("augment.crop=false", "augment", "crop", False),
        ("optimizer.learning_rate=1e-3", "optimizer", "learning_rate", 0.001),
        ("schedule.drops=[0.5, 0.75]", "schedule", "drops", (0.5, 0.75)),
        ("run.precision=bf16", "run", "precision", "bf16"),
        ('run.precision="bf16"', "run", "precision", "bf16"),
        ("data.spec=folder:a=b", "data", "spec", "folder:a=b"),
        ("data.train_split=train[:90%]", "data", "train_split", "train[:90%]"),
        ("schedule.layer_drops={conv1=[0.1]}", "schedule", "layer_drops", None),
    ],
)
def test_assignments_are_toml_and_bare_words_are_text(
    assignment, section, field, value
):
    found = getattr(
        getattr(recipes.load("digits", None, (assignment,)), section), field
    )
    assert found == ({"conv1": (0.1,)} if value is None else value)


def test_the_last_word_is_the_assignments():
    recipe = recipes.load("digits", {"run.seed": 1}, ("run.seed=2", "run.seed=3"))
    assert recipe.run.seed == 3


def test_overriding_leaves_the_callers_values_alone():
    values = recipes.load("imagenet").model_dump(mode="json")
    recipes.override(values, {"schedule.layer_drops.conv1": [0.1]})
    assert values["schedule"]["layer_drops"] == {"conv1": [0.2747, 0.5604, 0.7363]}


def test_a_recipe_may_be_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(recipes.text("digits").replace("epochs = 60", "epochs = 2"))
    recipe = recipes.load(str(path))
    assert (recipe.name, recipe.schedule.epochs) == ("mine", 2)


# Refusals.


def test_an_unknown_recipe():
    wanted = (
        "no recipe 'mnist'; there are cifar-18pct, cifar-conv-local-11pct, "
        "cifar-conv-local-13pct, cifar10-quick, cifar10-towers, digits, figure1, "
        "finetune, imagenet, imagenet-plateau, or give a .toml file"
    )
    assert refusal("mnist") == wanted
    assert refusal("gone.toml") == wanted.replace("mnist", "gone.toml")


def test_a_file_that_is_not_toml(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("network = \n")
    assert refusal(str(path)) == (
        f"recipe {path} is not TOML: Invalid value (at line 1, column 11)"
    )
    path.write_bytes(b"\x89PNG\r\n")
    assert refusal(str(path)).startswith(f"recipe {path} cannot be read: ")


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("run.sed=1", "run.sed 1: there is no such key"),
        ("optimiser.momentum=1", "optimiser {'momentum': 1}: there is no such key"),
        ("run.seed=x", "run.seed 'x': Input should be a valid integer"),
        ("run.seed=1.5", "run.seed 1.5: Input should be a valid integer"),
        ("run.steps=0", "run.steps 0: Input should be greater than or equal to 1"),
        ("run.precision=f16", "run.precision 'f16': Input should be 'f32' or 'bf16'"),
        ("augment.crop=1", "augment.crop 1: Input should be a valid boolean"),
        (
            "optimizer.learning_rate=inf",
            "optimizer.learning_rate inf: Input should be a finite number",
        ),
        ("schedule.kind=cosine", "schedule.kind 'cosine': give steps or plateau"),
        ("schedule={epochs=3}", "schedule.kind: is required"),
        ("schedule={kind='steps'}", "schedule.epochs: is required"),
        (
            "schedule.drops=[0.9,0.6]",
            "schedule: drops [0.9, 0.6] must rise",
        ),
        (
            "schedule.drops=[1.5]",
            "schedule.drops.0 1.5: Input should be less than or equal to 1",
        ),
        (
            "eval.views=[]",
            "eval.views []: Tuple should have at least 1 item after validation, not 0",
        ),
        ("name.first=1", "name.first: name is not a section of a recipe"),
        ("run.seed.x=1", "run.seed {'x': 1}: Input should be a valid integer"),
        ("run.seed", "--set 'run.seed': write section.key=value"),
        ("=3", "--set '=3': write section.key=value"),
        (
            "network=lenet",
            f"no network 'lenet'; there are {', '.join(NETWORKS)}",
        ),
        (
            "data.spec=mnist",
            "data 'mnist' is not known; give one of digits, imagenet2012, tfds:NAME, "
            "folder:PATH, prepared:PATH",
        ),
        (
            "data.image_size=27",
            "data.image_size 27 is smaller than digits's input; use 28 or more",
        ),
        (
            "schedule.freeze.conv9=0.5",
            "schedule.freeze: digits has no layer 'conv9'; "
            "it has conv1, conv2, conv3, fc4, fc5",
        ),
        (
            "schedule.layer_drops.pool1=[0.5]",
            "schedule.layer_drops: digits has no layer 'pool1'; "
            "it has conv1, conv2, conv3, fc4, fc5",
        ),
        (
            "optimizer.layer_weight_decay.fc8=0.5",
            "optimizer.layer_weight_decay: digits has no layer 'fc8'; "
            "it has conv1, conv2, conv3, fc4, fc5",
        ),
        (
            "augment.colour_noise=0.1",
            "augment.colour_noise 0.1 needs colour, but digits reads grey; use 0",
        ),
        (
            "eval.views=[1, 10]",
            "eval.views 10 mirrors the pictures, but augment.flip is false; "
            "use views = [1]",
        ),
    ],
)
def test_one_value_that_cannot_be(assignment, wanted):
    assert refusal("digits", None, [assignment]) == wanted


def test_ten_views_need_a_border():
    overrides = {"data.image_size": 28, "augment.flip": True, "eval.views": [1, 10]}
    assert refusal("digits", overrides) == (
        "eval.views 10 needs a border to crop from, but data.image_size 28 is "
        "digits's input size; use views = [1]"
    )


def test_a_drop_that_never_comes():
    for key in ("schedule.freeze.conv1", "schedule.colour_noise_off"):
        assert refusal("imagenet-plateau", {key: 4}) == (
            "schedule: drop 4 never comes, max_drops is 3"
        )
    recipes.load("imagenet-plateau", {"schedule.freeze.conv1": 3})


def test_a_missing_value():
    values = recipes.load("digits").model_dump(mode="json")
    del values["optimizer"]["momentum"]
    with pytest.raises(ConfigError) as failure:
        recipes.override(values, {})
    assert str(failure.value) == "optimizer.momentum: is required"
