"""``alexnet bench``: rates of this machine, in images a second."""

import dataclasses
import json
from typing import Annotated, Literal

import typer

from alexnet_cli import options, runtime, view

Mode = Literal["train", "forward", "input", "end-to-end"]


def bench(
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Network to measure.",
            show_default="digits and code2012",
            autocompletion=options.complete_network,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="What to measure: computing alone, reading alone, or both together.",
            show_default="all four",
        ),
    ] = None,
    batch_size: options.BatchSize = None,
    precision: options.Precision = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure the images a second that this machine trains, names and reads.

    On made-up pictures; each figure is the median of five repeats.

    Examples:
      alexnet bench
      alexnet bench --network code2012 --mode train --batch-size 128 --json
    """
    runtime.set_up()
    from alexnet_jax import bench as rates

    networks = [network] if network else ["digits", "code2012"]
    modes: tuple[Mode, ...] = (mode,) if mode else rates.MODES
    plan: list[tuple[str, Mode]] = [(name, each) for name in networks for each in modes]
    found = []
    with view.Progress("measuring", quiet=as_json) as screen:
        for number, (name, each) in enumerate(plan):
            screen.advance(number, len(plan), f"{name}, {each}")
            measured = rates.measure(
                name,
                each,
                batch_size=batch_size or 128,
                precision=precision or "f32",
                devices=devices,
                towers=towers,
            )
            found.append(measured)
            if as_json:
                print(json.dumps(dataclasses.asdict(measured)), flush=True)
    if as_json:
        return
    rows = [
        (
            m.network,
            m.mode,
            f"{m.batch_size:,}",
            f"{m.images_per_second:,.1f}",
            f"{m.min:,.1f} to {m.max:,.1f}",
            "" if m.share_of_matmul is None else f"{m.share_of_matmul:.0%}",
            f"{m.peak_memory / 2**30:.2f}",
            f"{m.compile_seconds:.1f}",
        )
        for m in found
    ]
    numbers = ("batch", "images/s", "range", "of matmul", "peak GiB", "compile s")
    view.answer(view.table(("network", "mode", *numbers), rows, right=numbers))
    last = found[-1]
    packages = ", ".join(f"{name} {number}" for name, number in last.versions.items())
    view.note(
        f"median of {last.n} repeats, {last.precision}; a product of matrices runs at "
        f"{last.matmul_flops / 1e9:,.0f} GFLOP/s; {last.device}; {packages}"
    )
