"""All that is asked for on a GPU, in one call of at most ten minutes.

    python benchmarks/gpu.py [--peer-python P] [--store STORE] [--json FILE]

`code2012`, batch 1,024, bfloat16: images/s forward, train, input alone and end to end
(from JPEGs in memory, or from a prepared STORE), the share of a step that cutting,
mirroring and colouring take, and the training step in turn with PyTorch's, compiled,
channels_last, bfloat16. ``--network digits --batch-size 8 --seconds 0.1`` is a trial
for any machine. A part that fails says why and leaves the others their turn.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import spread

HERE = Path(__file__).parent


def rates(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what `alexnet bench` does."""
    from alexnet_jax import bench

    found = []
    for mode in bench.MODES:
        one = bench.measure(
            args.network,
            mode,
            batch_size=args.batch_size,
            precision=args.precision,
            seconds=args.seconds,
        )
        share = "" if one.share_of_matmul is None else f", {one.share_of_matmul:.0%}"
        print(
            f"{mode}: {one.images_per_second:,.0f} images/s ({one.min:,.0f} to "
            f"{one.max:,.0f}, n = {one.n}){share} of a product's "
            f"{one.matmul_flops / 1e12:,.1f} TFLOP/s; {one.peak_memory / 2**30:.2f} "
            f"GiB; {one.compile_seconds:.1f} s to the first step; {one.device}",
            flush=True,
        )
        found.append(dataclasses.asdict(one))
    return found


def augmentation(args: argparse.Namespace) -> dict[str, Any]:
    """Time the drawing and making of training views alone, beside the whole step."""
    import jax
    import numpy as np

    from alexnet_jax import augment, bench
    from alexnet_jax.config import AugmentConfig
    from alexnet_jax.networks import network

    table = network(args.network)
    side = round(table.input_size * bench.BORDER)
    colours = table.channels
    mean = np.full((side, side, colours), 127.5, np.float32)
    prepared = jax.device_put(augment.preprocess(mean, 900.0 * np.eye(colours)))
    noise = 0.1 if colours == 3 else 0.0
    config = AugmentConfig(crop=True, flip=True, colour_noise=noise)

    @jax.jit
    def views(step: jax.Array, images: jax.Array) -> jax.Array:
        draws = augment.draw(
            jax.random.fold_in(jax.random.key(0), step),
            config,
            batch=args.batch_size,
            border=side - table.input_size,
            components=jax.numpy.asarray(prepared.components),
            noise_on=jax.numpy.bool_(True),
        )
        return augment.training_view(images, draws, prepared, table.input_size)

    shape = (args.batch_size, side, side, colours)
    images = jax.numpy.zeros(shape, jax.numpy.uint8)
    step = bench.stepper(
        args.network, "train", batch_size=args.batch_size, precision=args.precision
    )

    def alone(count: int) -> None:
        made = None
        for number in range(count):
            made = views(jax.numpy.int32(number), images)
        jax.block_until_ready(made)

    def timed(job: Callable[[int], None], count: int) -> float:
        began = time.perf_counter()
        job(count)
        return (time.perf_counter() - began) / count

    alone(2)
    step(2)
    count = max(1, round(args.seconds / max(timed(step, 1), 1e-6)))
    shares = [timed(alone, count) / timed(step, count) for _ in range(5)]
    print(
        f"augmentation alone, of a training step: {spread(shares, '.4f')}", flush=True
    )
    return {"augmentation_share": shares}


def end_to_end(args: argparse.Namespace) -> dict[str, Any]:
    """Train from a store as the command does; read the rates that it writes."""
    if args.store is None:
        print("end to end from a prepared store: left out, no --store")
        return {}
    from alexnet_jax import recipes, train
    from alexnet_jax.events import StepDone

    recipe = recipes.load(
        "imagenet",
        {
            "data.spec": f"prepared:{args.store.absolute()}",
            "optimizer.batch_size": args.batch_size,
            "run.precision": args.precision,
            "run.steps": args.steps,
        },
    )
    run_dir = args.run_dir
    steps = [e for e in train.fit(recipe, run_dir) if isinstance(e, StepDone) and e.row]
    found = [e.images_per_second for e in steps[1:]]
    stalls = [e.input_stall for e in steps[1:]]
    print(f"end to end from {args.store}: {spread(found, ',.0f')} images/s")
    print(f"waiting for input: {spread(stalls, '.4f')} of the time", flush=True)
    return {"images_per_second": found, "input_stall": stalls}


def beside_pytorch(args: argparse.Namespace) -> dict[str, Any]:
    """Let `steps.py` compare the training step."""
    command = [sys.executable, str(HERE / "steps.py")]
    command += ["--peer-python", args.peer_python, "--precision", args.precision]
    command += ["--batch-size", str(args.batch_size), "--steps", str(args.turn)]
    for peer in ("own channels_last compiled", "banded channels_last compiled"):
        command += ["--peer", peer]
    return {"steps.py": subprocess.run(command, check=True, timeout=300).returncode}


def main() -> None:
    parser = argparse.ArgumentParser(description="All that is asked for on a GPU.")
    parser.add_argument("--network", default="code2012")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="bf16")
    parser.add_argument("--seconds", type=float, default=2.0, help="a repeat")
    parser.add_argument("--turn", type=int, default=20, help="steps beside PyTorch")
    parser.add_argument("--steps", type=int, default=200, help="from the store")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/gpu-bench"))
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    # PyTorch's turn first: JAX in this process would keep the GPU's memory.
    for part in (beside_pytorch, rates, augmentation, end_to_end):
        try:
            found[part.__name__] = part(args)
        except Exception:
            print(f"{part.__name__}: failed", flush=True)
            traceback.print_exc()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
