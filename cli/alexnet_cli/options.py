"""The options that several verbs share: one name, one meaning, one help text."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

DATA = "Data"
RUN = "Run"
MACHINE = "Machine"
HOSTS = "Many hosts"
OUTPUT = "Output"

_debugging = False


def debugging() -> bool:
    """Tell whether ``--debug`` was given."""
    return _debugging


def _debug(wanted: bool) -> bool:
    global _debugging
    _debugging = wanted
    return wanted


def complete_recipe(incomplete: str) -> list[str]:
    """Return the shipped recipes whose names begin so, for the shell."""
    import alexnet_jax

    folder = Path(alexnet_jax.__file__).parent / "recipes"
    return sorted(
        f.stem for f in folder.glob("*.toml") if f.stem.startswith(incomplete)
    )


def complete_network(incomplete: str) -> list[str]:
    """Return the networks whose names begin so, for the shell."""
    from alexnet_jax.networks import NETWORKS

    return [name for name in NETWORKS if name.startswith(incomplete)]


def read_labels(path: Path) -> list[str]:
    """Return the lines of a file of class names; empty ones at its end do not count."""
    from alexnet_jax.errors import DataError

    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"--labels {path} is not UTF-8 text: {error}") from error


def absolute(spec: str) -> str:
    """Return a data specification that means the same from any folder."""
    kind, colon, path = spec.partition(":")
    if kind in ("folder", "prepared") and path.strip():
        return kind + colon + os.path.abspath(os.path.expanduser(path))
    return spec


Data = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Data set: digits, imagenet2012, tfds:NAME, folder:PATH, prepared:PATH.",
        show_default="the recipe's",
        rich_help_panel=DATA,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder that holds tfds's data sets.",
        show_default="$TFDS_DATA_DIR or ~/tensorflow_datasets",
        rich_help_panel=DATA,
    ),
]
TrainSplit = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT",
        help="Split to train on, such as train or train[:90%].",
        rich_help_panel=DATA,
    ),
]
EvalSplit = Annotated[
    str | None,
    typer.Option(
        metavar="SPLIT",
        help="Split to test on, such as test or train[90%:].",
        rich_help_panel=DATA,
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Length of the run; the schedule is stretched with it.",
        show_default="the recipe's",
        rich_help_panel=RUN,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change any value of the recipe; may be repeated.",
        rich_help_panel=RUN,
    ),
]


def batch_size(default: str) -> Any:
    """Return ``--batch-size``, which says what it is where it is not given."""
    return typer.Option(
        metavar="N",
        min=1,
        help="Images in one step, over all devices.",
        show_default=default,
        rich_help_panel=RUN,
    )


BatchSize = Annotated[int | None, batch_size("the recipe's")]
Devices = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Devices to use.",
        show_default="all",
        rich_help_panel=MACHINE,
    ),
]
Towers = Annotated[
    int | None,
    typer.Option(
        metavar="1|2",
        min=1,
        max=2,
        help="Devices that hold one network: 2 puts a tower on each, as in the paper.",
        show_default="2 where they come in pairs",
        rich_help_panel=MACHINE,
    ),
]
Hybrid = Annotated[
    bool,
    typer.Option(
        "--hybrid",
        help="One-tower networks: divide the fully connected layers over the devices.",
        rich_help_panel=MACHINE,
    ),
]
Coordinator = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Where process 0 of several is; the port must be free there.",
        show_default="asked of SLURM, Open MPI or Kubernetes",
        rich_help_panel=HOSTS,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        metavar="P",
        help="How many processes the run has.",
        rich_help_panel=HOSTS,
    ),
]
ProcessId = Annotated[
    int | None,
    typer.Option(
        metavar="I",
        help="Which one this is, from 0; each is started alike but for this.",
        rich_help_panel=HOSTS,
    ),
]
Wait = Annotated[
    int,
    typer.Option(
        metavar="SECONDS",
        min=1,
        help="For the coordinator, and for the other processes.",
        rich_help_panel=HOSTS,
    ),
]
Ckpt = Annotated[
    Path | None,
    typer.Option(
        "--ckpt",
        metavar="PATH",
        help="A run directory (its best checkpoint, else its last), or a step in one.",
        show_default="the newest run in ./runs",
        rich_help_panel=RUN,
    ),
]
Ckpts = Annotated[
    list[Path] | None,
    typer.Option(
        "--ckpt",
        metavar="PATH",
        help="A run directory (its best checkpoint, else its last), or a step in one; "
        "several are an ensemble.",
        show_default="the newest run in ./runs",
        rich_help_panel=RUN,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="W,W|search",
        help="Of an ensemble's checkpoints. search: those best on this very split.",
        show_default="equal",
        rich_help_panel=RUN,
    ),
]
Views = Annotated[
    int | None,
    typer.Option(
        metavar="1|10",
        min=1,
        max=10,
        help="1: the centre. 10: four corners and centre, mirrored too; averaged.",
        show_default="the recipe's",
        rich_help_panel=RUN,
    ),
]
Precision = Annotated[
    Literal["f32", "bf16"] | None,
    typer.Option(
        metavar="f32|bf16",
        help="Arithmetic of the layers; weights stay float32.",
        show_default="the recipe's",
        rich_help_panel=MACHINE,
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Where the picture goes, .png or .svg.",
        show_default="among the run's figures",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON for programs.", rich_help_panel=OUTPUT),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Show the traceback of an error.",
        callback=_debug,
        is_eager=True,
        rich_help_panel=OUTPUT,
    ),
]
