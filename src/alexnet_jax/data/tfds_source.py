"""Data sets that tfds has prepared, read without TensorFlow (``tfds:NAME``).

tfds resolves the name, configuration, version and splits. Its records are read as raw
bytes, and only the fields needed are taken out of them: on CIFAR-10 that is 40 us a
record, beside 116 us with tfds's own deserialisation and 160 us or more with its
decoding, all of it Python that no other thread can use.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_jax.data.records import Record, Source
from alexnet_jax.data.splits import Role, default_eval_split, role_of
from alexnet_jax.errors import DataError

# tfds keeps the name of a picture's file under one of these, where it keeps it.
_NAME = re.compile(r"\w+(/[\w.\-]+)?(:[\w.*]+)?")

_ID_FEATURES = ("file_name", "filename", "image/filename", "id")


class TfdsSplit:
    """One split of a prepared tfds set; safe to read from many threads.

    Attributes:
        name: what the user asked for.
        classes: names of the classes, in label order.
        extents: file, first record and end of each stretch that the split takes.
    """

    def __init__(
        self,
        builder: Any,
        spec: str,
        split: str,
        classes: Sequence[str] | None = None,
    ):
        """Open a split.

        Args:
            builder: of a set that `open_builder` has checked.
            spec: what the user asked for, for messages.
            split: in tfds's syntax, such as ``train[:45000]``.
            classes: their names in label order; tfds's list when None.

        Raises:
            DataError: there is no such split.
        """
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        # Generated code: its classes appear only at run time.
        example: Any = tf_example_pb2
        self.name = f"{spec} {split}"
        features = builder.info.features
        self.classes: Sequence[str] = tuple(classes or features["label"].names)
        self._id = next((key for key in _ID_FEATURES if key in features), None)
        self._parse = example.Example.FromString
        _check_split(builder, spec, split)
        files = builder.info.splits[split].file_instructions
        self.extents = [(f.filename, f.skip, f.skip + f.take) for f in files]
        _allow_open_files(len(files))
        source = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        self._records = source.data_source

    def __len__(self) -> int:
        """Count the records."""
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        """Return one record; its image is an encoded file."""
        name = f"{self.name} #{index}"
        try:
            example = self._parse(self._records[index]).features.feature
        except RuntimeError as error:  # what array_record raises of a file
            cause = " ".join(str(error).split())
            raise DataError(f"{name}: cannot be read: {cause}") from None
        if self._id is not None:
            values = example[self._id].bytes_list.value
            name = values[0].decode(errors="replace") if values else name
        return Record(
            image=example["image"].bytes_list.value[0],
            label=example["label"].int64_list.value[0],
            id=name,
        )


def data_dir(directory: str | None) -> Path:
    """Return the folder that tfds's sets lie in.

    Args:
        directory: as the user gave it; None for tfds's own default, which is the
            environment's ``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(directory or default).expanduser()


def open_splits(
    spec: str, directory: str | None, splits: Sequence[str | None]
) -> list[tuple[Source, Role]]:
    """Open splits of the set ``tfds:NAME``.

    Args:
        spec: such as ``tfds:cifar10``, ``tfds:name/config:1.0.0``.
        directory: that tfds's sets lie in; None for tfds's default.
        splits: their names; None for the one to evaluate on: ``validation`` if there
            is one, else ``test``.

    Returns:
        Each split, and what results on it may be used for.

    Raises:
        DataError: the set or a split is not there or cannot be used.
    """
    builder = open_builder(spec, directory)
    opened = []
    for split in splits:
        chosen = split or default_eval_split(spec, list(builder.info.splits))
        opened.append((TfdsSplit(builder, spec, chosen), role_of(chosen)))
    return opened


def open_builder(spec: str, directory: str | None) -> Any:
    """Find a prepared set of images with labels.

    Args:
        spec: such as ``tfds:cifar10``.
        directory: that tfds's sets lie in; None for tfds's default.

    Returns:
        tfds's builder of it, for reading only.

    Raises:
        DataError: it is not there, is not in ArrayRecord files, or has no ``image``
            and ``label``; the message says what to do.
    """
    from tensorflow_datasets.core import read_only_builder

    name = spec.removeprefix("tfds:")
    folder = data_dir(directory)
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{spec!r} is not understood; write tfds:NAME, tfds:NAME/CONFIG or "
            "tfds:NAME/CONFIG:VERSION"
        )
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=folder)
    except Exception as error:
        # A missing set is a DatasetNotFoundError; a damaged one can be anything,
        # json and protobuf errors among it.
        raise _not_found(spec, name, folder, error) from None
    return check_builder(spec, builder)


