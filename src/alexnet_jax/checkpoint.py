"""Checkpoints: what is kept, where, and how it is found again.

A checkpoint is an Orbax v1 directory with three items: ``params`` (plain nested
dicts), ``preprocess`` (mean image, colour components, scale) and ``training``
(velocities, step, drops; weights that came from elsewhere have none), and a JSON
record, ``Meta``, that makes it usable without its recipe.
Orbax writes to a temporary name and renames, so a kill leaves no half checkpoint.
"""

import contextlib
import dataclasses
import gc
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array
from orbax.checkpoint import v1 as ocp

from alexnet_jax import hosts, model
from alexnet_jax.augment import Preprocess
from alexnet_jax.config import Resize
from alexnet_jax.errors import CheckpointError
from alexnet_jax.mesh import shardings
from alexnet_jax.networks import network as find_network
from alexnet_jax.steps import TrainState

FORMAT = 2
_MARKER = "_CHECKPOINT_METADATA"
_ASIDE = ".replaced"

# Orbax reports every save, and what it raises as an error of ours comes twice.
logging.getLogger("absl").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says about itself; plain JSON.

    Attributes:
        network: name of the table.
        classes: names of the classes, in label order.
        image_size: side in pixels that pictures are brought to before the crop.
        views: numbers of views that the data allows, the default first.
        precision: ``f32`` or ``bf16``.
        resize: how pictures are brought to that size, see ``config.Resize``.
        origin: of weights that were imported: ``file``, ``sha256`` and what they are.
        step: updates made.
        epoch: cycles through the training set.
        recipe: the resolved recipe, None for imported weights.
        total_steps: of the whole schedule.
        plateau: the schedule's memory, see ``optim.Plateau``.
        evaluated: result of the evaluation at this step, if there was one.
        eval_role: ``validation`` if that result may choose the best checkpoint,
            ``test`` if it may only be reported.
        since_row: sums over the steps since the last row of ``metrics.jsonl``, see
            ``meter.Meter``.
        format: version of this record.
    """

    network: str
    classes: list[str]
    image_size: int
    views: list[int]
    precision: str
    resize: Resize = "crop"
    origin: dict[str, Any] | None = None
    step: int = 0
    epoch: float = 0.0
    recipe: dict[str, Any] | None = None
    total_steps: int = 0
    plateau: dict[str, Any] | None = None
    evaluated: dict[str, Any] | None = None
    eval_role: str | None = None
    since_row: dict[str, Any] | None = None
    format: int = FORMAT


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's weights, ready to run.

    Attributes:
        path: the directory they came from.
        meta: what the checkpoint says about itself.
        params: on the devices of the mesh that was asked for.
        preprocess: mean image, colour components and scale.
    """

    path: Path
    meta: Meta
    params: model.Params
    preprocess: Preprocess


