"""``alexnet filters``: the paper's Figure 3 of a checkpoint, and its towers' colour."""

import dataclasses
import json

from alexnet_cli import options, runs, runtime, view


def filters(
    ckpt: options.Ckpt = None,
    out: options.Picture = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Draw the first layer's kernels, tower by tower, and how coloured they are.

    The paper's Figure 3 with what stands under it as a number: each kernel's share of
    colour, which is the part of its energy that is not alike in red, green and blue.
    Two towers divide colour between them if a kernel of the one nearly always has more
    than one of the other; kernels of noise have two thirds.

    Examples:
      alexnet filters
      alexnet filters --ckpt runs/imagenet-1 --out figure3.svg
      alexnet filters --ckpt runs/imagenet-1/checkpoints/9000 --json
    """
    runtime.set_up()
    from alexnet_jax import checkpoint, figures, hosts, steps
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    path = checkpoint.resolve(ckpt or runs.newest())
    out = runs.picture(out, path, "filters.png")
    meta = checkpoint.read_meta(path)
    table = network(meta.network)
    loaded = checkpoint.load(path, make_mesh(table, devices=1))
    first, *_ = steps.layer_names(table)
    kernel = hosts.whole(loaded.params[first]["kernel"])
    found = figures.filters(kernel, table.towers, out, title=runs.title(path, meta))
    coloured = kernel.shape[2] == 3
    if as_json:
        record = {
            "checkpoint": str(path),
            "layer": first,
            "kernels": kernel.shape[-1],
            "towers": table.towers,
            "chroma": dataclasses.asdict(found) if coloured else None,
            "picture": str(out),
        }
        print(json.dumps(record))
        return
    rows = [
        ("kernels", f"{kernel.shape[-1]} of {first}, {view.short(path)}"),
        ("picture", view.short(out)),
    ]
    if coloured:
        for tower, median in enumerate(found.medians, start=1):
            name = f"tower {tower}" if table.towers == 2 else "colour"
            rows.append((name, f"median share of colour {median:.1%}"))
    if coloured and found.separation is not None:
        rows.append(
            (
                "apart",
                f"tower {found.coloured}'s kernel has the larger share in "
                f"{found.separation:.1%} of all pairs (50% where towers are alike)",
            )
        )
    view.answer(view.pairs(rows))
    if not coloured:
        view.note("its pictures are grey: there is no colour to measure")
