"""Find how many channels each layer of a convolutional network should have under a budget.

`train_supernet`, `search`, `retrain`, `calibrate`, `units` and `count` do on a network and batches of your own what the
commands of these names do on a recipe; `load_model` reads what a command trained as a plain PyTorch network, and
`SlimmableNetwork` is a supernet that runs at any width. A `Task` and its `Metric` say what networks are for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoslim_cli.files.metric import Metric
    from autoslim_cli.library.functions import retrain, search, train_supernet
    from autoslim_cli.library.measures import calibrate, evaluate
    from autoslim_cli.library.networks import Found, count, rebuild, units
    from autoslim_cli.slimming.slimmable import SlimmableNetwork
    from autoslim_cli.stages.evaluate import load_model
    from autoslim_cli.training.task import Task

__version__ = "0.1.0"
__all__ = [
    "Found",
    "Metric",
    "SlimmableNetwork",
    "Task",
    "__version__",
    "calibrate",
    "count",
    "evaluate",
    "load_model",
    "rebuild",
    "retrain",
    "search",
    "train_supernet",
    "units",
]

_HOMES = {
    "files.metric": ("Metric",),
    "library.functions": ("retrain", "search", "train_supernet"),
    "library.measures": ("calibrate", "evaluate"),
    "library.networks": ("Found", "count", "rebuild", "units"),
    "slimming.slimmable": ("SlimmableNetwork",),
    "stages.evaluate": ("load_model",),
    "training.task": ("Task",),
}


def __getattr__(name: str) -> Any:
    """Import torch only when something needs it."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"autoslim_cli.{module}"), name)
    raise AttributeError(name)
