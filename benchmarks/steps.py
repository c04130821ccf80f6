"""A step of `code2012` here and in PyTorch, in turn, as a ratio.

    python benchmarks/steps.py [--mode forward] [--peer-python PYTHON]
    python benchmarks/steps.py --batch-size 1024 --precision bf16 --steps 20  # on a GPU

Each side is a process of its own that waits for its turn: ours, then the peer, five
times, so that a busy neighbour slows both. The first step of a turn does not count:
while a process rests, a host may take back the memory that its guest has free, and
training does not rest. A line a peer: median seconds a step of each, their ratio, the
share of this machine's float32 matrix-product rate that our step reaches, and the
largest memory of each process. PYTHON has torch installed (the extra `peers`); by
default it is this one. `--json FILE` keeps every single time.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

from turns import Worker, has

HERE = Path(__file__).parent

PEERS = {  # what a user of PyTorch would try, then the norm written by hand
    "own": (),
    "own channels_last": ("--channels-last",),
    "own compiled": ("--compile",),
    "own channels_last compiled": ("--channels-last", "--compile"),
    "banded": ("--norm", "banded"),
    "banded channels_last": ("--norm", "banded", "--channels-last"),
    "banded compiled": ("--norm", "banded", "--compile"),
    "banded channels_last compiled": (
        *("--norm", "banded"),
        *("--channels-last", "--compile"),
    ),
}

# Both sides share a GPU's memory; JAX would take most of it beforehand.
SHARE_MEMORY = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

# Without these glibc gives a step's memory back to the system and asks for it anew.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": "10000000000",
    "MALLOC_TOP_PAD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "10000000000",
}

# Multiply-adds of an image, and what a training step computes of it: three times, less
# the gradient of conv1's input. Twice that in floating-point operations.
FORWARD_MACS = 724_406_816
CONV1_MACS = 55 * 55 * 96 * 11 * 11 * 3
FLOP = {
    "forward": 2 * FORWARD_MACS,
    "train": 2 * (3 * FORWARD_MACS - CONV1_MACS),
}


def work(args: argparse.Namespace) -> None:
    """Be our side: a few steps and a matrix product each time a line comes."""
    from alexnet_cli import runtime

    runtime.ask_for_huge_pages()
    runtime.set_up()
    import jax
    import jax.numpy as jnp

    from alexnet_jax import bench

    step = bench.stepper(
        "code2012", args.mode, batch_size=args.batch_size, precision=args.precision
    )
    step(2)
    device = jax.devices()[0]
    side = 2048 if device.platform == "cpu" else 8192
    product = jax.jit(jnp.matmul)
    dtype = jnp.bfloat16 if args.precision == "bf16" else jnp.float32
    square = jnp.ones((side, side), dtype)
    product(square, square).block_until_ready()
    print("ready", flush=True)
    for _ in sys.stdin:
        step(1)
        began = time.perf_counter()
        step(args.steps)
        seconds = (time.perf_counter() - began) / args.steps
        began = time.perf_counter()
        product(square, square).block_until_ready()
        print(seconds, 2 * side**3 / (time.perf_counter() - began), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use", peak)
    last = {"peak_gib": peak / 2**30, "jax": version("jax")}
    print(json.dumps({**last, "device": device.device_kind}))


def compare(name: str, args: argparse.Namespace) -> dict:
    common = ["--mode", args.mode, "--batch-size", str(args.batch_size)]
    common += ["--steps", str(args.steps), "--precision", args.precision]
    ours = Worker(
        [sys.executable, str(HERE / "steps.py"), "--worker", *common], SHARE_MEMORY
    )
    script = str(HERE / "torch_alexnet.py")
    peer = Worker([args.peer_python, script, *common, *PEERS[name]], KEEP_MEMORY)
    mine, products, theirs = [], [], []
    for _ in range(args.rounds):
        seconds, rate = ours.step()
        mine.append(seconds)
        products.append(rate)
        theirs += peer.step()
    last, peer_last = ours.finish(), peer.finish()
    median, peer_median = statistics.median(mine), statistics.median(theirs)
    flop = FLOP[args.mode] * args.batch_size
    found = {
        "peer": name,
        "mode": args.mode,
        "batch_size": args.batch_size,
        "ratio": peer_median / median,
        "share_of_matmul": flop / median / statistics.median(products),
        "seconds": mine,
        "peer_seconds": theirs,
        "matmul_gflops": [rate / 1e9 for rate in products],
        **last,
        "peer_peak_gib": peer_last["peak_gib"],
        "torch": peer_last["torch"],
    }
    print(
        f"{args.mode} {args.batch_size}, {name}: {found['ratio']:.2f}x "
        f"({median:.3g} s [{min(mine):.3g} to {max(mine):.3g}] against "
        f"{peer_median:.3g} s [{min(theirs):.3g} to {max(theirs):.3g}], n = "
        f"{args.rounds}); {found['share_of_matmul']:.0%} of the matrix-product rate; "
        f"{last['peak_gib']:.2f} GiB against {peer_last['peak_gib']:.2f}",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description="A step of ours against PyTorch's, in turn."
    )
    parser.add_argument("--mode", choices=tuple(FLOP), default="train")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--steps", type=int, default=1, help="a turn; 20 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer", choices=tuple(PEERS), action="append")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    if not has(args.peer_python, "torch"):
        print(f"a step beside PyTorch: left out, {args.peer_python} has no torch")
        return
    found = [compare(name, args) for name in args.peer or PEERS]
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
