"""Find how many channels each layer of a convolutional network should have under a budget.

`load_model` reads a deployable checkpoint as a plain PyTorch network, `SlimmableNetwork` a supernet that runs at any
width, `calibrate` measures its BN statistics; a `Task` and its `Metric` say what networks of your own are for.
Everything else is the command line's.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoslim_cli.files.metric import Metric
    from autoslim_cli.slimming.slimmable import SlimmableNetwork
    from autoslim_cli.stages.evaluate import load_model
    from autoslim_cli.training.measure import calibrate
    from autoslim_cli.training.task import Task

__version__ = "0.1.0"
__all__ = ["Metric", "SlimmableNetwork", "Task", "__version__", "calibrate", "load_model"]


def __getattr__(name: str) -> Any:
    """Import torch only when something needs it."""
    homes = {
        "Metric": "autoslim_cli.files.metric",
        "Task": "autoslim_cli.training.task",
        "SlimmableNetwork": "autoslim_cli.slimming.slimmable",
        "calibrate": "autoslim_cli.training.measure",
        "load_model": "autoslim_cli.stages.evaluate",
    }
    if name in homes:
        return getattr(importlib.import_module(homes[name]), name)
    raise AttributeError(name)
