"""ImageNet 2012 (``imagenet2012``), wherever it lies, without TensorFlow.

In order of preference it is read from where tfds has prepared it as ArrayRecord, from
the two tar files in tfds's folder for manual downloads, or from class folders that
someone has unpacked. Class order and validation labels are the lists installed with
tfds. That 22 of the training files are CMYK and one is a PNG (tfds lists them too)
needs no care here: pictures are decoded by their content, not by their name.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from alexnet_jax.data import folder, tfds_source
from alexnet_jax.data.records import Source
from alexnet_jax.data.splits import Role, base, check_known, role_of, take
from alexnet_jax.data.tar import Index, Member, TarFile, TarSplit
from alexnet_jax.errors import DataError

SPEC = "imagenet2012"
TARS = {
    "train": "ILSVRC2012_img_train.tar",
    "validation": "ILSVRC2012_img_val.tar",
}
_FOLDERS = {"train": ("train",), "validation": ("val", "validation")}

# Where people unpack it, below the data folder; the last is Kaggle's arrangement.
_UNPACKED = ("downloads/manual", ".", "imagenet", "ILSVRC/Data/CLS-LOC")

# Headers are read in threads to hide the latency of disks; parsing keeps one busy.
_SCAN_THREADS = 16


def open_splits(
    directory: str | None, splits: Sequence[str | None]
) -> list[tuple[Source, Role]]:
    """Open splits of ImageNet 2012.

    Args:
        directory: that tfds's sets lie in; None for tfds's default.
        splits: ``train`` or ``validation`` or slices; None for ``validation``.

    Returns:
        Each split, and what results on it may be used for.

    Raises:
        DataError: it is not there; the message says which files are missing, their
            sizes, where they were looked for and what to do.
    """
    root = tfds_source.data_dir(directory)
    chosen = [split or "validation" for split in splits]
    for split in chosen:  # tfds has a test split too, without labels
        check_known(SPEC, split, list(TARS))
    prepared = list(root.glob(f"{SPEC}/*/dataset_info.json"))
    refusal = None
    if prepared:
        try:
            builder = tfds_source.open_builder(SPEC, directory)
            return [
                (tfds_source.TfdsSplit(builder, SPEC, split), role_of(split))
                for split in chosen
            ]
        except DataError as error:
            refusal = error  # as TFRecord, perhaps; the tars may still be there
    wanted = {base(split) for split in chosen}
    places = {split: _find(root, split) for split in TARS if split in wanted}
    missing = [split for split, place in places.items() if place is None]
    if missing:
        raise refusal or _not_found(root, missing)
    sources = {split: _open(split, place) for split, place in places.items() if place}
    return [(take(SPEC, sources, split), role_of(split)) for split in chosen]


def class_names() -> list[str]:
    """List the WordNet ids of the 1,000 classes, in label order."""
    return _tfds_file("labels.txt").split()


def validation_labels() -> list[str]:
    """List the WordNet ids of the 50,000 validation pictures, by their number."""
    return _tfds_file("validation_labels.txt").split()


def tar_bytes() -> Mapping[str, int]:
    """Return the size in bytes that each tar must have, by its name."""
    lines = _tfds_file("checksums.tsv").splitlines()
    return {line.split()[0].rpartition("/")[2]: int(line.split()[1]) for line in lines}


def _tfds_file(name: str) -> str:
    import tensorflow_datasets as tfds

    return tfds.core.tfds_path(f"datasets/{SPEC}/{name}").read_text()


def _find(root: Path, split: str) -> Path | None:
    """Return the tar or the unpacked folder of a split, or None."""
    tar = root / "downloads" / "manual" / TARS[split]
    if tar.is_file():
        return tar
    for place in _UNPACKED:
        for name in _FOLDERS[split]:
            if _holds_pictures(root / place / name, split):
                return root / place / name
    return None


def _holds_pictures(path: Path, split: str) -> bool:
    """Tell an unpacked split from some other folder called train or val."""
    if not path.is_dir():
        return False
    if next(path.glob("n0*"), None) or next(path.glob("n1*"), None):
        return True
    return split == "validation" and bool(next(path.glob("ILSVRC2012_val_*"), None))


def _open(split: str, place: Path) -> Source:
    name = f"{SPEC} {split}"
    if place.is_dir():
        return _from_folder(name, place)
    file = TarFile(place, tar_bytes().get(TARS[split]))
    if split == "train":
        return _from_train_tar(name, file)
    return _from_val_tar(name, file)


def _from_train_tar(name: str, file: TarFile) -> Source:
    """Index the tar of the class tars."""
    classes = class_names()
    labels = {f"{wnid}.tar": label for label, wnid in enumerate(classes)}
    parts = sorted(file.members())
    strange = [part.name for part in parts if part.name not in labels]
    if strange or not parts:
        raise DataError(
            f"{file.path} holds {strange[0] if strange else 'nothing'!r}; it should "
            "hold n01440764.tar and the other classes of ILSVRC 2012"
        )

    def scan(part: Member) -> Index:
        return Index.of(file.members(part.start, part.start + part.size))

    with ThreadPoolExecutor(_SCAN_THREADS, "alexnet-tar") as pool:
        inside = list(pool.map(scan, parts))
    numbers = [labels[part.name] for part in parts]
    repeated = np.repeat(np.array(numbers, np.int32), [len(part) for part in inside])
    return TarSplit(name, classes, file, Index.joined(inside), repeated)


def _from_val_tar(name: str, file: TarFile) -> Source:
    index = Index.of(file.members())
    names = [os.path.basename(os.fsdecode(member)) for member in index.names]
    return TarSplit(
        name, class_names(), file, index, _numbered_labels(names, file.path)
    )


def _from_folder(name: str, root: Path) -> Source:
    classes = class_names()
    flat = sorted(path.name for path in root.glob("ILSVRC2012_val_*"))
    if not flat:
        return folder.scan(name, root, classes)
    return folder.FolderSplit(name, classes, root, flat, _numbered_labels(flat, root))


def _numbered_labels(names: Sequence[str], where: Path) -> np.ndarray:
    """Look up the labels of pictures called ``ILSVRC2012_val_00000001.JPEG`` and on.

    Returns:
        ``i32[N]``.
    """
    label_of = {wnid: label for label, wnid in enumerate(class_names())}
    wnids = validation_labels()
    labels = []
    for name in names:
        number = Path(name).stem.rpartition("_")[2]
        if not number.isdecimal() or not 1 <= int(number) <= len(wnids):
            raise DataError(
                f"{where} holds {name!r}, which is not a validation picture of ILSVRC "
                "2012; they are called ILSVRC2012_val_00000001.JPEG and so on"
            )
        labels.append(label_of[wnids[int(number) - 1]])
    return np.array(labels, np.int32)


def _not_found(root: Path, missing: Sequence[str]) -> DataError:
    manual = root / "downloads" / "manual"
    sizes = tar_bytes()
    files = " and ".join(
        f"{TARS[split]} ({sizes[TARS[split]]:,} bytes)" for split in missing
    )
    folders = " and ".join(f"{_FOLDERS[split][0]}/" for split in missing)
    return DataError(
        f"imagenet2012 is not there: {manual} lacks {files}; nor is it prepared by "
        f"tfds in {root / SPEC}, nor unpacked in {folders} of "
        f"{' or '.join(str(root / place) for place in _UNPACKED)}; download the tars "
        f"from https://image-net.org/download-images into {manual}, then: alexnet "
        f"prepare imagenet2012 --data-dir {root} --out DIR"
    )
