"""Names of classes: ImageNet's thousand, and one list of names mapped to another."""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

_WORDNET_ID = re.compile(r"n\d{8}")
_SAMPLE = re.compile(r"\d\d-(.+)")


class ImageNetClass(NamedTuple):
    """One class of ILSVRC 2012.

    Attributes:
        wordnet_id: such as ``n01440764``.
        name: readable and unlike all others, such as ``tench``.
        words: all that WordNet has for it, the name first.
    """

    wordnet_id: str
    name: str
    words: tuple[str, ...]


@functools.cache
def imagenet() -> tuple[ImageNetClass, ...]:
    """List the 1,000 classes in label order."""
    file = resources.files("alexnet_jax") / "data" / "imagenet_classes.tsv"
    classes = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            wordnet_id, _, words = line.partition("\t")
            name, *others = words.split(", ")
            classes.append(ImageNetClass(wordnet_id, name, (name, *others)))
    return tuple(classes)


def wordnet_id(name: str) -> str | None:
    """Return the name of a class if it is a WordNet id, else None."""
    return name if _WORDNET_ID.fullmatch(name) else None


def readable(names: Iterable[str]) -> list[str]:
    """Put readable names in the place of ImageNet's WordNet ids; others stay."""
    known = {known.wordnet_id: known.name for known in imagenet()}
    return [known.get(name, name) for name in names]


def match(given: Sequence[str], known: Sequence[str]) -> tuple[list[int], list[str]]:
    """Find the classes of one list in another, by WordNet id or by name.

    Names are the same whatever their case, with ``_`` or ``-`` for a space. A WordNet
    id and a name are the same if the name, or any of WordNet's words, is that class's
    alone.

    Args:
        given: names of a data set's classes.
        known: names of a checkpoint's classes.

    Returns:
        The place in ``known`` of each class, and the names that have none, each with
        the classes that it might be. There are places only if all have one.
    """
    if list(given) == list(known):
        return list(range(len(known))), []
    find_known = _finder(known)
    places, strangers = [], []
    for name in given:
        found = find_known(name)
        if len(found) == 1:
            places.append(found[0])
        else:
            might_be = " or ".join(known[place] for place in found)
            strangers.append(f"{name} ({might_be})" if might_be else name)
    return ([] if strangers else places), strangers


def of_file(path: str, known: Sequence[str]) -> int | None:
    """Return the place of the class that a picture's path says it shows, if it does.

    Pictures of a class lie in a folder of its name, as in a data set; a run's samples
    have it in theirs, such as ``03-horse.png``.
    """
    file = Path(path)
    names = [file.parent.name]
    if sample := _SAMPLE.fullmatch(file.stem):
        names.append(sample[1])
    for name in names:
        places, _ = match([name], known) if name else ([], [])
        if places:
            return places[0]
    return None


def _finder(known: Sequence[str]) -> Callable[[str], list[int]]:
    """Return a function from a name to the places of all that it may mean."""
    exact = _places(known)
    folded = _places(map(_fold, known))
    # An id is looked for among the ids that names stand for, and the other way round.
    by_id: dict[str, list[int]] = {}
    for place, name in enumerate(known):
        meant = [name] if wordnet_id(name) else _ids(name)
        if len(meant) == 1:
            by_id.setdefault(meant[0], []).append(place)
    has_ids = any(map(wordnet_id, known))

    def find(name: str) -> list[int]:
        for found in (exact.get(name), folded.get(_fold(name))):
            if found:
                return found
        meant = [name] if wordnet_id(name) else _ids(name) if has_ids else []
        return [place for one in meant for place in by_id.get(one, [])]

    return find


def _ids(name: str) -> Sequence[str]:
    """Return the WordNet ids of ImageNet's classes that a name may mean."""
    spellings = (name, name, _fold(name), _fold(name))
    for spelling, index in zip(spellings, _words(), strict=True):
        if spelling in index:
            return index[spelling]
    return []


@functools.cache
def _words() -> tuple[dict[str, list[str]], ...]:
    """Index the classes by name and by word, as written, then whatever the case."""
    indices: tuple[dict[str, list[str]], ...] = ({}, {}, {}, {})
    for known in imagenet():
        spellings = (
            {known.name},
            set(known.words),
            {_fold(known.name)},
            set(map(_fold, known.words)),
        )
        for index, words in zip(indices, spellings, strict=True):
            for word in words:
                index.setdefault(word, []).append(known.wordnet_id)
    return indices


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return places
