"""Names of classes: the thousand of ImageNet, and what matches what."""

import pytest

from alexnet_jax import classes
from alexnet_jax.data.imagenet import class_names

NAMES = {known.wordnet_id: known.name for known in classes.imagenet()}


def test_the_ids_are_imagenets_in_label_order():
    assert [known.wordnet_id for known in classes.imagenet()] == class_names()


@pytest.mark.parametrize(
    ("label", "wordnet_id", "name"),
    [
        (0, "n01440764", "tench"),
        (1, "n01443537", "goldfish"),
        (134, "n02012849", "crane bird"),
        (207, "n02099601", "golden retriever"),
        (281, "n02123045", "tabby"),
        (285, "n02124075", "Egyptian cat"),
        (517, "n03126707", "crane machine"),
        (639, "n03710721", "maillot tank suit"),
        (999, "n15075141", "toilet tissue"),
    ],
)
def test_what_is_known_of_some(label, wordnet_id, name):
    assert classes.imagenet()[label][:2] == (wordnet_id, name)


def test_no_two_names_are_alike():
    assert len({name.casefold() for name in NAMES.values()}) == 1000
    for known in classes.imagenet():
        assert known.words[0] == known.name
        assert all(word == word.strip() and word for word in known.words)


def test_readable_names_take_the_place_of_ids_alone():
    names = ["n01440764", "cat", "n99999999", "n02012849"]
    assert classes.readable(names) == ["tench", "cat", "n99999999", "crane bird"]
    assert classes.wordnet_id("n99999999") == "n99999999"
    for name in ("tench", "n0144076", "n014407640", "x01440764"):
        assert classes.wordnet_id(name) is None


IDS = class_names()


@pytest.mark.parametrize(
    ("given", "known", "places"),
    [
        ("a b c", "a b c", [0, 1, 2]),
        ("c a", "a b c", [2, 0]),
        ("CAT Hot_Dog", "dog cat hot-dog", [1, 2]),
        ("n01440764 n15075141", IDS, [0, 999]),
        ("tench toilet_tissue Tench", IDS, [0, 999, 0]),  # two folders, one class
        ("tabby_cat Tinca_tinca", IDS, [281, 0]),  # WordNet's other words
        ("crane_bird crane-machine", IDS, [134, 517]),
        ("cardigan Cardigan", IDS, [474, 264]),  # the garment and the corgi
        ("polecat", IDS, [358]),  # a name comes before another class's further word
        ("crane", "n02012849 n01440764", [0]),  # here there is one crane only
        ("n02012849 n01440764", "tench crane_bird", [1, 0]),
    ],
)
def test_what_matches(given, known, places):
    given = given.split()
    known = known.split() if isinstance(known, str) else known
    assert classes.match(given, known) == (places, [])


@pytest.mark.parametrize(
    ("given", "known", "strangers"),
    [
        ("a x c y", "a b c", ["x", "y"]),
        ("0 1", "n01440764", ["0", "1"]),
        ("n01440765 tench", IDS, ["n01440765"]),
        ("crane", IDS, ["crane (n02012849 or n03126707)"]),
        ("panda", IDS, ["panda (n02509815 or n02510455)"]),
        ("cat", "Cat CAT", ["cat (Cat or CAT)"]),
        # A name that is another class's in ImageNet is not taken for a further word.
        ("polecat", "n02445715 n01440764", ["polecat"]),
        # Words stand for each other by way of an id only.
        ("tabby_cat", "tabby dog", ["tabby_cat"]),
    ],
)
def test_what_does_not(given, known, strangers):
    known = known.split() if isinstance(known, str) else known
    assert classes.match(given.split(), known) == ([], strangers)


def test_all_of_imagenet_matches_itself_by_id_and_by_name():
    shuffled = [*IDS[500:], *IDS[:500]]
    places = [*range(500, 1000), *range(500)]
    assert classes.match(shuffled, IDS) == (places, [])
    assert classes.match([NAMES[wordnet_id] for wordnet_id in shuffled], IDS) == (
        places,
        [],
    )


def test_the_class_that_a_path_says():
    digits = [str(digit) for digit in range(10)]
    assert classes.of_file("runs/digits-1/samples/03-7.png", digits) == 7
    assert classes.of_file("photos/4/x.png", digits) == 4
    assert classes.of_file("photos/x/7.png", digits) is None
    assert classes.of_file("7.png", digits) is None
    known = ["n01440764", "n01443537"]
    assert classes.of_file("/val/tench/1.JPEG", known) == 0
    assert classes.of_file("val/n01443537/1.JPEG", known) == 1
    assert classes.of_file("-", known) is None
