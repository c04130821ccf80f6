"""``alexnet eval``: test a checkpoint on a split, every picture once."""

import dataclasses
import json

from alexnet_cli import options, runs, runtime, view


def evaluate(
    ckpt: options.Ckpt = None,
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
    Without --data it is the split that the run itself was tested on.

    Examples:
      alexnet eval
      alexnet eval --ckpt runs/digits-1 --json
      alexnet eval --ckpt runs/imagenet-1 --views 10
      alexnet eval --ckpt runs/imagenet-1/checkpoints/9000 --data folder:photos
    """
    runtime.set_up()
    from alexnet_jax import checkpoint
    from alexnet_jax import data as sources
    from alexnet_jax import evaluate as evaluation
    from alexnet_jax.config import DataConfig, EvalConfig
    from alexnet_jax.errors import ConfigError
    from alexnet_jax.mesh import make_mesh
    from alexnet_jax.networks import network

    path = checkpoint.resolve(ckpt or runs.newest())
    meta = checkpoint.read_meta(path)
    mesh = make_mesh(network(meta.network), devices=devices, towers=towers)
    own = DataConfig.model_validate(meta.recipe["data"]) if meta.recipe else None
    if data is not None:
        spec = options.absolute(data)
    elif own is not None:
        spec = own.spec
    else:
        raise ConfigError(f"{path} has no recipe, so no data of its own; give --data")
    if own is None or own.spec != spec:
        own = DataConfig(spec=spec, image_size=meta.image_size)
    directory = str(data_dir.expanduser()) if data_dir else own.dir
    split = eval_split or own.eval_split
    source, role = sources.open_split(spec, directory, split)
    stored = EvalConfig.model_validate((meta.recipe or {}).get("eval", {}))
    shares = mesh.shape["data"]
    size = batch_size or -(-stored.batch_size // shares) * shares
    evaluation.choose_views(meta.views, views)

    with view.Progress("loading the weights", quiet=as_json) as screen:
        loaded = checkpoint.load(path, mesh)
        screen.title = f"testing on {source.name}"
        found = None
        for found in evaluation.evaluate(
            loaded, source, mesh, views=views, batch_size=size
        ):
            screen.advance(
                found.images, len(source), f"top-1 error {found.top1_error:.2%}"
            )
    if found is None:
        raise ConfigError(f"{source.name} has no pictures; choose another --eval-split")
    if as_json:
        record = {
            **dataclasses.asdict(found),
            "checkpoints": [str(path)],
            "data": spec,
            "split": source.name,
            "role": role,
        }
        print(json.dumps(record))
        return
    wrong = round(found.top1_error * found.images)
    rows = [
        ("checkpoint", f"{view.short(path)} (step {meta.step:,})"),
        ("pictures", f"{found.images:,} of {source.name}, {found.views} "
         f"view{'s' * (found.views > 1)} each"),
        ("top-1 error", f"{found.top1_error:.2%} ({wrong:,} wrong)"),
        ("top-5 error", f"{found.top5_error:.2%}"),
        ("log-prob", f"{found.log_prob:.4f}"),
    ]  # fmt: skip
    view.answer(view.pairs(rows))
    if role == "test":
        view.note(
            "a test split: the figures are this checkpoint's, not the best of many"
        )