def check_builder(spec: str, builder: Any) -> Any:
    """Return `builder` if it can be read as labelled images, else raise a DataError."""
    import tensorflow_datasets as tfds

    formats = {str(kind.value) for kind in builder.info.available_file_formats()}
    path = os.fspath(builder.data_path)
    if "array_record" not in formats:
        raise DataError(
            f"{spec} in {path} is prepared as {', '.join(sorted(formats))}, which "
            f"needs TensorFlow to read; {convert_command(path)}"
        )
    features = builder.info.features
    for key, kind in (
        ("image", tfds.features.Image),
        ("label", tfds.features.ClassLabel),
    ):
        if not isinstance(features, tfds.features.FeaturesDict) or key not in features:
            raise DataError(
                f"{spec} has no feature {key!r} (its features: "
                f"{', '.join(features) if features else 'none'}); choose an image "
                "classification set, or put pictures in class folders and use folder:"
            )
        if not isinstance(features[key], kind):
            raise DataError(
                f"{spec} has a feature {key!r} that is {type(features[key]).__name__}, "
                f"not {kind.__name__}; choose an image classification set"
            )
    if "float" in str(features["image"].np_dtype):
        raise DataError(f"{spec} holds float images; only 8- and 16-bit ones are read")
    return builder


def convert_command(path: str) -> str:
    """Say how a set prepared as TFRecord becomes ArrayRecord, in the same folder."""
    return (
        "convert it once: pip install 'alexnet-jax[prepare]' && tfds convert_format "
        f"--dataset_version_dir={path} --out_file_format=array_record"
    )


def build_command(name: str, folder: Path) -> str:
    """Say how tfds downloads and prepares a set as ArrayRecord."""
    return (
        f"pip install 'alexnet-jax[prepare]' && tfds build {name} "
        f"--data_dir={folder} --file_format=array_record"
    )


def _not_found(spec: str, name: str, folder: Path, error: Exception) -> DataError:
    plain = re.split(r"[/:]", name)[0]
    if plain == "imagenet2012" and spec != plain and not (folder / plain).is_dir():
        return DataError(
            f"{spec} is not in {folder}; give imagenet2012 instead, which also reads "
            "the tar files that image-net.org gives"
        )
    if not folder.is_dir():
        return DataError(
            f"{spec} is not there: the folder {folder} does not exist; give "
            f"--data-dir, or prepare it: {build_command(plain, folder)}"
        )
    if (folder / plain).is_dir():
        found = sorted(
            os.path.relpath(info.parent, folder)
            for info in (folder / plain).glob("**/dataset_info.json")
        )
        cause = " ".join(str(error).split())[:200]
        listed = ", ".join(found) or "nothing complete"
        return DataError(
            f"{spec} cannot be opened in {folder}, which holds {listed} of it; name "
            f"one as tfds:NAME/CONFIG:VERSION (tfds says: {cause})"
        )
    infos = [
        *folder.glob("*/*/dataset_info.json"),
        *folder.glob("*/*/*/dataset_info.json"),
    ]
    there = sorted({info.relative_to(folder).parts[0] for info in infos})
    return DataError(
        f"{spec} is not in {folder} (sets there: {', '.join(there) or 'none'}); "
        f"prepare it: {build_command(plain, folder)}"
    )


def _check_split(builder: Any, spec: str, split: str) -> None:
    names = list(builder.info.splits)
    try:
        count = builder.info.splits[split].num_examples
    except Exception as error:  # KeyError, ValueError and others, by kind of mistake
        if split.partition("[")[0] not in names:
            raise DataError(
                f"{spec} has no split {split!r}; it has {', '.join(names)} "
                "(slices such as train[:90%] work too)"
            ) from None
        cause = " ".join(str(error).split())[:200]
        raise DataError(f"{spec} split {split!r} is not understood: {cause}") from None
    if not count:
        raise DataError(f"{spec} split {split!r} has no images")


def _allow_open_files(count: int) -> None:
    """Raise the limit of open files to hold a set's shards, one file each.

    Reading at random keeps every shard open; ImageNet has 1,024, and that is a common
    limit for a whole process.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + count
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < count + 256 and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
