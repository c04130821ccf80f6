"""tfds sets: a tiny one written here, and CIFAR-10 where it lies."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.config import DataConfig
from alexnet_jax.data import (
    decode,
    eval_batches,
    known_spec,
    open_dataset,
    open_split,
)
from alexnet_jax.errors import ConfigError, DataError

REAL = Path(
    os.environ.get("ALEXNET_TEST_TFDS")
    or Path(__file__).parents[1].parent / "shared" / "data" / "tfds"
)
needs_cifar = pytest.mark.skipif(
    not (REAL / "cifar10").is_dir(),
    reason=f"no CIFAR-10 in {REAL}; set ALEXNET_TEST_TFDS to a folder with cifar10",
)


def write_tfds(folder, splits, features=None, file_format="array_record"):
    """Write a set in tfds's layout: `splits` gives the shard lengths by name."""
    folder.mkdir(parents=True)
    features = features or {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=["cat", "dog", "bird"]),
        "file_name": tfds.features.Text(),
    }
    tfds.features.FeaturesDict(features).save_config(str(folder))
    name = folder.parts[-2]
    info = {
        "name": name,
        "version": "1.0.0",
        "fileFormat": file_format,
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "1",
                "shardLengths": [str(length) for length in lengths],
            }
            for split, lengths in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for split, lengths in splits.items():
        number = 0
        for shard, length in enumerate(lengths):
            file = f"{name}-{split}.array_record-{shard:05}-of-{len(lengths):05}"
            writer = array_record_module.ArrayRecordWriter(
                str(folder / file), "group_size:1"
            )
            for _ in range(length):
                pixels = np.full((8, 8, 3), number, np.uint8)
                example = tf_example_pb2.Example()  # pyright: ignore
                feature = example.features.feature
                jpeg = simplejpeg.encode_jpeg(pixels, quality=100)
                feature["image"].bytes_list.value.append(jpeg)
                feature["label"].int64_list.value.append(number % 3)
                file_name = f"{split}-{number}.jpg".encode()
                feature["file_name"].bytes_list.value.append(file_name)
                writer.write(example.SerializeToString())
                number += 1
            writer.close()


def ids(source):
    return [source[index].id for index in range(len(source))]


def open_tiny(root, **options):
    config = DataConfig(spec="tfds:tiny", dir=str(root), image_size=8, **options)
    return open_dataset(config)


def test_records_labels_and_shards(tmp_path):
    write_tfds(tmp_path / "tiny" / "1.0.0", {"train": [4, 3], "test": [2]})
    data = open_tiny(tmp_path)
    assert data.train.classes == ("cat", "dog", "bird")
    assert ids(data.train) == [f"train-{n}.jpg" for n in range(7)]
    assert [data.train[n].label for n in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert np.all(decode(data.train[6].image, 8, 3) == 6)
    assert (ids(data.eval), data.eval_role) == (["test-0.jpg", "test-1.jpg"], "test")


def test_validation_is_preferred_to_test(tmp_path):
    write_tfds(
        tmp_path / "tiny" / "1.0.0", {"train": [4], "test": [2], "validation": [3]}
    )
    data = open_tiny(tmp_path)
    assert (len(data.eval), data.eval_role) == (3, "validation")
    assert open_split("tfds:tiny", "test", directory=str(tmp_path))[1] == "test"


def test_slices_are_tfds_slices(tmp_path):
    write_tfds(tmp_path / "tiny" / "1.0.0", {"train": [4, 6], "test": [2]})
    data = open_tiny(tmp_path, train_split="train[:70%]", eval_split="train[70%:]")
    assert ids(data.train) == [f"train-{n}.jpg" for n in range(7)]
    assert ids(data.eval) == [f"train-{n}.jpg" for n in range(7, 10)]
    assert data.eval_role == "validation"
    mixed, role = open_split("tfds:tiny", "train[8:]+test", directory=str(tmp_path))
    assert (ids(mixed)[1:3], role) == (["train-9.jpg", "test-0.jpg"], "test")
    with pytest.raises(ConfigError, match="shares 3 images with the training split"):
        open_tiny(tmp_path, eval_split="train[7:]")


def test_versions_and_configurations(tmp_path):
    write_tfds(tmp_path / "tiny" / "1.0.0", {"train": [1], "test": [1]})
    write_tfds(tmp_path / "tiny" / "1.2.0", {"train": [2], "test": [1]})
    write_tfds(tmp_path / "tiny" / "big" / "2.0.0", {"train": [5], "test": [1]})

    def count(spec):
        return len(open_split(spec, "train", directory=str(tmp_path))[0])

    assert count("tfds:tiny") == 2
    assert count("tfds:tiny:1.0.0") == 1
    assert count("tfds:tiny:1.*.*") == 2


def test_the_environments_folder(tmp_path, monkeypatch):
    write_tfds(tmp_path / "tiny" / "1.0.0", {"train": [3], "test": [1]})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(open_split("tfds:tiny", "train")[0]) == 3


def test_many_threads_read_what_one_reads(tmp_path):
    write_tfds(tmp_path / "tiny" / "1.0.0", {"train": [20] * 5, "test": [1]})
    source, _ = open_split("tfds:tiny", "train", directory=str(tmp_path))
    with ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda n: source[n % 100], range(2000)))
    assert [record.id for record in read] == [
        f"train-{n % 100}.jpg" for n in range(2000)
    ]