class Checkpoints:
    """The checkpoints of one run: the last ``keep`` and the best."""

    def __init__(self, run_dir: Path, keep: int) -> None:
        """Open ``run_dir/checkpoints``, clearing what a kill left half written."""
        policies = ocp.training.preservation_policies
        # Orbax's own annotations of policies do not fit each other, hence the cast.
        last_and_best = policies.AnyPreservationPolicy(
            [
                policies.LatestN(keep),
                policies.BestN(
                    get_metric_fn=lambda metrics: metrics["top1_error"],
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self.directory = run_dir.resolve() / "checkpoints"
        hosts.first(self._put_back_all)
        self._orbax = ocp.training.Checkpointer(
            str(self.directory),
            preservation_policy=cast(Any, last_and_best),
            cleanup_tmp_directories=True,
        )

    def _put_back_all(self) -> None:
        for aside in self.directory.glob(f"*{_ASIDE}"):  # a kill came before the new
            _put_back(aside)

    def steps(self) -> list[int]:
        """Return the steps there are, in order."""
        return sorted(checkpoint.step for checkpoint in self._orbax.checkpoints)

    def save(self, state: TrainState, preprocess: Preprocess, meta: Meta) -> Path:
        """Write a checkpoint and wait until it is on disk.

        Args:
            state: as it is after ``meta.step`` updates.
            preprocess: mean image, colour components and scale.
            meta: what the checkpoint says about itself.

        Raises:
            CheckpointError: the disk is full or cannot be written.
        """
        error = _validation_error(meta)
        metrics: dict[str, Any] | None = None
        if error is not None:
            metrics = {"top1_error": error}
        path = self.directory / str(meta.step)
        aside = path.with_name(path.name + _ASIDE)
        again = meta.step in self.steps()

        def set_aside() -> None:  # Orbax would delete it before it writes the new one
            if path.exists():
                path.rename(aside)

        hosts.first(set_aside)
        try:
            self._orbax.save_checkpointables(
                meta.step,
                {
                    "params": state.params,
                    "preprocess": preprocess._asdict(),
                    "training": _training(state),
                },
                metrics=metrics,
                custom_metadata=dataclasses.asdict(meta),
                force=True,
                overwrite=again,
            )
        except Exception as error:
            if aside.exists() and hosts.leader():
                _put_back(aside)
            raise CheckpointError(
                f"cannot save step {meta.step} in {self.directory}: "
                f"{_one_line(error)}; free some space or choose another --run-dir"
            ) from error
        if hosts.leader():
            shutil.rmtree(aside, ignore_errors=True)
        return path

    def restore(self, abstract: TrainState, step: int) -> TrainState:
        """Load the state of ``step`` onto the mesh that ``abstract`` names.

        Raises:
            CheckpointError: it is damaged or of another shape.
        """
        path = self.directory / str(step)
        wanted = {"params": abstract.params, "training": _training(abstract)}
        items = _read(path, wanted)
        training = items["training"]
        return TrainState(
            params=items["params"],
            opt_state=training["opt_state"],
            step=training["step"],
            drops=training["drops"],
        )

    def close(self) -> None:
        """Let go of the directory."""
        self._orbax.close()


def check_new(path: str | Path) -> Path:
    """Return the absolute path of a folder that ``write`` can write to.

    Raises:
        CheckpointError: it holds something; better known before the work than after.
    """
    path = Path(path).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointError(f"{path} holds something already; choose a new folder")
    return path.resolve()


def write(
    path: str | Path,
    params: Mapping[str, Mapping[str, Array | np.ndarray]],
    preprocess: Preprocess,
    meta: Meta,
) -> Path:
    """Write a directory of weights alone, which ``load`` reads like a checkpoint.

    Args:
        path: see ``check_new``.
        params: see ``model.Params``.
        preprocess: mean image, colour components and scale.
        meta: what the weights say about themselves.

    Returns:
        The absolute path.

    Raises:
        CheckpointError: it holds something, or cannot be written.
    """
    path = check_new(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        context = ocp.Context()
        # Orbax copies arrays of the host, lest they change before they are written.
        context.memory.deepcopy_host_arrays = False
        # Weights shrink by a tenth at most, for twice the memory.
        context.array.saving.use_compression = False
        with context:
            ocp.save_checkpointables(
                str(path),
                {"params": params, "preprocess": preprocess._asdict()},
                custom_metadata=dataclasses.asdict(meta),
                overwrite=path.exists(),
            )
    except Exception as error:
        raise CheckpointError(
            f"cannot write {path}: {_one_line(error)}; free some space or choose "
            "another folder"
        ) from error
    return path


def _put_back(aside: Path) -> None:
    """Restore a checkpoint that was moved aside, unless its successor is there."""
    path = aside.with_name(aside.name.removesuffix(_ASIDE))
    if is_checkpoint(path):
        shutil.rmtree(aside)
    else:
        aside.rename(path)


def _training(state: TrainState) -> dict[str, Any]:
    return {"opt_state": state.opt_state, "step": state.step, "drops": state.drops}


def _one_line(error: BaseException) -> str:
    while inner := error.__cause__ or error.__context__:
        error = inner  # Orbax's own words say less than those of what failed first
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."


def _read(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    with _quiet():
        found, cause = {}, None
        try:
            # One after the other: where one fails, Orbax forgets to wait for the rest.
            for item, abstract in wanted.items():
                found |= ocp.load_checkpointables(str(path.resolve()), {item: abstract})
        except Exception as error:  # Orbax has no common class for a damaged file
            cause = _one_line(error)
        if cause is not None:  # what is left of the failure complains now or never
            time.sleep(0.2)
            gc.collect()
    if cause is not None:
        raise CheckpointError(
            f"checkpoint {path} is damaged or not of this network ({cause}); "
            "use another step"
        )
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep asyncio and the interpreter from reporting what Orbax left unread.

    It reads many arrays at once; where one fails, the others fail too, unheard, and
    each would print a traceback of its own.
    """
    logger, hook = logging.getLogger("asyncio"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook
        logger.setLevel(level)


def is_checkpoint(path: Path) -> bool:
    """Tell whether ``path`` is a checkpoint directory."""
    return (path / _MARKER).is_file()


def steps_in(run_dir: Path) -> list[Path]:
    """Return the checkpoint directories of a run, in order of step."""
    found = [p for p in (run_dir / "checkpoints").glob("*") if is_checkpoint(p)]
    return sorted((p for p in found if p.name.isdigit()), key=lambda p: int(p.name))


def resolve(path: str | Path) -> Path:
    """Find the checkpoint that ``path`` stands for.

    Args:
        path: a run directory (its best checkpoint where it has one, else its last),
            a step inside one (``RUN/500`` or ``RUN/checkpoints/500``), or a directory
            of imported weights.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path).expanduser()
    if is_checkpoint(path):
        return path
    if path.name.isdigit() and is_checkpoint(path.parent / "checkpoints" / path.name):
        return path.parent / "checkpoints" / path.name
    if path.name == "checkpoints" and path.is_dir():
        path = path.parent
    steps = steps_in(path)
    if steps:
        errors = {step: _validation_error(read_meta(step)) for step in steps}
        scored = {step: error for step, error in errors.items() if error is not None}
        return min(scored, key=scored.__getitem__) if scored else steps[-1]
    if not path.exists():
        raise CheckpointError(
            f"no checkpoint at {path}: it does not exist; "
            "give a run directory or a step inside one"
        )
    raise CheckpointError(
        f"no checkpoint in {path}; give a run directory, a step inside one, "
        "or imported weights"
    )


def _validation_error(meta: Meta) -> float | None:
    """Return the error by which a checkpoint may be called the best, if any."""
    if meta.evaluated is None or meta.eval_role != "validation":
        return None
    return meta.evaluated["top1_error"]


def read_meta(path: Path) -> Meta:
    """Read what a checkpoint says about itself.

    Raises:
        CheckpointError: it is damaged or from a later version.
    """
    try:
        found = ocp.checkpointables_metadata(str(path.resolve())).custom_metadata
        record = cast(dict[str, Any], found)
        version = record["format"]
        # A later version may have keys that this one does not know.
        meta = Meta(**record) if version <= FORMAT else None
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged: its metadata cannot be read "
            f"({_one_line(error)}); use another step"
        ) from error
    if meta is None:
        raise CheckpointError(
            f"checkpoint {path} has format {version}, this version reads up to "
            f"{FORMAT}; update alexnet-jax"
        )
    return meta


def abstract_params(
    meta: Meta, mesh: Mesh
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Return the shapes of a checkpoint's parameters and where they lie on a mesh."""
    table, classes = find_network(meta.network), len(meta.classes)
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(
            shape.shape, shape.dtype, sharding=sharding
        ),
        jax.eval_shape(lambda: model.init(table, classes, jax.random.key(0))),
        shardings(mesh, model.param_specs(table, classes)),
    )


def load(path: str | Path, mesh: Mesh) -> Loaded:
    """Load the weights of a checkpoint onto a mesh, whichever mesh trained them.

    Args:
        path: see ``resolve``.
        mesh: where they go.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    path = resolve(path)
    meta = read_meta(path)
    table = find_network(meta.network)
    everywhere = NamedSharding(mesh, P())

    def whole(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.float32, sharding=everywhere)

    side, colours = meta.image_size, table.channels
    preprocess = {
        "mean": whole(side, side, colours),
        "components": whole(colours, colours),
        "scale": whole(colours),
    }
    if meta.format == 1:  # before imported weights there was no scale
        del preprocess["scale"]
    wanted = {"params": abstract_params(meta, mesh), "preprocess": preprocess}
    items = _read(path, wanted)
    found = {"scale": jax.device_put(np.ones(colours, np.float32), everywhere)}
    found |= items["preprocess"]
    return Loaded(path, meta, items["params"], Preprocess(**found))
