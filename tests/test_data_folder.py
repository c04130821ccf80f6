"""Class folders: what counts as a picture, a class and a split."""

import os

import pytest
from PIL import Image

from alexnet_jax.config import DataConfig
from alexnet_jax.data import eval_batches, open_dataset, open_split
from alexnet_jax.errors import DataError, ImageError


def save(path, colour=(0, 0, 0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(path)


def open_folder(path, **options):
    return open_dataset(DataConfig(spec=f"folder:{path}", image_size=4, **options))


def names(source):
    return [source[index].id for index in range(len(source))]


def split_tree(root, held_out="val"):
    for split in ("train", held_out):
        for name, colour in (("dog", (255, 0, 0)), ("cat", (0, 0, 255))):
            for number in range(2):
                save(root / split / name / f"{number}.png", colour)
    return root


@pytest.mark.parametrize(
    ("held_out", "role"),
    [("val", "validation"), ("validation", "validation"), ("test", "test")],
)
def test_train_beside_a_held_out_folder(tmp_path, held_out, role):
    data = open_folder(split_tree(tmp_path, held_out))
    assert data.train.classes == ["cat", "dog"]
    assert names(data.train) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert data.eval_role == role
    (batch,) = eval_batches(data.eval, batch_size=4, image_size=4, channels=3)
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert batch.images[:, 0, 0].tolist() == [[0, 0, 255]] * 2 + [[255, 0, 0]] * 2


def test_val_is_preferred_to_test(tmp_path):
    split_tree(tmp_path, "test")
    split_tree(tmp_path, "val")
    assert open_folder(tmp_path).eval.name.endswith(" val")
    assert open_split(f"folder:{tmp_path}", "test")[1] == "test"


def test_what_is_a_picture(tmp_path):
    split_tree(tmp_path)
    cats = tmp_path / "train" / "cat"
    save(cats / "deep" / "er" / "UPPER.JPG")
    save(cats / ".hidden.png")
    save(cats / ".thumbnails" / "0.png")
    (cats / "notes.txt").touch()
    (tmp_path / "train" / "README").touch()
    os.symlink(cats / "0.png", cats / "link.png")
    os.symlink(tmp_path / "train", cats / "ring")
    source, _ = open_split(f"folder:{tmp_path}", "train")
    cat_names = [name for name in names(source) if name.startswith("cat")]
    assert [n for n in cat_names if "ring" not in n] == [
        "cat/0.png",
        "cat/1.png",
        "cat/deep/er/UPPER.JPG",
        "cat/link.png",
    ]
    # .hidden.png, notes.txt and README.
    assert getattr(source, "ignored") >= 3  # noqa: B009 (not every source has it)


def test_linked_class_folders(tmp_path):
    save(tmp_path / "elsewhere" / "0.png")
    split_tree(tmp_path / "data")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "train" / "bird")
    source, _ = open_split(f"folder:{tmp_path / 'data'}", "train")
    assert "bird/0.png" in names(source)


def test_one_level_is_split_by_a_hash_that_no_neighbour_changes(tmp_path):
    for name in ("a", "b"):
        for number in range(60):
            save(tmp_path / name / f"{number}.png")
    first = open_folder(tmp_path)
    assert first.eval_role == "validation"
    held_out = set(names(first.eval))
    # Pinned: the same on every machine and in every version.
    assert sorted(held_out)[:3] == ["a/10.png", "a/12.png", "a/21.png"]
    assert not held_out & set(names(first.train))
    assert len(first.train) + len(first.eval) == 120
    for number in range(60, 90):
        save(tmp_path / "a" / f"{number}.png")
    (tmp_path / "b" / "3.png").unlink()
    again = open_folder(tmp_path)
    held_out.discard("b/3.png")
    assert held_out <= set(names(again.eval))
    assert not held_out & set(names(again.train))


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bus"):
        for number in range(30):
            save(tmp_path / name / f"{number}.png")
    assert open_folder(tmp_path).train.classes == ["bus", "train"]


def test_a_slice_of_sorted_folders_has_every_class(tmp_path):
    for name in ("a", "b", "c"):
        for number in range(20):
            save(tmp_path / "train" / name / f"{number}.png")
    data = open_folder(tmp_path, train_split="train[:75%]", eval_split="train[75%:]")
    assert (len(data.train), len(data.eval)) == (45, 15)
    for source in (data.train, data.eval):
        assert {source[i].label for i in range(len(source))} == {0, 1, 2}
    assert not set(names(data.train)) & set(names(data.eval))


def test_a_held_out_split_may_lack_a_class(tmp_path):
    split_tree(tmp_path)
    for path in (tmp_path / "val" / "cat").iterdir():
        path.unlink()
    data = open_folder(tmp_path)
    assert [data.eval[i].label for i in range(len(data.eval))] == [1, 1]


def test_errors_name_the_picture(tmp_path):
    split_tree(tmp_path)
    bad = tmp_path / "train" / "cat" / "0.png"
    bad.write_bytes(b"no picture")
    (tmp_path / "train" / "dog" / "gone.jpg").symlink_to("nowhere")
    source, _ = open_split(f"folder:{tmp_path}", "train")
    batches = eval_batches(source, batch_size=1, image_size=4, channels=3)
    with pytest.raises(ImageError, match=r"^cat/0.png: is not an image that Pillow"):
        next(batches)
    index = names_of_paths(source).index("dog/gone.jpg")
    with pytest.raises(ImageError, match=r"^dog/gone.jpg: is a link to nowhere"):
        source[index]


def names_of_paths(source):
    return list(source.paths)


def test_mistakes(tmp_path):
    def refuse(message, path, **options):
        with pytest.raises(DataError, match=message) as caught:
            open_folder(path, **options)
        assert "\n" not in str(caught.value)

    refuse(
        r"missing does not exist; give one that holds train/ and", tmp_path / "missing"
    )
    (tmp_path / "file").touch()
    refuse(r"file is a file; give one that holds", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    refuse("holds no class folders; sort its pictures", tmp_path / "empty")
    save(tmp_path / "flat" / "a.png")
    refuse("holds no class folders; sort its pictures", tmp_path / "flat")
    save(tmp_path / "one" / "cat" / "a.png")
    refuse("has one class, 'cat'; at least two are needed", tmp_path / "one")
    save(tmp_path / "hollow" / "cat" / "a.png")
    (tmp_path / "hollow" / "dog").mkdir()
    (tmp_path / "hollow" / "dog" / "a.txt").touch()
    refuse(r"dog holds no pictures \(1 other files\)", tmp_path / "hollow")
    for name in ("few/a", "few/b"):
        save(tmp_path / name / "1.png")
    refuse("holds 2 pictures, too few for one in ten", tmp_path / "few")
    lone = split_tree(tmp_path / "lone")
    for path in sorted((lone / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    refuse(r"val holds no class folders", lone)
    (lone / "val").rmdir()
    refuse(r"has no validation or test split \(its splits: train\); slice one", lone)
    strange = split_tree(tmp_path / "strange")
    save(strange / "val" / "cow" / "a.png")
    refuse("val has class folders that the training split has not: cow", strange)
    save(tmp_path / "notrain" / "val" / "a" / "a.png")
    refuse(r"holds val/ but no train/; add it", tmp_path / "notrain")
    refuse(
        "has no split 'test'; it has train, val",
        split_tree(tmp_path / "t"),
        eval_split="test",
    )


def test_pictures_to_test_on_alone(tmp_path):
    """Without train/ the classes are those of the folders that are there."""
    for name in ("b", "a"):
        save(tmp_path / "val" / name / "1.png")
    for split in (None, "val"):
        source, role = open_split(f"folder:{tmp_path}", split)
        assert list(source.classes) == ["a", "b"]
        assert len(source) == 2
        assert role == "validation"
    with pytest.raises(DataError, match=r"holds val/ but no train/; add it"):
        open_split(f"folder:{tmp_path}", "train[:1]")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    split_tree(tmp_path / "photos")
    assert len(open_folder("~/photos").train) == 4
