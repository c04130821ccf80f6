"""Whole commands, timed from outside: what a user waits for.

    python benchmarks/commands.py digits            three seeds: error, seconds, memory
    python benchmarks/commands.py cifar10 DATA_DIR  cifar10-quick: error, seconds
    python benchmarks/commands.py imagenet          `alexnet train imagenet` on made-up
                                                    folders against the bare step
    python benchmarks/commands.py start             seconds from `alexnet train` to the
                                                    first step, from `alexnet predict`
                                                    to the answer; with and without
                                                    compiled programs kept
    python benchmarks/commands.py many [FOLDER]     `predict` and `eval` over many files
                                                    against the bare forward pass

Prints a line a run, then the medians. Needs only the installed package.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from turns import spread

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
    ratios, stalls = [], []
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
        stalls += [
            row["input_stall"]
            for row in map(json.loads, rows[1:])
            if "input_stall" in row
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
    if stalls:
        print(f"waiting for input, share of the time: {spread(stalls, '.4f')}")


def first_step(*arguments: str, run_dir: Path, cache: Path) -> float:
    """Return the seconds from `alexnet train` to the first step that is done."""
    command = [*ALEXNET, "train", *arguments, "--run-dir", str(run_dir), "--json"]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if json.loads(line)["event"] == "step":
                seconds = time.monotonic() - began
                process.stdout.read()  # let it save
                return seconds
    sys.exit(f"no step: {command}")


def start(folder: Path, rounds: int = 3) -> None:
    """Time starts: without compiled programs, then with them."""
    tree, store = folder / "tree", folder / "store"
    make_tree(tree)
    picture = next(tree.rglob("*.jpg"))
    subprocess.run([*ALEXNET, "prepare", f"folder:{tree}", "--out", store], check=True)
    runs = {
        "digits": ("digits", "--steps", "20"),
        "imagenet, batch 16": (
            *("imagenet", "--data", f"prepared:{store}"),
            *("--batch-size", "16", "--steps", "1", "--set", "eval.batch_size=16"),
            *("--eval-split", "validation[:16]"),
        ),
    }
    for name, arguments in runs.items():
        cache = folder / f"cache-{name[:6]}"
        times = [
            first_step(*arguments, run_dir=folder / f"{name[:6]}-{number}", cache=cache)
            for number in range(1 + rounds)
        ]
        print(f"{name}: the first step after {times[0]:.1f} s, with compiled programs")
        print(f"  {spread(times[1:], '.1f')}", flush=True)
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache-predict")}
    command = [*ALEXNET, "predict", str(picture), "--ckpt", str(folder / "imagen-0")]
    times = []
    for _ in range(1 + rounds):
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
        times.append(time.monotonic() - began)
    print(f"predict (code2012): {times[0]:.1f} s, with compiled programs")
    print(f"  {spread(times[1:], '.1f')}", flush=True)


def many(folder: Path, pictures: str | None = None, rounds: int = 5) -> None:
    """Compare `predict` and `evaluate` on files with the bare forward pass, in turn.

    From the first file to the last answer, in this process, without loading.
    """
    import jax

    from alexnet_jax import data, evaluate, predict, steps
    from alexnet_jax.checkpoint import load
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    tree = folder / "tree"
    make_tree(tree)
    run_dir = folder / "run"
    arguments = ("imagenet", "--data", f"folder:{tree}", "--batch-size", "16")
    train(*arguments, "--steps", "1", "--eval-split", "val[:16]", run_dir=run_dir)
    table = network("code2012")
    mesh = make_mesh(table)
    loaded = load(run_dir, mesh)
    files = predict.expand([pictures or str(tree / "train")])[:384]
    source = data.open_split(f"folder:{tree}", "val[:384]")[0]
    options = {"views": 1, "precision": "f32"}
    forward = steps.forward(table, len(loaded.meta.classes), mesh, **options)

    def bare(batch_size: int) -> None:
        images = jax.numpy.zeros((batch_size, 256, 256, 3), jax.numpy.uint8)
        for _ in range(384 // batch_size):
            forward(loaded.params, loaded.preprocess, images).block_until_ready()

    def over_files() -> None:
        answers = list(predict.predict(loaded, files, mesh, views=1))
        assert not any(answer.error for answer in answers)

    def over_split() -> None:
        assert list(evaluate.evaluate(loaded, source, mesh, views=1))

    jobs = {
        "forward, batch 32": lambda: bare(32),
        "predict": over_files,
        "forward, batch 128": lambda: bare(128),
        "eval": over_split,
    }
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():  # compile
        job()
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            rates[name].append(384 / (time.perf_counter() - began))
    for name, values in rates.items():
        print(f"{name}: {spread(values, '.1f')} images/s")
    for name, beside in (("predict", 32), ("eval", 128)):
        bare_rates = rates[f"forward, batch {beside}"]
        pairs = zip(rates[name], bare_rates, strict=True)
        print(f"{name} / forward: {spread([a / b for a, b in pairs], '.3f')}")


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["help"]
    jobs = {
        "digits": digits,
        "cifar10": cifar10,
        "imagenet": imagenet,
        "start": start,
        "many": many,
    }
    if what not in jobs:
        sys.exit(__doc__)
    runtime.ask_for_huge_pages()  # as the command does, or the bare step is slower
    with tempfile.TemporaryDirectory() as scratch:
        jobs[what](Path(scratch), *rest)
