"""The prepared store: complete, exact, restartable, never overwritten."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.config import DataConfig
from alexnet_jax.data import compute, decode, open_dataset, open_split
from alexnet_jax.data.prepare import (
    Finished,
    Progress,
    Skipped,
    Started,
    prepare,
)
from alexnet_jax.errors import ConfigError, DataError

SIZE = 24


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Make 300 training and 40 validation pictures of two classes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("val", 40)):
        for number in range(count):
            folder = root / split / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (4, 5, 3), np.uint8).repeat(9, 0).repeat(9, 1)
            (folder / f"{number:03}.jpg").write_bytes(jpeg(pixels))
    return root


def make(source, out, **options):
    return list(prepare(f"folder:{source}", out, image_size=SIZE, **options))


@pytest.fixture(scope="module")
def store(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "made" / "here"
    make(photos, out)
    return out


def contents(folder):
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def opened(out, **options):
    config = DataConfig(spec=f"prepared:{out}", image_size=SIZE, **options)
    return open_dataset(config)


def damaged_copy(photos, root, count):
    """Link the pictures to a new tree and spoil the first of each class in turn."""
    for path in sorted(photos.rglob("*.jpg")):
        link = root / path.relative_to(photos)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    spoilt = []
    for path in sorted((root / "train" / "cat").iterdir())[:count]:
        path.unlink()
        path.write_bytes(b"no picture")
        spoilt.append(f"cat/{path.name}")
    return spoilt


def test_events_count_every_picture(photos, tmp_path):
    events = make(photos, tmp_path / "out", workers=2)
    assert events[0] == Started(
        total=340, done=0, corrupt=0, splits={"train": 300, "validation": 40}
    )
    steps = [event for event in events if isinstance(event, Progress)]
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total == 340
    done = events[-1]
    assert isinstance(done, Finished)
    assert (done.images, done.corrupt) == ({"train": 300, "validation": 40}, 0)
    assert not done.already


def test_the_store_holds_the_pictures_as_decoding_gives_them(photos, store):
    data, source = opened(store), DataConfig(spec=f"folder:{photos}", image_size=SIZE)
    original = open_dataset(source)
    assert data.eval_role == "validation"
    assert list(data.train.classes) == ["cat", "dog"]
    for ours, theirs in ((data.train, original.train), (data.eval, original.eval)):
        assert len(ours) == len(theirs)
        for index in range(0, len(ours), 7):
            one, two = ours[index], theirs[index]
            assert (one.id, one.label) == (two.id, two.label)
            pixels = decode(one.image, SIZE, 3).astype(float)
            wanted = decode(two.image, SIZE, 3).astype(float)
            assert np.abs(pixels - wanted).mean() < 12  # JPEG at quality 85, blocks


def test_statistics_are_those_of_the_stored_pictures(store):
    data = opened(store)
    exact = compute(data.train, SIZE, 3)
    assert data.statistics is not None
    assert data.statistics.images == 300
    np.testing.assert_array_equal(data.statistics.mean, exact.mean)
    np.testing.assert_array_equal(data.statistics.covariance, exact.covariance)
    assert opened(store, train_split="train[:50%]").statistics is None
    other = DataConfig(spec=f"prepared:{store}", image_size=SIZE * 2)
    assert open_dataset(other).statistics is None


def test_tfds_reads_the_store(store):
    builder: Any = tfds.builder_from_directory(str(store))
    assert builder.info.splits["train"].num_examples == 300
    assert builder.info.features["label"].names == ["cat", "dog"]
    example = builder.as_data_source("validation")[39]
    assert example["image"].shape == (SIZE, SIZE, 3)
    assert example["label"] == 1
    assert example["file_name"] == b"dog/039.jpg"


def test_a_jpeg_of_the_right_size_is_stored_unchanged(tmp_path):
    rng = np.random.default_rng(0)
    kinds = {
        "0.jpg": jpeg(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), quality=31),
        "1.jpg": jpeg(rng.integers(0, 256, (SIZE, SIZE), np.uint8)),  # grey
        "2.jpg": jpeg(rng.integers(0, 256, (SIZE, SIZE + 1, 3), np.uint8)),
    }
    for split, name in itertools.product(("train", "val"), ("a", "b")):
        folder = tmp_path / "in" / split / name
        folder.mkdir(parents=True)
        for file, data in kinds.items():
            (folder / file).write_bytes(data)
    make(tmp_path / "in", tmp_path / "out")
    source, _ = open_split(f"prepared:{tmp_path / 'out'}", "train")
    stored = [source[index].image for index in range(3)]
    unchanged = [a == b for a, b in zip(stored, kinds.values(), strict=True)]
    assert unchanged == [True, False, False]


def test_slices_of_the_store(store):
    data = opened(store, train_split="train[:200]", eval_split="train[200:]")
    assert (len(data.train), len(data.eval), data.eval_role) == (200, 100, "validation")
    ids = [{s[i].id for i in range(len(s))} for s in (data.train, data.eval)]
    assert not ids[0] & ids[1]
    assert {data.eval[i].label for i in range(100)} == {0, 1}


@pytest.mark.parametrize("workers", [1, 5])
def test_workers_do_not_change_a_byte(photos, store, tmp_path, workers):
    make(photos, tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == contents(store)


def test_kill_and_restart_end_in_the_same_bytes(photos, store, tmp_path):
    out = tmp_path / "out"
    program = """
