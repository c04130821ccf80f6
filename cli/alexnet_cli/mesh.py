"""``alexnet mesh``: which device does what, and what other meshes would cost."""

import dataclasses
import json
from typing import Annotated

import typer

from alexnet_cli import options, runtime, view, watch

PER_DEVICE = 128  # images, where no batch size is given


def mesh(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="Network to lay out.",
            autocompletion=options.complete_network,
        ),
    ] = "code2012",
    plan: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1024,
            help="Estimate N devices, which need not be here.",
            rich_help_panel=options.MACHINE,
        ),
    ] = None,
    batch_size: options.BatchSize = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    hybrid: options.Hybrid = False,
    rate: Annotated[
        float,
        typer.Option(
            metavar="R",
            min=1,
            help="With --plan: images/s that one device trains; see alexnet bench.",
            rich_help_panel=options.MACHINE,
        ),
    ] = 5000,
    link: Annotated[
        float,
        typer.Option(
            metavar="GB/S",
            min=0.001,
            help="With --plan: 10^9 bytes a second that one device can send.",
            rich_help_panel=options.MACHINE,
        ),
    ] = 25,
    precision: options.Precision = None,
    coordinator: options.Coordinator = None,
    processes: options.Processes = None,
    process_id: options.ProcessId = None,
    wait: options.Wait = 60,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Draw the devices as they would train a network: towers, images, hosts.

    On several hosts give every process the flags that train would get.

    With --plan, what N devices would send and hold in each step, for every layout
    beside pure data parallelism: from the network's table, without the devices.

    Examples:
      alexnet mesh
      alexnet mesh digits --devices 1
      alexnet mesh code2012 --plan 1024 --link 50
      alexnet mesh owt --plan 8 --batch-size 1024 --rate 12000
    """
    from alexnet_jax.networks import network as find_network

    table = find_network(network)
    if plan is not None:
        from alexnet_jax import plan as planning

        batch = batch_size or PER_DEVICE * plan
        found = planning.compare(
            table,
            plan,
            batch_size=batch,
            rate=rate,
            link=link * 1e9,
            precision=precision or "f32",
        )
        if as_json:
            print(json.dumps([dataclasses.asdict(each) for each in found]))
            return
        names = {
            "data": "data only",
            "towers": "towers apart",
            "hybrid": "dense divided",
        }
        rows = [
            (
                names[each.layout],
                f"{each.data} x {each.tower}",
                view.size(each.tower_bytes),
                view.size(each.data_bytes),
                view.size(each.memory_bytes),
                f"{each.images_per_second:,.0f}",
                f"{each.efficiency:.0%}",
            )
            for each in found
        ]
        columns = ("layout", "mesh", "tower", "data", "memory", "images/s", "of ideal")
        view.answer(view.table(columns, rows, right=columns[1:]))
        view.note(
            f"{table.name}, batch {batch:,}; each device sends so much along 'tower' "
            f"and along 'data' in a step, at {link:g} GB/s; {rate:,.0f} images/s "
            "alone; nothing overlaps"
        )
        return
    watch.enter(coordinator, processes, process_id, wait)
    runtime.set_up()
    from alexnet_jax import hosts
    from alexnet_jax import plan as planning
    from alexnet_jax.mesh import describe, make_mesh
    from alexnet_jax.mesh import hybrid as divide_dense

    laid = make_mesh(table, devices=devices, towers=towers)
    if hybrid:
        table = divide_dense(table, laid.shape["data"])
    batch = batch_size or PER_DEVICE * laid.shape["data"]
    places = planning.places(table, laid, batch)
    names = hosts.names()
    if as_json:
        for place in places:
            record = {"host": names[place.process], **dataclasses.asdict(place)}
            print(json.dumps({**record, "rows": [place.rows.start, place.rows.stop]}))
        return
    alone = "both towers" if table.towers == 2 else "the network"
    rows = [
        (
            str(place.device),
            place.kind,
            str(place.process),
            names[place.process],
            alone if place.tower is None else f"tower {place.tower + 1}",
            f"{place.rows.start:,} to {place.rows.stop - 1:,}",
        )
        for place in places
    ]
    columns = ("device", "kind", "process", "host", "holds", "images of a batch")
    view.answer(view.table(columns, rows, right=("device", "process")))
    view.note(f"{table.name}: {describe(laid, hybrid=table.hybrid)}; batch {batch:,}")
