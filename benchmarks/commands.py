"""Whole commands, timed from outside: what a user waits for.

    python benchmarks/commands.py digits            three seeds: error, seconds, memory
    python benchmarks/commands.py cifar10 DATA_DIR  cifar10-quick: error, seconds
    python benchmarks/commands.py imagenet          `alexnet train imagenet` on made-up
                                                    folders against the bare step

Prints a line a run, then the medians. Needs only the installed package.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from alexnet_cli import runtime
from alexnet_jax import bench

ALEXNET = [sys.executable, "-m", "alexnet_cli"]


def train(*arguments: str, run_dir: Path) -> dict:
    """Run `alexnet train`, return its last line with seconds and peak memory."""
    began = time.monotonic()
    command = [*ALEXNET, "train", *arguments, "--run-dir", str(run_dir), "--json"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - began
    finished = json.loads(output.stdout.splitlines()[-1])
    # The largest of the children so far; on Linux in KiB.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {**finished, "seconds": seconds, "peak_gib": peak / 2**20}


def show(name: str, run: dict) -> None:
    print(
        f"{name}: error {run['top1_error']:.2%} of {run['images']:,}, "
        f"{run['seconds']:.1f} s, peak {run['peak_gib']:.2f} GiB",
        flush=True,
    )


def digits(folder: Path) -> None:
    runs = []
    for seed in (0, 1, 2):
        run = train("digits", "--seed", str(seed), run_dir=folder / f"digits-{seed}")
        show(f"digits seed {seed}", run)
        runs.append(run)
    for key in ("top1_error", "seconds"):
        print(f"median {key}: {statistics.median(run[key] for run in runs):.4f}")


def cifar10(folder: Path, data_dir: str) -> None:
    arguments = ("cifar10-quick", "--data-dir", data_dir)
    show("cifar10-quick", train(*arguments, run_dir=folder / "cifar10"))


def make_tree(root: Path, classes: int = 1000) -> None:
    """Write pictures of 224 pixels in `train` and `val`, one folder a class."""
    source = bench.pictures(224, 3, classes)
    for split, each in (("train", 4), ("val", 1)):
        for number in range(classes):
            folder = root / split / f"class{number:04d}"
            folder.mkdir(parents=True)
            for index in range(each):
                record = source[number * each + index]
                (folder / f"{index}.jpg").write_bytes(bytes(record.image))


def imagenet(folder: Path, batch_size: int = 32, steps: int = 40) -> None:
    """Compare rows of metrics.jsonl with the bare step, in turn, five times."""
    tree = folder / "tree"
    make_tree(tree)
    with Image.open(next(tree.rglob("*.jpg"))) as picture:
        print(f"tree: 5,000 pictures of {picture.size}, 1,000 classes")
    ratios = []
    for number in range(5):
        bare = bench.measure("code2012", "train", batch_size=batch_size, repeats=3)
        run_dir = folder / f"imagenet-{number}"
        train(
            "imagenet",
            *("--data", f"folder:{tree}", "--batch-size", str(batch_size)),
            *("--steps", str(steps), "--seed", str(number)),
            run_dir=run_dir,
        )
        rows = (run_dir / "metrics.jsonl").read_text().splitlines()
        rates = [
            row["images_per_second"]
            for row in map(json.loads, rows)
            if "images_per_second" in row
        ]
        rate = statistics.median(rates)
        after = bench.measure("code2012", "train", batch_size=batch_size, repeats=3)
        step = (bare.images_per_second + after.images_per_second) / 2
        ratios.append(rate / step)
        print(
            f"command {rate:.1f} images/s, bare step {step:.1f}: {rate / step:.3f}",
            flush=True,
        )
    print(
        f"ratio: median {statistics.median(ratios):.3f}, "
        f"{min(ratios):.3f} to {max(ratios):.3f}, n = {len(ratios)}"
    )


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["help"]
    jobs = {"digits": digits, "cifar10": cifar10, "imagenet": imagenet}
    if what not in jobs:
        sys.exit(__doc__)
    runtime.ask_for_huge_pages()  # as the command does, or the bare step is slower
    with tempfile.TemporaryDirectory() as scratch:
        jobs[what](Path(scratch), *rest)