import os, signal, sys
from alexnet_jax.data.prepare import prepare
source, out, stop = sys.argv[1:]
for number, event in enumerate(prepare(source, out, image_size=24, workers=2)):
    if number == int(stop):
        os.kill(os.getpid(), signal.SIGKILL)
"""
    done = []
    for stop in (1, 18, 4):  # of 25 events; each of four shards takes up to 7
        arguments = [f"folder:{photos}", str(out), str(stop)]
        child = subprocess.run([sys.executable, "-c", program, *arguments], timeout=120)
        assert child.returncode == -signal.SIGKILL
        with pytest.raises(DataError, match="is not complete; continue: alexnet prep"):
            opened(out)
        done.append(len(list((out / ".work").glob("*.npz"))))
    assert done[0] == 0
    assert 1 <= done[1] <= done[2] <= 4
    events = make(photos, out)
    assert isinstance(events[0], Started)
    assert events[0].done > 0
    assert contents(out) == contents(store)


def test_a_closed_iterator_can_be_continued(photos, store, tmp_path):
    events = prepare(f"folder:{photos}", tmp_path / "out", image_size=SIZE, workers=1)
    for _ in range(12):
        next(events)
    events.close()
    assert contents(tmp_path / "out") != contents(store)
    make(photos, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(store)


def test_a_torn_note_costs_only_its_shard(photos, store, tmp_path):
    events = prepare(f"folder:{photos}", tmp_path / "out", image_size=SIZE, workers=1)
    for _ in range(12):
        next(events)
    events.close()
    note = min((tmp_path / "out" / ".work").glob("*.npz"))
    for damage in (note.read_bytes()[:1000], b""):
        note.write_bytes(damage)
        (started,) = itertools.islice(
            prepare(f"folder:{photos}", tmp_path / "out", image_size=SIZE), 1
        )
        assert isinstance(started, Started)
        assert started.done % 100 == 0
    make(photos, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(store)


def test_a_finished_store_is_left_alone(photos, store):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    (event,) = make(photos, store)
    assert isinstance(event, Finished)
    assert event.already
    assert event.images == {"train": 300, "validation": 40}
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_nothing_is_overwritten(photos, store, tmp_path):
    def refuse(message, out, **options):
        with pytest.raises(DataError, match=message) as caught:
            make(photos, out, **options)
        assert "\n" not in str(caught.value)

    refuse("holds a store made with quality=85, not 90", store, quality=90)
    with pytest.raises(DataError, match=r"made with image_size=24, not 48"):
        list(prepare(f"folder:{photos}", store, image_size=48))
    with pytest.raises(DataError, match=r"made with source='folder:.*', not 'digits'"):
        list(prepare("digits", store, image_size=SIZE))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    refuse(r"holds other files \(thesis.tex\); nothing is over", tmp_path / "mine")
    (tmp_path / "file").touch()
    refuse("file is a file; give a new folder", tmp_path / "file")
    refuse(r"cannot write .*file/below: Not a directory", tmp_path / "file" / "below")


def test_a_source_that_changed_meanwhile_is_refused(photos, tmp_path):
    damaged_copy(photos, tmp_path / "in", 0)
    events = prepare(f"folder:{tmp_path / 'in'}", tmp_path / "out", image_size=SIZE)
    next(events)
    events.close()
    next((tmp_path / "in" / "train" / "dog").iterdir()).unlink()
    with pytest.raises(DataError, match=r"the splits of folder:.* have changed since"):
        make(tmp_path / "in", tmp_path / "out")


def test_two_at_once_are_refused(photos, tmp_path):
    first = prepare(f"folder:{photos}", tmp_path / "out", image_size=SIZE)
    next(first)
    with pytest.raises(DataError, match="another process is preparing"):
        make(photos, tmp_path / "out")
    assert isinstance(list(first)[-1], Finished)


def test_corrupt_pictures_are_listed_and_left_out(photos, tmp_path):
    spoilt = damaged_copy(photos, tmp_path / "in", 3)
    events = make(tmp_path / "in", tmp_path / "out")
    skipped = [event for event in events if isinstance(event, Skipped)]
    assert sorted(event.id for event in skipped) == spoilt
    assert skipped[0].reason == "is not an image that Pillow can read"
    done = events[-1]
    assert isinstance(done, Finished)
    assert (done.images, done.corrupt) == ({"train": 297, "validation": 40}, 3)
    lines = (tmp_path / "out" / "corrupt.txt").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [
        ["train", id_] for id_ in spoilt
    ]
    source, _ = open_split(f"prepared:{tmp_path / 'out'}", "train")
    stored = {source[index].id for index in range(len(source))}
    assert len(source) == len(stored) == 297
    assert not stored & set(spoilt)


def test_odd_names_are_listed_on_one_line(photos, tmp_path):
    damaged_copy(photos, tmp_path / "in", 0)
    odd = tmp_path / "in" / "train" / "cat" / os.fsdecode(b"a\tb\nc\xff.jpg")
    odd.write_bytes(b"no picture")
    make(tmp_path / "in", tmp_path / "out")
    listed = (tmp_path / "out" / "corrupt.txt").read_bytes()
    assert listed == (
        b"train\tcat/a b c\xff.jpg\tis not an image that Pillow can read\n"
    )


def test_too_many_corrupt_pictures_end_it_with_the_list(photos, tmp_path):
    spoilt = damaged_copy(photos, tmp_path / "in", 5)
    with pytest.raises(DataError, match=r"[45] of 340 pictures are corrupt, more than"):
        make(tmp_path / "in", tmp_path / "out")
    listed = (tmp_path / "out" / "corrupt.txt").read_text()
    assert sum(name in listed for name in spoilt) >= 4
    with pytest.raises(DataError, match=r"more than max_corrupt=0.01; .*corrupt.txt"):
        make(tmp_path / "in", tmp_path / "out")
    done = make(tmp_path / "in", tmp_path / "out", max_corrupt=0.02)[-1]
    assert isinstance(done, Finished)
    assert done.corrupt == 5


def test_a_full_disk(photos, store, tmp_path):
    program = """
