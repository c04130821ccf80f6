"""How rates and memory grow with the batch, the records and the cores; a plot of it.

    python benchmarks/growth.py [batch] [records] [cores] [long] [--out DIR]

batch     `code2012` forward and train, 32 to 1,024 images: images/s, peak memory
records   a made-up store of 10^3 to 10^6 pictures of 16 pixels: seconds to open it, to
          order an epoch and to the first batch; images/s; memory
cores     JPEGs of 256 pixels to batches, with 1, 2, 4, 8, 16 cores where there are
long      10,000 batches of 32 JPEGs of 64 pixels: memory every 500

Each point is a process of its own; what DIR/growth.jsonl holds already is not measured
again. Draws DIR/growth.png (by default beside this script) of all that is there.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alexnet_cli import runtime

HERE = Path(__file__).parent
SMALL = 16  # pixels of the pictures where there are many
BATCHES = (32, 64, 128, 256, 512, 1024)
RECORDS = (1_000, 10_000, 100_000, 1_000_000)
LONG = 10_000

Point = dict[str, Any]


def points(kinds: list[str]) -> Iterator[Point]:
    """List the points of some kinds, the cheap ones first."""
    from alexnet_jax.data.memory import cores

    if "cores" in kinds:
        for count in (1, 2, 4, 8, 16):
            if count <= cores():
                yield {"kind": "cores", "cores": count}
    if "long" in kinds:
        yield {"kind": "long", "batches": LONG}
    if "records" in kinds:
        for count in RECORDS:
            yield {"kind": "records", "records": count}
    if "batch" in kinds:
        for mode in ("forward", "train"):
            for size in BATCHES:
                yield {"kind": "batch", "mode": mode, "batch_size": size}


def measure(point: Point, scratch: Path) -> Point:
    """Measure a point, in this process."""
    if point["kind"] == "batch":
        found = measure_batch(point["mode"], point["batch_size"])
    elif point["kind"] == "records":
        found = measure_records(point["records"], scratch)
    elif point["kind"] == "cores":
        found = measure_cores(point["cores"])
    else:
        found = measure_long(point["batches"])
    names = ("jax", "grain", "simplejpeg", "numpy")
    versions = {name: version(name) for name in names}
    return {**point, **found, "peak_gib": peak(), "versions": versions}


def measure_batch(mode: Any, batch_size: int) -> Point:
    runtime.set_up()
    from alexnet_jax import bench

    step = bench.stepper("code2012", mode, batch_size=batch_size)
    step(1)
    repeats = 3 if batch_size <= 256 else 1
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        step(1)
        rates.append(batch_size / (time.perf_counter() - began))
    return {"images_per_second": rates}


def measure_records(count: int, scratch: Path) -> Point:
    from alexnet_jax import data

    make_store(scratch, count)
    before = resident()
    began = time.perf_counter()
    source = data.open_split(f"prepared:{scratch}", "train")[0]
    opened = time.perf_counter() - began
    began = time.perf_counter()
    data.epoch_order(0, 0, count)
    ordered = time.perf_counter() - began
    began = time.perf_counter()
    batches = data.train_batches(source, **options(10**9))
    next(batches)
    first = time.perf_counter() - began
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in itertools.islice(batches, 100):
            pass
        rates.append(100 * 128 / (time.perf_counter() - began))
    batches.close()
    return {
        "open_seconds": opened,
        "order_seconds": ordered,
        "first_batch_seconds": first,
        "images_per_second": rates,
        "grown_mib": resident() - before,
    }


def measure_cores(count: int) -> Point:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    from alexnet_jax import bench, data

    source = bench.pictures(256, 3, 1000)
    batches = data.train_batches(source, **{**options(10**9), "image_size": 256})
    rates = []
    for _ in range(5):
        for _ in itertools.islice(batches, 4):
            pass
        began = time.perf_counter()
        for _ in itertools.islice(batches, 12 * count):
            pass
        rates.append(12 * count * 128 / (time.perf_counter() - began))
    batches.close()
    return {"images_per_second": rates}


def measure_long(count: int) -> Point:
    from alexnet_jax import bench, data

    made = bench.pictures(64, 3, 10)
    small = {**options(count), "image_size": 64, "batch_size": 32}
    memory = []
    for number, _ in enumerate(data.train_batches(made, **small)):
        if number % 500 == 0:
            memory.append(resident())
    return {"every": 500, "resident_mib": [*memory, resident()]}


def options(steps: int) -> dict[str, Any]:
    return {
        "batch_size": 128,
        "image_size": SMALL,
        "channels": 3,
        "seed": 0,
        "num_steps": steps,
    }


def make_store(out: Path, count: int) -> None:
    """Write a store as `prepare` does, of 64 pictures over and over."""
    import numpy as np
    import simplejpeg
    from array_record.python import array_record_module  # pyright: ignore
    from tensorflow_datasets.proto import tf_example_pb2

    from alexnet_jax.data import prepared, shards, store

    example: Any = tf_example_pb2
    draw = np.random.default_rng(0)
    serialized = []
    for number in range(64):
        pixels = draw.integers(0, 256, (SMALL, SMALL, 3), np.uint8)
        message = example.Example()
        feature = message.features.feature
        feature["image"].bytes_list.value.append(simplejpeg.encode_jpeg(pixels, 85))
        feature["label"].int64_list.value.append(number % 10)
        feature["file_name"].bytes_list.value.append(b"%d" % number)
        serialized.append(message.SerializeToString())
    splits = {"train": count, "validation": 64}
    lengths: dict[str, list[int]] = {name: [] for name in splits}
    for shard in shards.plan(splits):
        writer = array_record_module.ArrayRecordWriter(
            str(out / shard.file_name), "group_size:1,uncompressed"
        )
        for index in range(shard.start, shard.stop):
            writer.write(serialized[index % 64])
        writer.close()
        lengths[shard.split].append(shard.stop - shard.start)
    classes = [str(number) for number in range(10)]
    (out / shards.WORK).mkdir()
    sizes = dict.fromkeys(splits, 0)
    store._write_tfds_files(out, "made-up", classes, lengths, sizes, SMALL)
    settings = {"format": prepared.FORMAT, "source": "made-up", "image_size": SMALL}
    settings |= {"splits": splits, "classes": classes}
    (out / prepared.SETTINGS).write_text(json.dumps(settings))
    (out / prepared.COMPLETE).write_text("{}")


def resident() -> float:
    """Return the memory that this process holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def draw(found: list[Point], out: Path) -> None:
    """Draw what has been measured."""
    from matplotlib.figure import Figure

    figure = Figure((11, 6.5), layout="constrained")
    (rate, memory, cores), (records, grown, flat) = figure.subplots(2, 3)
    for mode in ("forward", "train"):
        own = [p for p in found if p["kind"] == "batch" and p["mode"] == mode]
        sizes = [p["batch_size"] for p in own]
        middle = [statistics.median(p["images_per_second"]) for p in own]
        rate.plot(sizes, middle, "o-", label=mode)
        memory.plot(sizes, [p["peak_gib"] for p in own], "o-", label=mode)
    for axes, what in ((rate, "images/s"), (memory, "peak memory, GiB")):
        axes.set(xscale="log", xlabel="batch, code2012", ylabel=what)
        axes.set_xticks(BATCHES, map(str, BATCHES))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    own = [p for p in found if p["kind"] == "cores"]
    counts = [p["cores"] for p in own]
    middle = [statistics.median(p["images_per_second"]) for p in own]
    cores.plot(counts, middle, "o-", label="measured")
    if own:
        cores.plot(counts, [middle[0] * n for n in counts], ":", label="in proportion")
        cores.legend(frameon=False)
    cores.set(xlabel="cores", ylabel="256-pixel JPEGs to batches, images/s")
    cores.set_xticks(counts)
    cores.set_ylim(bottom=0)
    own = [p for p in found if p["kind"] == "records"]
    counts = [p["records"] for p in own]
    for key in ("open", "order", "first_batch"):
        seconds = [p[f"{key}_seconds"] for p in own]
        records.plot(counts, seconds, "o-", label=key.replace("_", " "))
    records.set(xscale="log", yscale="log", xlabel="records", ylabel="seconds")
    records.legend(frameon=False)
    grown.plot(counts, [p["grown_mib"] for p in own], "o-")
    grown.set(xscale="log", xlabel="records", ylabel="memory to open and read it, MiB")
    grown.set_ylim(bottom=0)
    for p in found:
        if p["kind"] == "long":
            places = [p["every"] * n for n in range(len(p["resident_mib"]))]
            flat.plot(places, p["resident_mib"])
    flat.set(xlabel="batches read", ylabel="memory of the process, MiB")
    flat.set_ylim(bottom=0)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Rates and memory as things grow.")
    kinds = ("cores", "long", "records", "batch")
    parser.add_argument("kinds", nargs="*", default=kinds, metavar="KIND")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.kinds) - set(kinds):
        parser.error(f"{', '.join(unknown)}: choose among {', '.join(kinds)}")
    runtime.ask_for_huge_pages()
    if args.point:
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(measure(args.point, Path(scratch))))
        return
    log = args.out / "growth.jsonl"
    found = []
    if log.exists():
        found = [json.loads(line) for line in log.read_text().splitlines()]
    for point in points(args.kinds):
        if any(point.items() <= old.items() for old in found):
            continue
        command = [sys.executable, __file__, "--point", json.dumps(point)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        last = json.loads(done.stdout.splitlines()[-1])
        last |= {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
        with open(log, "a") as file:
            file.write(json.dumps(last) + "\n")
        found.append(last)
        rates = last.get("images_per_second", [0.0])
        print(f"{point}: {statistics.median(rates):,.1f} images/s", flush=True)
    draw(found, args.out / "growth.png")


if __name__ == "__main__":
    main()
