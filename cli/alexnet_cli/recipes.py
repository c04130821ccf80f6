"""``alexnet recipes``: what can be trained, and each number's source."""

from typing import Annotated

import typer

from alexnet_cli import options, view


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Print this recipe with its comments.",
            show_default=False,
            autocompletion=options.complete_recipe,
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """List the recipes, or print one.

    A recipe is a TOML file with every number of a run, its source beside it.
    Copy one, change it, and train it by its path; or change single values with --set.

    Examples:
      alexnet recipes
      alexnet recipes imagenet > mine.toml && alexnet train mine.toml
    """
    from alexnet_jax import recipes as shipped

    if name is not None:
        print(shipped.text(name), end="")
        return
    for known in sorted(shipped.names(), key=lambda known: (known != "digits", known)):
        recipe = shipped.load(known)
        epochs = f"{recipe.schedule.epochs:g} epochs"
        view.answer(
            view.entry(
                known,
                f"{recipe.network} on {recipe.data.spec}, {epochs}",
                _sentence(shipped.text(known)),
            )
        )
    view.answer(
        view.commands(
            "\nNext",
            [
                "alexnet recipes NAME  # its numbers and their sources",
                "alexnet train NAME    # train it",
            ],
        )
    )


def _sentence(text: str) -> str:
    """Return the first sentence of a recipe's leading comment."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    comment = " ".join(lines)
    first, stop, _ = comment.partition(". ")
    return first + stop.strip()
