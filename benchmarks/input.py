"""JPEGs to batches of bytes: ours, PyTorch's DataLoader and tf.data, in turn.

    python benchmarks/input.py [--torch-python P] [--tensorflow-python P] [--json FILE]
    python benchmarks/input.py --parts

The same 256-pixel JPEGs lie as a prepared store (ours), as single files (all three) and
as TFRecord files (tf.data's own). Every side gives shuffled ``u8[B, 256, 256, 3]`` with
labels, has the same cores, and is a process of its own that waits for its turn; what it
had ready is taken before the clock starts. A ratio is of the same round. Without
``--store`` the pictures are made up. A peer that its interpreter has not is left out.

``--parts`` says where our time goes: microseconds an image of each part, in 1 thread
and in as many as there are cores, which shows what Python's lock allows.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import simplejpeg
from turns import Worker, has, spread

from alexnet_cli import runtime
from alexnet_jax import data
from alexnet_jax.data.memory import cores, decode_record
from alexnet_jax.data.prepare import prepare
from alexnet_jax.data.prepared import open_splits
from alexnet_jax.data.records import Source

HERE = Path(__file__).parent
SIDE = 256
AHEAD, TIMED = 8, 64  # batches taken before the clock starts, and batches timed


def work(way: str, path: str, batch_size: int) -> None:
    """Be our side."""
    source = data.open_split(f"{way}:{path}", "train")[0]
    batches = data.train_batches(
        source,
        batch_size=batch_size,
        image_size=SIDE,
        channels=3,
        seed=0,
        num_steps=10**9,
    )
    next(batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in itertools.islice(batches, AHEAD):
            pass
        began = time.perf_counter()
        for batch in itertools.islice(batches, TIMED):
            assert batch.images.shape == (batch_size, SIDE, SIDE, 3)
        print(time.perf_counter() - began, flush=True)
    batches.close()
    names = ("alexnet-jax", "grain", "simplejpeg", "numpy")
    print(json.dumps({name: version(name) for name in names}))


def make_pictures(out: Path, count: int = 1024) -> None:
    """Write made-up pictures, as smooth as photographs, one folder a class."""
    from alexnet_jax import bench

    source = bench.pictures(SIDE, 3, 8, count=count)
    for split, number in (("train", count), ("val", 64)):
        for index in range(number):
            folder = out / split / f"c{index % 8}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index:05}.jpg").write_bytes(bytes(source[index].image))


def write_files(source: Source, out: Path) -> None:
    """Write a store's JPEGs as files, one folder a class."""
    for split in ("train", "val"):
        for name in source.classes:
            (out / split / name).mkdir(parents=True)
    for index in range(len(source)):
        record = source[index]
        folder = out / "train" / source.classes[record.label]
        (folder / f"{index:07}.jpg").write_bytes(bytes(record.image))
    # A folder set must have something to test on.
    (out / "val" / source.classes[0] / "0.jpg").write_bytes(bytes(source[0].image))


def compare(args: argparse.Namespace, store: Path, scratch: Path) -> list[dict]:
    """Run all sides that are installed in turn; return a finding a side."""
    (source, _), *_ = open_splits(f"prepared:{store}", ["train"])
    files = scratch / "files"
    write_files(source, files)
    size = sum(f.stat().st_size for f in files.rglob("*.jpg")) / (len(source) + 1)
    used = args.cores or cores()
    print(f"{len(source):,} JPEGs of {size / 1024:.1f} KiB, {used} cores")
    common = ["--batch-size", str(args.batch_size), "--cores", str(used)]
    ours = [sys.executable, str(HERE / "input.py"), *common, "--worker"]
    peer = [str(HERE / "peer_input.py"), *common]
    sides = {
        "ours, store": [*ours, "prepared", "--store", str(store)],
        "ours, files": [*ours, "folder", "--store", str(files)],
    }
    for name, python, module in (
        ("PyTorch DataLoader, files", args.torch_python, "torch"),
        ("tf.data, files", args.tensorflow_python, "tensorflow"),
        ("tf.data, TFRecord", args.tensorflow_python, "tensorflow"),
    ):
        if has(python, module):
            kind = "tfrecord" if "TFRecord" in name else module
            sides[name] = [python, *peer, kind, str(files / "train")]
        else:
            print(f"{name}: left out, {python} has no {module}")
    workers = {name: Worker(command) for name, command in sides.items()}
    images = TIMED * args.batch_size
    rates: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(args.rounds):
        for name, worker in workers.items():
            rates[name].append(images / worker.step()[0])
    found = []
    for name, worker in workers.items():
        pairs = zip(rates["ours, store"], rates[name], strict=True)
        ratios = [mine / theirs for mine, theirs in pairs]
        row = {"side": name, "cores": used, "batch_size": args.batch_size}
        row |= {"images_per_second": rates[name], "ratio": ratios}
        found.append({**row, "versions": worker.finish()})
        said = " ".join(
            f"{key} {value}" for key, value in found[-1]["versions"].items()
        )
        print(f"{name:26} {spread(rates[name], ',.0f')} images/s; ours, store, is")
        print(f"{'':26} {spread(ratios)} times that; {said}", flush=True)
    return found


