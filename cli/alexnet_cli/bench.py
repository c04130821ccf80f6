"""``alexnet bench``: rates of this machine, in images a second."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from alexnet_cli import options, progress, runtime, view
from alexnet_jax.errors import ConfigError

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
    batch_size: Annotated[int | None, options.batch_size("128")] = None,
    precision: options.Precision = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling",
            help="Compare 1, 2, 4 and 8 devices; virtual ones where there is no GPU.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write there, too, what --json prints.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure the images a second that this machine trains, names and reads.

    On made-up pictures; each figure is the median of five repeats.

    Examples:
      alexnet bench
      alexnet bench --out bench.jsonl
      alexnet bench --scaling
      alexnet bench --network code2012 --mode train --batch-size 128 --json
    """
    runtime.set_up()
    if scaling:
        given = {
            "--out": out,
            "--mode": mode,
            "--batch-size": batch_size,
            "--precision": precision,
            "--devices": devices,
            "--towers": towers,
        }
        for name, value in given.items():
            if value is not None:
                raise typer.BadParameter(
                    f"--scaling takes no {name}: only --network and --json"
                )
        _compare_meshes(network, as_json)
        return
    from alexnet_jax import bench as rates
    from alexnet_jax.networks import network as find_network

    networks = [network] if network else ["digits", "code2012"]
    modes: tuple[Mode, ...] = (mode,) if mode else rates.MODES
    plan: list[tuple[str, Mode]] = [(name, each) for name in networks for each in modes]
    # What is wrong is said now, not after the measurements.
    for name in networks:
        find_network(name)
    if out is not None:
        _check(out)
    found, lines = [], []
    with progress.Progress("measuring", quiet=as_json) as screen:
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
            lines.append(json.dumps(dataclasses.asdict(measured)))
            if as_json:
                print(lines[-1], flush=True)
            if out is not None:
                _save(out, lines)
    if as_json:
        return
    rows = [
        (
            m.network,
            m.mode,
            f"{m.batch_size:,}",
            _rate(m.images_per_second),
            f"{_rate(m.min)}-{_rate(m.max)}",
            "" if m.share_of_matmul is None else f"{m.share_of_matmul:.0%}",
            f"{m.peak_memory / 2**30:.2f}",
            f"{m.compile_seconds:.1f} s",
        )
        for m in found
    ]
    numbers = ("batch", "images/s", "range", "matmul", "GiB", "compile")
    view.answer(view.table(("network", "mode", *numbers), rows, right=numbers))
    last = found[-1]
    packages = ", ".join(f"{name} {number}" for name, number in last.versions.items())
    view.note(
        f"median of {last.n} repeats, {last.precision}; matmul: share of a product of "
        f"matrices, which runs at {last.matmul_flops / 1e9:,.0f} GFLOP/s; GiB: peak "
        f"memory; {last.device}; {packages}"
    )


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _save(out: Path, lines: Sequence[str]) -> None:
    """Write the measurements so far.

    Raises:
        ConfigError: the file cannot be written.
    """
    with _writing(out):
        out.write_text("".join(f"{line}\n" for line in lines))


def _check(out: Path) -> None:
    """Fail where ``_save`` would; what is in the file stays.

    Raises:
        ConfigError: the file cannot be written.
    """
    with _writing(out), open(out, "a"):
        pass


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be written: {error.strerror}; choose another file"
        ) from None


def _compare_meshes(network: str | None, as_json: bool) -> None:
    import jax

    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", 8)  # where there is no GPU
    from alexnet_jax import scaling
    from alexnet_jax.networks import network as find_network

    find_network(network or "code2012")
    found = []
    with progress.Progress("comparing meshes", quiet=as_json) as screen:
        for row in scaling.measure(network=network or "code2012"):
            found.append(row)
            screen.phase = f"{row.data} x {row.tower} is done"
            if as_json:
                print(json.dumps(dataclasses.asdict(row)), flush=True)
    if as_json:
        return
    rows = [
        (
            f"{row.data} x {row.tower}",
            f"{row.difference:.1e}",
            view.size(row.tower_bytes),
            view.size(row.data_bytes),
            f"{row.operations:,}",
            "-" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
            "-" if row.efficiency is None else f"{row.efficiency:.0%}",
        )
        for row in found
    ]
    columns = ("mesh", "differs", "tower", "data", "program", "images/s", "of ideal")
    view.answer(view.table(columns, rows, right=columns))
    view.note(
        f"data x tower devices ({jax.devices()[0].device_kind}); digits after "
        f"{scaling.STEPS} steps against one device; bytes that a device sends in a "
        "step; operations of the program"
    )
