"""The network of Krizhevsky, Sutskever and Hinton (2012) on JAX.

>>> import alexnet_jax
>>> recipe = alexnet_jax.load_recipe("digits", {"run.steps": 100})
>>> for event in alexnet_jax.fit(recipe, "runs/mine"): ...
>>> classifier = alexnet_jax.load("runs/mine")
>>> classifier.predict(["three.png"], top=3)
>>> classifier.evaluate("digits")

Names are loaded when they are first used, so the import itself is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_jax.api import Classifier, load
    from alexnet_jax.errors import AlexNetError
    from alexnet_jax.evaluate import Result
    from alexnet_jax.networks import NETWORKS, network
    from alexnet_jax.predict import Answer, Guess
    from alexnet_jax.recipes import load as load_recipe
    from alexnet_jax.train import fit

__all__ = [
    "NETWORKS",
    "AlexNetError",
    "Answer",
    "Classifier",
    "Guess",
    "Result",
    "fit",
    "load",
    "load_recipe",
    "network",
]

_HOME = {
    "NETWORKS": ("networks", "NETWORKS"),
    "AlexNetError": ("errors", "AlexNetError"),
    "Answer": ("predict", "Answer"),
    "Classifier": ("api", "Classifier"),
    "Guess": ("predict", "Guess"),
    "Result": ("evaluate", "Result"),
    "fit": ("train", "fit"),
    "load": ("api", "load"),
    "load_recipe": ("recipes", "load"),
    "network": ("networks", "network"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