import resource, sys
from alexnet_jax.data.prepare import prepare
from alexnet_jax.errors import DataError
# A limit on the size of files stands in for a disk that is full.
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, resource.RLIM_INFINITY))
try:
    list(prepare(sys.argv[1], sys.argv[2], image_size=24))
except DataError as error:
    sys.exit(str(error))
"""
    arguments = [f"folder:{photos}", str(tmp_path / "out")]
    child = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 1
    assert "Traceback" not in child.stderr
    assert "cannot write" in child.stderr
    assert "File too large" in child.stderr
    assert "same command again: what is finished is kept" in child.stderr
    make(photos, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(photos, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"cannot write .*: Permission denied"):
        make(photos, tmp_path / "out")


def test_a_damaged_store_is_refused(store, tmp_path):
    def refuse(message, out):
        with pytest.raises(DataError, match=message) as caught:
            opened(out)
        assert "\n" not in str(caught.value)

    refuse(
        r"there is no store at .*nowhere; make it: alexnet prepare SOURCE", "nowhere"
    )
    (tmp_path / "plain").mkdir()
    refuse("plain is not a prepared store", tmp_path / "plain")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in contents(store).items():
        (copy / name).write_bytes(data)
    assert len(opened(copy).train) == 300
    for damage in (b"", b"PK\x03\x04", b"plain text"):
        (copy / "statistics.npz").write_bytes(damage)
        refuse("statistics.npz is damaged", copy)
    (copy / "dataset_info.json").write_text("{")
    refuse("copy is damaged: .*; make it again", copy)
    settings = json.loads((copy / "prepare.json").read_text())
    (copy / "prepare.json").write_text(json.dumps({**settings, "format": 99}))
    refuse("is a store of format 99, this version reads 1; make it again", copy)
    (copy / "prepare.json").write_text("[")
    refuse("prepare.json cannot be read", copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, "quality=0: a JPEG's quality is 1 to 100"),
        ({"workers": 0}, "workers=0: give at least 1"),
        ({"max_corrupt": 2.0}, r"max_corrupt=2.0: give a share from 0 to 1"),
    ],
)
def test_values_out_of_range(photos, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        make(photos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_nothing_is_begun_where_the_source_is_missing(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        make(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ConfigError, match="is not known"):
        list(prepare("photos", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_grey_pixels_without_a_file_can_be_prepared(tmp_path):
    events = prepare(
        "digits",
        tmp_path,
        image_size=16,
        train_split="train[:50]",
        eval_split="test[:30]",
    )
    done = list(events)[-1]
    assert isinstance(done, Finished)
    assert done.images == {"train": 50, "test": 30}
    source, role = open_split(f"prepared:{tmp_path}", None)
    assert role == "test"
    pixels = decode(source[0].image, 16, 3)
    assert np.ptp(pixels, axis=2).max() <= 1
    digits, _ = open_split("digits", "test[:30]")
    assert [source[i].id for i in range(30)] == [digits[i].id for i in range(30)]


def test_preparing_a_store_again_loses_nothing(store, tmp_path):
    list(prepare(f"prepared:{store}", tmp_path / "again", image_size=SIZE))
    one, two = opened(store), opened(tmp_path / "again")
    assert all(one.eval[i] == two.eval[i] for i in range(40))
    assert two.eval_role == "validation"
