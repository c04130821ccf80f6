"""The configuration of a run: frozen, strictly validated, one class a subject.

A recipe (``recipes/*.toml``) fills these classes. Nothing here knows the names of
networks or data sets: ``alexnet_jax.recipes`` checks those when it loads a recipe.
Every number is explained in the recipe that sets it, beside its source.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

Resize = Literal["crop", "stretch"]
"""How a picture becomes a square: ``crop`` scales the shorter side and keeps the centre
(paper section 2); ``stretch`` scales both sides, as Caffe's tools do."""


class Config(BaseModel):
    """A frozen record that refuses unknown keys and silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class DataConfig(Config):
    """Where the pictures are and the size at which they are stored.

    Attributes:
        spec: ``digits``, ``imagenet2012``, ``tfds:NAME``, ``folder:PATH`` or
            ``prepared:PATH``.
        dir: the folder that tfds data sets lie in; tfds's own default when None.
        train_split: the split to train on; the data set's own default when None.
        eval_split: the split to evaluate on; likewise.
        image_size: side in pixels of the square that a picture is brought to
            before crops are taken.
        resize: how; see ``Resize``.
    """

    spec: str
    dir: str | None = None
    train_split: str | None = None
    eval_split: str | None = None
    image_size: Count
    resize: Resize = "crop"


class AugmentConfig(Config):
    """What is done to a training picture, on the device (paper section 4.1).

    Attributes:
        crop: cut the network's input at a random place, else at the centre.
        flip: mirror left to right with probability one half.
        colour_noise: standard deviation of the noise along the principal
            components of RGB; 0 turns it off.
    """

    crop: bool = True
    flip: bool = True
    colour_noise: NonNegative = 0.0


class OptimizerConfig(Config):
    """The 2012 update rule (paper section 5; net 145's layer-params).

    Attributes:
        batch_size: images in one step, over all devices.
        learning_rate: of the weights, before any drop.
        bias_learning_rate: of the biases, before any drop.
        momentum: share of the last velocity that is kept.
        weight_decay: of the weights; biases have none.
        layer_weight_decay: other values, by layer name.
        reference_batch: the batch size that the learning rates were chosen for.
        scale_rate: what another batch size makes of both rates: ``none`` leaves them,
            ``linear`` multiplies them by batch_size / reference_batch (as the 2012
            authors did for 256 images), ``sqrt`` by its square root.
        warmup_epochs: epochs in which the rates rise from 0 to what they are.
    """

    batch_size: Count
    learning_rate: Positive
    bias_learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    layer_weight_decay: dict[str, NonNegative] = {}
    reference_batch: Count | None = None
    scale_rate: Literal["none", "linear", "sqrt"] = "none"
    warmup_epochs: NonNegative = 0.0

    @property
    def rate_factor(self) -> float:
        """What the rates are multiplied by for this batch size."""
        ratio = self.batch_size / (self.reference_batch or self.batch_size)
        return {"none": 1.0, "linear": ratio, "sqrt": ratio**0.5}[self.scale_rate]

    @model_validator(mode="after")
    def _scales_from_something(self) -> "OptimizerConfig":
        if self.scale_rate != "none" and self.reference_batch is None:
            raise ValueError(
                f"scale_rate {self.scale_rate} needs reference_batch, the batch size "
                "that the learning rates were chosen for"
            )
        return self


class StepsSchedule(Config):
    """Divide the learning rates at given fractions of the run.

    Attributes:
        epochs: cycles through the training set.
        drops: fractions of the run at which the weights' rates are divided by ten.
        layer_drops: other fractions, by layer name.
        freeze: fraction of the run from which a layer no longer learns, by name; 0
            from the start.
        drop_biases: divide the biases' rates too (net 145 does not).
        colour_noise_off: fraction of the run from which colour noise is off.
    """

    kind: Literal["steps"]
    epochs: Positive
    drops: tuple[Fraction, ...] = Field(default=(), strict=False)
    layer_drops: dict[str, Annotated[tuple[Fraction, ...], Field(strict=False)]] = {}
    freeze: dict[str, Fraction] = {}
    drop_biases: bool = False
    colour_noise_off: Fraction = 1.0

    @model_validator(mode="after")
    def _drops_rise(self) -> "StepsSchedule":
        for drops in (self.drops, *self.layer_drops.values()):
            if list(drops) != sorted(drops):
                raise ValueError(f"drops {list(drops)} must rise")
        return self


class PlateauSchedule(Config):
    """Divide the learning rates by ten when the validation error stops improving.

    Attributes:
        epochs: the most cycles through the training set.
        patience: evaluations without a new lowest error count before a drop.
        max_drops: drops after which another ``patience`` evaluations end the run.
        freeze: number of drops from which a layer no longer learns, by name; 0 from
            the start.
        drop_biases: divide the biases' rates too (net 145 does not).
        colour_noise_off: number of drops from which colour noise is off.
    """

    kind: Literal["plateau"]
    epochs: Positive
    patience: Count
    max_drops: Count = 3
    freeze: dict[str, Annotated[int, Field(ge=0)]] = {}
    drop_biases: bool = False
    colour_noise_off: Count | None = None


class RunConfig(Config):
    """How a run is carried out and what it keeps.

    Attributes:
        seed: of every random draw; the same seed gives the same run on any mesh.
        precision: ``f32``, or ``bf16`` for the arithmetic of the layers (parameters,
            norms, softmax and the update stay float32).
        init_from: a checkpoint whose weights the run starts from; None draws them.
        steps: stop after this many steps; None runs the whole schedule.
        eval_every: epochs from one evaluation to the next.
        save_every: epochs from one checkpoint to the next.
        keep: how many of the last checkpoints are kept.
        accumulate: parts in which each device computes its share of a batch, one after
            the other, where it has no memory for all of it at once. The update is the
            whole batch's.
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["f32", "bf16"] = "f32"
    init_from: str | None = None
    steps: Count | None = None
    eval_every: Positive = 1.0
    save_every: Positive = 1.0
    keep: Count = 3
    accumulate: Count = 1


class EvalConfig(Config):
    """How the network is tested.

    Attributes:
        views: the numbers of views that this recipe's data allows, the first being
            the default. Ten (paper section 4.1) need a border to crop from and a
            flip that keeps the label.
        batch_size: images in one evaluation step, over all devices.
    """

    views: tuple[Literal[1, 10], ...] = Field(default=(1,), min_length=1, strict=False)
    batch_size: Count = 128


class Recipe(Config):
    """Everything that decides what a run computes; enough to repeat it.

    Attributes:
        name: of the recipe.
        network: name of a table in ``alexnet_jax.networks``.
    """

    name: str
    network: str
    data: DataConfig
    augment: AugmentConfig
    optimizer: OptimizerConfig
    schedule: Annotated[StepsSchedule | PlateauSchedule, Field(discriminator="kind")]
    run: RunConfig = RunConfig()
    eval: EvalConfig = EvalConfig()
