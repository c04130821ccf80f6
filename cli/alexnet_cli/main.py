"""The entry point: the list of verbs, and what becomes of every kind of failure."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from alexnet_cli import options, runtime, watch
from alexnet_cli.ablate import ablate
from alexnet_cli.activations import activations, features
from alexnet_cli.bench import bench
from alexnet_cli.describe import describe
from alexnet_cli.doctor import doctor
from alexnet_cli.evaluate import evaluate
from alexnet_cli.export import export
from alexnet_cli.filters import filters
from alexnet_cli.helping import Verb, Verbs
from alexnet_cli.import_ import import_
from alexnet_cli.mesh import mesh
from alexnet_cli.neighbors import neighbors
from alexnet_cli.predict import predict
from alexnet_cli.prepare import prepare
from alexnet_cli.recipes import recipes
from alexnet_cli.report import report
from alexnet_cli.reproduce import reproduce
from alexnet_cli.train import train
from alexnet_cli.units import units
from alexnet_jax.errors import AlexNetError

app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command(cls=Verb)(train)
app.command("eval", cls=Verb)(evaluate)
app.command(cls=Verb)(predict)
app.command(cls=Verb)(prepare)
app.command("import", cls=Verb)(import_)
app.command(cls=Verb)(export)
app.command(cls=Verb)(describe)
app.command(cls=Verb)(recipes)
app.command(cls=Verb)(doctor)
app.command(cls=Verb)(mesh)
app.command(cls=Verb)(bench)
app.command(cls=Verb)(activations)
app.command(cls=Verb)(features)
app.command(cls=Verb)(filters)
app.command(cls=Verb)(units)
app.command(cls=Verb)(neighbors)
app.command(cls=Verb)(report)
app.command(cls=Verb)(ablate)
app.command(cls=Verb)(reproduce)


COMPUTING = {
    *("train", "eval", "predict", "bench", "ablate", "reproduce"),
    *("activations", "features", "units", "neighbors", "report"),
}
"""Verbs that run a network."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alexnet-jax {runtime.version()}")
        raise typer.Exit


@app.callback()
def alexnet(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """The ImageNet network of 2012, exact and fast, on today's JAX.

    Start here; no download, about a minute on two cores:
      alexnet train                learn handwritten digits
      alexnet eval                 test what was learned
      alexnet predict PICTURE      name what a picture shows
      alexnet COMMAND --help       options and examples of a command
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process.

    Exit codes: 0 done, 1 a mistake the user can mend or an input that failed, 2 wrong
    usage, 130 or 143 ended by SIGINT or SIGTERM.

    Args:
        arguments: without the program's name; those of the process when None.
    """
    if arguments is None and not COMPUTING.isdisjoint(sys.argv[1:2]):
        runtime.ask_for_huge_pages()
    runtime.arguments = list(sys.argv[1:] if arguments is None else arguments)
    if watch.is_worker():
        watch.become_worker()
    try:
        app(arguments, prog_name="alexnet")
    except SystemExit as ending:
        _leave(ending.code if isinstance(ending.code, int) else 1)
    except KeyboardInterrupt:
        _leave(130)
    except Exception as error:
        if watch.is_worker():
            watch.await_the_cause(error)
        if options.debugging():
            raise
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            _leave(1)
        from alexnet_cli import view

        view.error(_explain(error))
        if watch.is_worker() and not getattr(error, "everywhere", False):
            watch.leave_at_once(1)
        _leave(1)


def _explain(error: Exception) -> str:
    """Say in one line what went wrong and, where it is known, what would help."""
    text = " ".join(str(error).split())
    if isinstance(error, AlexNetError):
        return text
    if isinstance(error, OSError) and error.strerror:
        named = [str(name) for name in (error.filename, error.filename2) if name]
        return f"{' -> '.join(named) or 'the system says'}: {error.strerror}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return (
            "out of memory: use a smaller --batch-size, --precision bf16 or more "
            f"--devices ({text[:200] or 'no details'})"
        )
    return (
        f"this is a bug in alexnet-jax, not your mistake ({type(error).__name__}: "
        f"{text[:300]}); run it again with --debug and report what that prints"
    )


def _leave(code: int) -> None:
    """End the process; a reader that has gone away (``| head``) is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    sys.exit(code)