def parts(source: Source, photographs: Path | None) -> list[dict]:
    """Time each part of the way of an image, in one thread and in many."""
    order = np.random.default_rng(0).permutation(len(source))[:2000]
    indices = [int(index) for index in order]
    records = {index: source[index] for index in indices}
    raw = source._records  # type: ignore[attr-defined]

    def decode(own: Sequence[int]) -> None:
        out = np.empty((SIDE, SIDE, 3), np.uint8)
        for index in own:
            decode_record(records[index], SIDE, 3, out=out)

    def plain(own: Sequence[int]) -> None:
        out = np.empty((SIDE, SIDE, 3), np.uint8)
        for index in own:
            simplejpeg.decode_jpeg(records[index].image, "RGB", buffer=out)

    jobs: dict[str, Callable[[Sequence[int]], object]] = {
        "read bytes": lambda own: [raw[index] for index in own],
        "read a record": lambda own: [source[index] for index in own],
        "libjpeg alone": plain,
        "decode a record": decode,
    }
    found = [_threads(name, job, indices) for name, job in jobs.items()]
    for threads in sorted({1, cores()}):
        found.append(_loader("batches of 128", source, threads, 30))
    if photographs:
        split = data.open_split(f"folder:{photographs}", "train")[0]
        for threads in sorted({1, cores()}):
            found.append(_loader("photographs as they are", split, threads, 6))
    return found


def _threads(name: str, job: Callable, indices: list[int]) -> dict:
    found: dict = {"part": name}
    for count in sorted({1, cores()}):
        times = []
        for _ in range(5):
            shares = [indices[start::count] for start in range(count)]
            team = [threading.Thread(target=job, args=(own,)) for own in shares]
            began = time.perf_counter()
            for thread in team:
                thread.start()
            for thread in team:
                thread.join()
            times.append((time.perf_counter() - began) / len(indices) * 1e6)
        found[f"us_{count}_threads"] = times
        print(f"{name:24} {count:2} threads: {spread(times, '.1f')} us an image")
    return found


def _loader(name: str, source: Source, threads: int, count: int) -> dict:
    rates = []
    batches = data.train_batches(
        source,
        batch_size=128,
        image_size=SIDE,
        channels=3,
        seed=0,
        num_steps=10**9,
        threads=threads,
    )
    for _ in range(5):
        for _ in itertools.islice(batches, 3):
            pass
        began = time.perf_counter()
        for _ in itertools.islice(batches, count):
            pass
        rates.append(count * 128 / (time.perf_counter() - began))
    batches.close()
    print(
        f"{name:24} {threads:2} threads: {spread(rates, ',.0f')} images/s", flush=True
    )
    return {"part": name, "threads": threads, "images_per_second": rates}


def main() -> None:
    parser = argparse.ArgumentParser(description="JPEGs to batches, side by side.")
    parser.add_argument("--store", type=Path, help="a prepared store")
    parser.add_argument("--photographs", type=Path, help="with --parts: a folder set")
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--tensorflow-python", default=sys.executable)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--cores", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    runtime.ask_for_huge_pages()  # as the command does
    if args.cores:
        own = sorted(os.sched_getaffinity(0))[: args.cores]
        os.sched_setaffinity(0, own)
    if args.worker:
        work(args.worker, str(args.store), args.batch_size)
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch, store = Path(folder), args.store
        if store is None:
            make_pictures(scratch / "made-up")
            store = scratch / "store"
            for _ in prepare(f"folder:{scratch / 'made-up'}", store):
                pass
        if args.parts:
            found = parts(
                open_splits(f"prepared:{store}", ["train"])[0][0], args.photographs
            )
        else:
            found = compare(args, store, scratch)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
