"""Pictures in folders, one folder a class (``folder:PATH``).

Either PATH holds ``train`` and ``val``, ``validation`` or ``test``, each with the class
folders inside (only to test on them, ``train`` may be missing), or PATH holds the class
folders themselves: then every picture goes to ``train`` or ``validation``, nine to one,
by a hash of its relative path. That never changes for a picture, whatever is added or
removed beside it.
"""

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.data.decode import read_image_file
from alexnet_jax.data.records import Record, Source
from alexnet_jax.data.splits import (
    Role,
    base,
    check_known,
    default_eval_split,
    role_of,
    take,
)
from alexnet_jax.errors import DataError, ImageError

EVAL_FOLDERS = ("val", "validation", "test")

# The kinds of files that count as pictures; others are ignored. (A file with one of
# these names that is none is an error when it is read.)
SUFFIXES = (
    *(".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".ico", ".j2k", ".jfif"),
    *(".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".pbm", ".pcx", ".pgm", ".png", ".pnm"),
    *(".ppm", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp"),
)

_VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class FolderSplit:
    """The pictures of some class folders.

    Attributes:
        name: what the user asked for.
        classes: names of the classes, in label order.
        root: that the paths are relative to.
        paths: of the pictures, sorted within their class.
        labels: ``i32[N]``.
        ignored: how many other files lie among them.
    """

    name: str
    classes: Sequence[str]
    root: Path
    paths: Sequence[str]
    labels: np.ndarray
    ignored: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        path = self.paths[index]
        full = os.path.join(self.root, path)
        try:
            image = read_image_file(full)
        except ImageError as error:
            cause = str(error).removeprefix(f"{full}: ")
            raise ImageError(f"{path}: {cause}") from None
        return Record(image, int(self.labels[index]), path)


def open_splits(spec: str, splits: Sequence[str | None]) -> list[tuple[Source, Role]]:
    """Open splits of ``folder:PATH``.

    Args:
        spec: with the path; ``~`` is the home folder.
        splits: their names; None for the one to evaluate on.

    Returns:
        Each split, and what results on it may be used for.

    Raises:
        DataError: there is no such folder or split, no pictures, or fewer than two
            classes; the message says what is expected.
    """
    root = Path(spec.removeprefix("folder:")).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(
            f"the folder {root} {what}; give one that holds train/ and val/, or one "
            "folder of pictures a class"
        )
    try:
        return _open_splits(spec, root, splits)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: cannot be read: {error.strerror}"
        ) from None


def _open_splits(
    spec: str, root: Path, splits: Sequence[str | None]
) -> list[tuple[Source, Role]]:
    inside = _folders(root)
    held_out = [name for name in EVAL_FOLDERS if name in inside]
    if held_out == inside and inside and "train" not in map(base, filter(None, splits)):
        # Nothing but pictures to test on: their own folders are the classes.
        known, names = None, held_out
    elif "train" not in inside or (not held_out and len(inside) > 1):
        # A lone train/ beside other folders is a class of that name.
        if held_out and "train" not in inside:
            raise DataError(f"{root} holds {held_out[0]}/ but no train/; add it")
        known = _hash_split(spec, root)
        names = list(known)
    else:
        known = None
        names = ["train", *held_out]
    opened: list[tuple[Source, Role]] = []
    cache: dict[str, FolderSplit] = dict(known or {})
    for split in splits:
        chosen = split or default_eval_split(spec, names)
        check_known(spec, chosen, names)
        for name in ("train", base(chosen)):
            if name in names and name not in cache:
                classes = cache["train"].classes if "train" in cache else None
                cache[name] = scan(f"{spec} {name}", root / name, classes)
        opened.append((take(spec, cache, chosen), role_of(chosen)))
    return opened


def _hash_split(spec: str, root: Path) -> Mapping[str, FolderSplit]:
    whole = scan(spec, root, None)
    held_out = np.array([_share(path) < _VALIDATION_SHARE for path in whole.paths])
    if held_out.all() or not held_out.any():
        raise DataError(
            f"{root} holds {len(whole)} pictures, too few for one in ten to be kept "
            "for validation; sort them into train/ and val/"
        )
    return {
        name: FolderSplit(
            name=f"{spec} {name}",
            classes=whole.classes,
            root=root,
            paths=list(itertools.compress(whole.paths, chosen)),
            labels=whole.labels[chosen],
            ignored=whole.ignored,
        )
        for name, chosen in (("train", ~held_out), ("validation", held_out))
    }


def _share(path: str) -> float:
    """Map a path to a number in [0, 1), the same on every machine."""
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def scan(name: str, root: Path, classes: Sequence[str] | None) -> FolderSplit:
    """List a folder of class folders.

    Args:
        name: of the split, for messages.
        root: the folder.
        classes: of the training split, which these must be among; None for itself.
    """
    found = _folders(root)
    unknown = [] if classes is None else [c for c in found if c not in classes]
    if unknown:
        raise DataError(
            f"{root} has class folders that the training split has not: "
            f"{', '.join(unknown[:5])}{' ...' if unknown[5:] else ''}"
        )
    paths: list[str] = []
    labels: list[int] = []
    with os.scandir(root) as entries:
        ignored = sum(entry.is_file() for entry in entries)
    known = list(found if classes is None else classes)
    for label, class_name in enumerate(known):
        if class_name not in found:
            continue
        pictures, others = _pictures(root, class_name)
        if not pictures and classes is None:
            raise DataError(
                f"the class folder {root / class_name} holds no pictures ({others} "
                "other files); add some or remove it"
            )
        paths += pictures
        labels += [label] * len(pictures)
        ignored += others
    if not found:
        raise DataError(
            f"{root} holds no class folders; sort its pictures into one folder a class"
        )
    if len(known) < 2:
        raise DataError(f"{root} has one class, {known[0]!r}; at least two are needed")
    if not paths:
        raise DataError(f"{root} holds no pictures ({ignored} other files)")
    return FolderSplit(name, known, root, paths, np.array(labels, np.int32), ignored)


def _folders(root: Path) -> list[str]:
    """List the visible folders inside one, links to folders among them, sorted."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.name[0] != "." and e.is_dir())


def _pictures(root: Path, class_name: str) -> tuple[list[str], int]:
    """List the pictures below a class folder, relative to `root`; count other files."""
    pictures, ignored = [], 0
    for path in _files(root, class_name, ()):
        name = os.path.basename(path)
        if name[0] != "." and name.lower().endswith(SUFFIXES):
            pictures.append(path)
        else:
            ignored += 1
    return sorted(pictures), ignored


def _files(root: Path, folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """Walk a folder; hidden folders are left out, links followed, but not in rings."""
    real = os.path.realpath(root / folder)
    if real in above:
        return
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = os.path.join(folder, entry.name)
            # A folder called x.jpg is walked; a dangling link is reported when read.
            if not entry.is_dir():
                yield path
            elif entry.name[0] != ".":
                yield from _files(root, path, (*above, real))
