"""Find how many channels each layer of a convolutional network should have under a budget.

`load_model` reads a deployable checkpoint as a plain PyTorch network, `SlimmableNetwork` a supernet that runs at any
width, `calibrate` measures its BN statistics; everything else is the command line's.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoslim_cli.slimming.slimmable import SlimmableNetwork
    from autoslim_cli.stages.evaluate import load_model
    from autoslim_cli.training.measure import calibrate

__version__ = "0.1.0"
__all__ = ["SlimmableNetwork", "__version__", "calibrate", "load_model"]


def __getattr__(name: str) -> Any:
    """Import torch only when something needs it."""
    homes = {
        "SlimmableNetwork": "autoslim_cli.slimming.slimmable",
        "calibrate": "autoslim_cli.training.measure",
        "load_model": "autoslim_cli.stages.evaluate",
    }
    if name in homes:
        return getattr(importlib.import_module(homes[name]), name)
    raise AttributeError(name)
