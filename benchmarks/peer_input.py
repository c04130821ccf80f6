"""The peers of `input.py`: JPEG files to shuffled batches, as their users would do it.

``torch``: a Dataset over the files, decoded by torchvision where it is installed (else
by simplejpeg, else by Pillow), a DataLoader with a worker process a core, otherwise
its defaults. ``tensorflow``: file names shuffled, read and decoded by a parallel map
(AUTOTUNE), batched, two batches prefetched (AUTOTUNE would hold more than is timed).
``tfrecord``: the same from records, with a shuffle buffer of 1,024. tf.io.decode_jpeg
is asked for libjpeg's exact DCT, as the other sides use; its default may be the fast,
less exact one. Needs torch or tensorflow only.
"""

import argparse
import importlib.util
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Not among the requirements of this project.
# pyright: reportMissingImports=false, reportMissingModuleSource=false

AHEAD, TIMED = 8, 64  # as in input.py
SIDE = 256


def listed(root: Path) -> tuple[list[str], list[int]]:
    classes = sorted(folder.name for folder in root.iterdir())
    files = sorted(str(file) for file in root.rglob("*.jpg"))
    return files, [classes.index(Path(file).parent.name) for file in files]


def torch_batches(
    root: Path, batch_size: int, cores: int
) -> tuple[Iterator[Any], dict[str, str]]:
    import torch
    from torch.utils.data import DataLoader, Dataset

    said = {"torch": torch.__version__}
    if importlib.util.find_spec("torchvision"):
        import torchvision
        from torchvision.io import ImageReadMode, decode_jpeg, read_file

        said["torchvision"] = torchvision.__version__

        def decode(path: str) -> Any:
            return decode_jpeg(read_file(path), ImageReadMode.RGB)
    elif importlib.util.find_spec("simplejpeg"):
        import simplejpeg

        said["decoder"] = "simplejpeg"

        def decode(path: str) -> Any:
            return torch.from_numpy(simplejpeg.decode_jpeg(Path(path).read_bytes()))
    else:
        import numpy as np
        from PIL import Image

        said["decoder"] = "Pillow"

        def decode(path: str) -> Any:
            with Image.open(path) as picture:
                return torch.from_numpy(np.array(picture.convert("RGB")))

    files, labels = listed(root)

    class Files(Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return decode(files[index]), labels[index]

    loader = DataLoader(
        Files(),
        batch_size=batch_size,
        shuffle=True,
        num_workers=cores,
        persistent_workers=True,
        drop_last=True,
    )

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    return forever(), said


def tensorflow_batches(
    root: Path, batch_size: int, cores: int, records: Path | None
) -> tuple[Iterator[Any], dict[str, str]]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    files, labels = listed(root)
    tune = tf.data.AUTOTUNE
    if records is None:
        dataset = tf.data.Dataset.from_tensor_slices((files, labels))
        dataset = dataset.shuffle(len(files)).repeat()

        def decode_file(path, label):
            picture = tf.io.decode_jpeg(
                tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE"
            )
            return tf.ensure_shape(picture, (SIDE, SIDE, 3)), label

        decode = decode_file
    else:
        written = [str(records / f"{number}.tfrecord") for number in range(8)]
        for number, name in enumerate(written):
            with tf.io.TFRecordWriter(name) as writer:
                for index in range(number, len(files), 8):
                    picture = tf.train.BytesList(
                        value=[Path(files[index]).read_bytes()]
                    )
                    label = tf.train.Int64List(value=[labels[index]])
                    feature = {
                        "image": tf.train.Feature(bytes_list=picture),
                        "label": tf.train.Feature(int64_list=label),
                    }
                    features = tf.train.Features(feature=feature)
                    writer.write(
                        tf.train.Example(features=features).SerializeToString()
                    )
        dataset = tf.data.Dataset.from_tensor_slices(written)
        dataset = dataset.interleave(tf.data.TFRecordDataset, num_parallel_calls=tune)
        dataset = dataset.shuffle(1024).repeat()
        wanted = {
            "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        }

        def decode_record(serialized):
            example = tf.io.parse_single_example(serialized, wanted)
            picture = tf.io.decode_jpeg(
                example["image"], channels=3, dct_method="INTEGER_ACCURATE"
            )
            return tf.ensure_shape(picture, (SIDE, SIDE, 3)), example["label"]

        decode = decode_record

    dataset = dataset.map(decode, num_parallel_calls=tune, deterministic=False)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    return iter(dataset.with_options(options)), {"tensorflow": tf.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description="A worker of input.py.")
    parser.add_argument("kind", choices=("torch", "tensorflow", "tfrecord"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    with tempfile.TemporaryDirectory() as folder:
        if args.kind == "torch":
            batches, said = torch_batches(args.root, args.batch_size, args.cores)
        else:
            records = Path(folder) if args.kind == "tfrecord" else None
            batches, said = tensorflow_batches(
                args.root, args.batch_size, args.cores, records
            )
        next(batches)
        print("ready", flush=True)
        for _ in sys.stdin:
            for _ in itertools.islice(batches, AHEAD):
                pass
            began = time.perf_counter()
            for images, _ in itertools.islice(batches, TIMED):
                assert len(images) == args.batch_size
            print(time.perf_counter() - began, flush=True)
        print(json.dumps(said), flush=True)
        os._exit(0)  # the workers of a DataLoader would be waited for


if __name__ == "__main__":
    main()