def refuse(message, root, spec="tfds:tiny", split: str | None = "train"):
    with pytest.raises(DataError, match=message) as caught:
        open_split(spec, split, directory=str(root))
    assert "\n" not in str(caught.value)


def test_what_is_not_there(tmp_path):
    write_tfds(tmp_path / "tiny" / "1.0.0", {"train": [3]})
    refuse(
        r"tfds:mnist is not in .* \(sets there: tiny\); prepare it: pip install "
        r"'alexnet-jax\[prepare\]' && tfds build mnist --data_dir=.* "
        r"--file_format=array_record",
        tmp_path,
        "tfds:mnist",
    )
    refuse("the folder .*nowhere does not exist", tmp_path / "nowhere")
    refuse("give imagenet2012 instead", tmp_path, "tfds:imagenet2012")
    refuse("which holds tiny/1.0.0 of it", tmp_path, "tfds:tiny:3.0.0")
    refuse("which holds tiny/1.0.0 of it", tmp_path, "tfds:tiny/plain")
    refuse("'tfds:../x' is not understood; write tfds:NAME", tmp_path, "tfds:../x")
    refuse("has no split 'trian'; it has train", tmp_path, split="trian")
    refuse(r"split 'train\[x:\]' is not understood", tmp_path, split="train[x:]")
    refuse(r"split 'train\[:0\]' has no images", tmp_path, split="train[:0]")
    refuse(
        r"has no validation or test split \(its splits: train\); slice one, such as",
        tmp_path,
        split=None,
    )


def test_sets_that_cannot_be_used(tmp_path):
    image = tfds.features.Image(shape=(8, 8, 3))
    label = tfds.features.ClassLabel(num_classes=2)
    cases = {
        "has no feature 'image' .its features: label.; choose": {"label": label},
        "has no feature 'label' .its features: image": {"image": image},
        "a feature 'label' that is Text, not ClassLabel": {
            "image": image,
            "label": tfds.features.Text(),
        },
        "a feature 'image' that is Text, not Image": {
            "image": tfds.features.Text(),
            "label": label,
        },
        "holds float images": {
            "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.float32),
            "label": label,
        },
    }
    for number, (message, features) in enumerate(cases.items()):
        write_tfds(tmp_path / f"s{number}" / "1.0.0", {}, features)
        refuse(message, tmp_path, f"tfds:s{number}")
    write_tfds(tmp_path / "old" / "1.0.0", {"train": []}, file_format="tfrecord")
    refuse(
        r"is prepared as tfrecord, which needs TensorFlow to read; convert it once: "
        r"pip install 'alexnet-jax\[prepare\]' && tfds convert_format "
        r"--dataset_version_dir=.*/old/1.0.0 --out_file_format=array_record",
        tmp_path,
        "tfds:old",
    )
    write_tfds(tmp_path / "torn" / "1.0.0", {"train": [1]})
    (tmp_path / "torn" / "1.0.0" / "dataset_info.json").write_text("{")
    refuse("tfds:torn cannot be opened in", tmp_path, "tfds:torn")


def test_a_lost_shard(tmp_path):
    write_tfds(tmp_path / "tiny" / "1.0.0", {"train": [3], "test": [1]})
    next((tmp_path / "tiny" / "1.0.0").glob("*train*")).unlink()
    source, _ = open_split("tfds:tiny", "train", directory=str(tmp_path))
    batches = eval_batches(source, batch_size=2, image_size=8, channels=3)
    with pytest.raises(DataError, match=r"tiny train #0: cannot be read: .*No such"):
        next(batches)


def test_known_specs():
    for spec in ("digits", "imagenet2012", "tfds:a", "folder:a", "prepared:~/a"):
        assert known_spec(spec) == spec
    for spec in ("", "digit", "tfds", "tfds:", "folder: ", "digits:x", "hf:x"):
        with pytest.raises(ConfigError, match=r"is not known; give one of digits, ima"):
            known_spec(spec)


def run(program):
    """Run a program in a fresh interpreter and return the words it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_is_light():
    assert (
        run("import alexnet_jax.data, sys; print(*sys.modules)")
        & {
            *("jax", "grain", "tensorflow_datasets", "sklearn", "tensorflow", "scipy"),
        }
        == set()
    )


def test_reading_never_imports_tensorflow(tmp_path):
    write_tfds(tmp_path / "tiny" / "1.0.0", {"train": [3], "test": [1]})
    # A stand-in for TensorFlow that ends the process when it is imported.
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit(9)")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from alexnet_jax.data import eval_batches, open_split
source, _ = open_split("tfds:tiny", "train", directory={str(tmp_path)!r})
(batch,) = eval_batches(source, batch_size=3, image_size=8, channels=3)
print(*batch.labels)
"""
    assert run(program) == {"0", "1", "2"}


@needs_cifar
def test_cifar10():
    data = open_dataset(DataConfig(spec="tfds:cifar10", dir=str(REAL), image_size=32))
    assert (len(data.train), len(data.eval), data.eval_role) == (50_000, 10_000, "test")
    assert data.train.classes[3] == "cat"
    builder = tfds.builder_from_directory(str(REAL / "cifar10" / "3.0.2"))
    reference: Any = builder.as_data_source("test")  # pyright: ignore
    for index in (0, 2500, 9999):
        record, example = data.eval[index], reference[index]
        np.testing.assert_array_equal(decode(record.image, 32, 3), example["image"])
        assert record.label == example["label"]
        assert record.id == example["id"].decode()
