"""``alexnet eval``: test a checkpoint, or several as one, on a split."""

import dataclasses
import json
from typing import Any, Literal

import typer

from alexnet_cli import options, progress, runs, runtime, splits, view


def evaluate(
    ckpt: options.Ckpts = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    eval_split: options.EvalSplit = None,
    views: options.Views = None,
    batch_size: options.BatchSize = None,
    devices: options.Devices = None,
    towers: options.Towers = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Test a trained network: top-1 and top-5 error, log-probability.

    Every picture of the split counts once, on any batch size and number of devices.
    Without --data it is the split that the run itself was tested on. Other data may
    have some of the checkpoint's classes, by name or WordNet id, in any order.

    Several --ckpt are an ensemble: the mean of their probabilities, or a weighted one.

    Examples:
      alexnet eval
      alexnet eval --ckpt runs/digits-1 --json
      alexnet eval --ckpt runs/imagenet-1 --views 10
      alexnet eval --ckpt runs/imagenet-1/checkpoints/9000 --data folder:photos
      alexnet eval --ckpt runs/a --ckpt runs/b --weights search
      alexnet eval --ckpt runs/a --ckpt runs/b --weights 1,0.5
    """
    wanted = _weights(weights)
    runtime.set_up()
    from alexnet_jax import checkpoint, ensemble
    from alexnet_jax import evaluate as evaluation
    from alexnet_jax.config import EvalConfig
    from alexnet_jax.errors import ConfigError
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    paths = [checkpoint.resolve(path) for path in ckpt or [runs.newest()]]
    metas = [checkpoint.read_meta(path) for path in paths]
    if wanted is not None and len(paths) == 1:
        raise ConfigError(
            f"--weights {weights}: give two checkpoints to weigh, or more"
        )
    ensemble.check_members(
        [(path, meta.classes) for path, meta in zip(paths, metas, strict=True)]
    )
    ensemble.check_weights(wanted, len(paths))
    ensemble.common_views([meta.views for meta in metas], views)
    meshes = [
        make_mesh(network(meta.network), devices=devices, towers=towers)
        for meta in metas
    ]
    chosen = splits.choose(paths[0], metas[0], data, data_dir, eval_split)
    stored = EvalConfig.model_validate((metas[0].recipe or {}).get("eval", {}))
    size = batch_size or evaluation.padded(stored.batch_size, meshes[0])

    found, shares = None, None
    with progress.Progress("loading the weights", quiet=as_json) as screen:
        loaded = [
            checkpoint.load(path, mesh)
            for path, mesh in zip(paths, meshes, strict=True)
        ]
        screen.title = f"testing on {chosen.source.name}"
        total = len(chosen.source)
        if len(loaded) == 1:
            for found in evaluation.evaluate(
                loaded[0], chosen.source, meshes[0], views=views, batch_size=size
            ):
                screen.advance(
                    found.images, total, f"top-1 error {found.top1_error:.2%}"
                )
        else:
            members = list(map(ensemble.Member, loaded, meshes))
            for weighed in ensemble.evaluate(
                members, chosen.source, weights=wanted, views=views, batch_size=size
            ):
                found, shares = weighed.result, weighed.weights
                tail = f"top-5 error {found.top5_error:.2%}"
                if weighed.searching:
                    screen.title = f"trying weights {_listed(shares)}"
                screen.advance(found.images, total, tail)
    if found is None:
        raise ConfigError(
            f"{chosen.source.name} has no pictures; choose another --eval-split"
        )
    searched = wanted == "search"
    if as_json:
        record: dict[str, Any] = {
            **dataclasses.asdict(found),
            "checkpoints": [str(path) for path in paths],
            "data": chosen.spec,
            "split": chosen.source.name,
            "role": chosen.role,
        }
        if shares is not None:
            record["weights"] = list(shares)
        if searched:
            record["weights_found_on"] = chosen.source.name
        print(json.dumps(record))
        return
    rows = []
    for place, (path, meta) in enumerate(zip(paths, metas, strict=True)):
        weight = f", weight {shares[place]:g}" if shares else ""
        rows.append(("checkpoint", f"{view.short(path)} (step {meta.step:,}{weight})"))
    given, known = len(chosen.source.classes), len(metas[0].classes)
    among = f"; {given:,} of {known:,} classes" if given < known else ""
    wrong = round(found.top1_error * found.images)
    rows += [
        ("pictures", f"{found.images:,} of {chosen.source.name}, {found.views} "
         f"view{'s' * (found.views > 1)} each{among}"),
        ("top-1 error", f"{found.top1_error:.2%} ({wrong:,} wrong)"),
        ("top-5 error", f"{found.top5_error:.2%}"),
        ("log-prob", f"{found.log_prob:.4f}"),
    ]  # fmt: skip
    view.answer(view.pairs(rows))
    if searched and shares is not None:
        view.note(
            f"the weights were found on {chosen.source.name} itself, so these figures "
            f"are optimistic; on another split: --weights {_listed(shares)}"
        )
    elif chosen.role == "test":
        view.note(
            "a test split: the figures are this checkpoint's, not the best of many"
        )


def _weights(text: str | None) -> list[float] | Literal["search"] | None:
    if text is None or text == "search":
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--weights {text}: give numbers such as 1,0.5, or search"
        ) from None


def _listed(weights: tuple[float, ...]) -> str:
    return ",".join(f"{weight:g}" for weight in weights)
