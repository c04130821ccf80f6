"""ImageNet 2012 from miniatures of its tars and folders; the lists are tfds's own."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder

from alexnet_jax.config import DataConfig
from alexnet_jax.data import decode, imagenet, open_dataset, open_split
from alexnet_jax.data.prepare import Finished, Skipped, prepare
from alexnet_jax.errors import DataError

# Files that are not what their name says, among tfds's lists of them.
CMYK = imagenet2012_dataset_builder.CMYK_IMAGES[0]
PNG = imagenet2012_dataset_builder.PNG_IMAGES[0]
WNIDS = ("n02105855", "n01440764", "n01739381")


def encoded(colour, mode="RGB", kind="JPEG"):
    file = io.BytesIO()
    Image.new(mode, (12, 10), colour).save(file, kind)
    return file.getvalue()


def train_files(count=4):
    """Give the training files by class: `count` plain ones each, and the odd two."""
    files = {
        wnid: {
            f"{wnid}_{n}.JPEG": encoded((20 * n, 100, 200)) for n in range(1, count + 1)
        }
        for wnid in WNIDS
    }
    files["n02105855"][PNG] = encoded((255, 0, 0), kind="PNG")
    files["n01739381"][CMYK] = encoded((255, 0, 0, 0), "CMYK")
    return files


def val_files(count=6):
    return {
        f"ILSVRC2012_val_{n:08}.JPEG": encoded((10 * n, 10 * n, 10 * n))
        for n in range(1, count + 1)
    }


def tar_of(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def write_tars(root, splits=("train", "validation")):
    manual = root / "downloads" / "manual"
    manual.mkdir(parents=True, exist_ok=True)
    if "train" in splits:
        classes = {f"{w}.tar": tar_of(files) for w, files in train_files().items()}
        (manual / "ILSVRC2012_img_train.tar").write_bytes(tar_of(classes))
    if "validation" in splits:
        # The real tar is not in the order of names.
        files = dict(reversed(val_files().items()))
        (manual / "ILSVRC2012_img_val.tar").write_bytes(tar_of(files))
    return manual


def unpack(folder, flat_val=True):
    for wnid, files in train_files().items():
        for name, data in files.items():
            path = folder / "train" / wnid / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    wnids = imagenet.validation_labels()
    for number, (name, data) in enumerate(val_files().items()):
        path = folder / "val" / ("" if flat_val else wnids[number]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def both(root):
    config = DataConfig(spec="imagenet2012", dir=str(root), image_size=16)
    return open_dataset(config)


def contents(source):
    """Return label and bytes by file name."""
    records = [source[index] for index in range(len(source))]
    return {os.path.basename(r.id): (r.label, r.image) for r in records}


def expected():
    names = imagenet.class_names()
    wnids = imagenet.validation_labels()
    train = {
        name: (names.index(wnid), data)
        for wnid, files in train_files().items()
        for name, data in files.items()
    }
    val = {
        name: (names.index(wnids[number]), data)
        for number, (name, data) in enumerate(val_files().items())
    }
    return train, val


def test_the_lists_of_tfds():
    assert len(imagenet.class_names()) == 1000
    assert imagenet.class_names()[0] == "n01440764"
    assert len(imagenet.validation_labels()) == 50_000
    # ILSVRC2012_val_00000001.JPEG is a sea snake.
    assert imagenet.validation_labels()[0] == "n01751748"
    assert imagenet.tar_bytes() == {
        "ILSVRC2012_img_train.tar": 147_897_477_120,
        "ILSVRC2012_img_val.tar": 6_744_924_160,
    }


@pytest.mark.parametrize("layout", ["tars", "flat", "classes", "kaggle"])
def test_every_layout_gives_the_same_pictures_and_labels(tmp_path, layout):
    if layout == "tars":
        write_tars(tmp_path)
    elif layout == "kaggle":
        unpack(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    else:
        unpack(tmp_path, flat_val=layout == "flat")
    data = both(tmp_path)
    assert list(data.train.classes) == imagenet.class_names()
    assert data.eval_role == "validation"
    train, val = expected()
    assert contents(data.train) == train
    assert contents(data.eval) == val


def test_the_odd_files_are_decoded_by_their_content(tmp_path):
    write_tars(tmp_path)
    files = contents(both(tmp_path).train)
    red, cyan = (decode(files[name][1], 8, 3) for name in (PNG, CMYK))
    np.testing.assert_array_equal(red, np.broadcast_to((255, 0, 0), (8, 8, 3)))
    assert np.abs(cyan.astype(int) - (0, 255, 255)).max() <= 3


def test_tars_come_before_unpacked_folders(tmp_path):
    write_tars(tmp_path, ["validation"])
    unpack(tmp_path)
    data = both(tmp_path)
    assert type(data.eval).__name__ == "TarSplit"
    assert type(data.train).__name__ == "FolderSplit"


def test_only_what_is_asked_for_must_be_there(tmp_path):
    write_tars(tmp_path, ["validation"])
    source, role = open_split("imagenet2012", None, directory=str(tmp_path))
    assert (len(source), role) == (6, "validation")
    assert (
        len(open_split("imagenet2012", "validation[:50%]", directory=str(tmp_path))[0])
        == 3
    )
    with pytest.raises(DataError, match="has no split 'test'; it has train, valid"):
        open_split("imagenet2012", "test", directory=str(tmp_path))


def test_the_manual_folder_may_hold_the_unpacked_classes(tmp_path):
    unpack(tmp_path / "downloads" / "manual")
    assert len(both(tmp_path).train) == 14


def test_a_store_is_prepared_from_the_tars(tmp_path):
    write_tars(tmp_path)
    events = list(
        prepare("imagenet2012", tmp_path / "out", data_dir=str(tmp_path), image_size=16)
    )
    done = events[-1]
    assert isinstance(done, Finished)
    assert done.images == {"train": 14, "validation": 6}
    assert not [event for event in events if isinstance(event, Skipped)]
    source, _ = open_split(f"prepared:{tmp_path / 'out'}", "train")
    train, _ = expected()
    stored = contents(source)
    assert {name: label for name, (label, _) in stored.items()} == {
        name: label for name, (label, _) in train.items()
    }
    assert np.abs(decode(stored[PNG][1], 16, 3).astype(int) - (255, 0, 0)).max() <= 3


def refuse(message, root, split: str | None = None):
    with pytest.raises(DataError, match=message) as caught:
        open_split("imagenet2012", split, directory=str(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_when_nothing_is_there(tmp_path):
    text = refuse("imagenet2012 is not there", tmp_path, "train")
    assert (
        f"{tmp_path}/downloads/manual lacks ILSVRC2012_img_train.tar (147,897" in text
    )
    assert "img_val" not in text
    with pytest.raises(DataError) as caught:
        both(tmp_path)
    text = str(caught.value)
    assert "img_train.tar (147,897,477,120 bytes) and ILSVRC2012_img_val.tar" in text
    assert "https://image-net.org/download-images" in text
    assert f"then: alexnet prepare imagenet2012 --data-dir {tmp_path} --out" in text


def test_damaged_tars(tmp_path):
    manual = write_tars(tmp_path)
    train = manual / "ILSVRC2012_img_train.tar"
    whole = train.read_bytes()
    train.write_bytes(whole[: len(whole) // 2])
    refuse(
        r"train.tar is cut off: it has [\d,]+ bytes of 147,897,477,120; download it",
        tmp_path,
        "train",
    )
    train.write_bytes(b"x" * 2048)
    refuse("train.tar is not a tar or is damaged at byte 0", tmp_path, "train")
    train.write_bytes(b"")
    refuse("train.tar holds 'nothing'; it should", tmp_path, "train")
    train.write_bytes(tar_of({"cats.tar": tar_of({})}))
    refuse(
        "train.tar holds 'cats.tar'; it should hold n01440764.tar", tmp_path, "train"
    )
    (manual / "ILSVRC2012_img_val.tar").write_bytes(tar_of({"cat.JPEG": b"x"}))
    refuse("holds 'cat.JPEG', which is not a validation picture", tmp_path)
    (manual / "ILSVRC2012_img_val.tar").unlink()
    (manual / "ILSVRC2012_img_val.tar").mkdir()
    refuse("imagenet2012 is not there", tmp_path)


def write_tfds(root, file_format):
    """Write what tfds leaves of a prepared ImageNet: the description, no shards."""
    folder = root / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=imagenet.class_names()),
            "file_name": tfds.features.Text(),
        }
    ).save_config(str(folder))
    splits = [
        {
            "name": split,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "numBytes": "1",
            "shardLengths": ["7", "5"],
        }
        for split in ("train", "validation", "test")
    ]
    info = {
        "name": "imagenet2012",
        "version": "5.1.0",
        "fileFormat": file_format,
        "splits": splits,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def test_where_tfds_has_prepared_it(tmp_path):
    write_tfds(tmp_path, "array_record")
    data = both(tmp_path)
    assert (len(data.train), len(data.eval), data.eval_role) == (12, 12, "validation")
    assert list(data.train.classes) == imagenet.class_names()
    refuse("has no split 'test'", tmp_path, "test")  # its labels are all -1


def test_where_tfds_has_prepared_it_as_tfrecord(tmp_path):
    write_tfds(tmp_path, "tfrecord")
    refuse(
        r"imagenet2012/5.1.0 is prepared as tfrecord, which needs TensorFlow to read; "
        r"convert it once: .*tfds convert_format --dataset_version_dir",
        tmp_path,
    )
    write_tars(tmp_path)  # the tars do as well
    assert len(both(tmp_path).train) == 14
