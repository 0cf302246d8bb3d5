"""Find how many channels each layer of a convolutional network should have under a budget.

`load_model` reads a deployable checkpoint as a plain PyTorch network; everything else is the command line's.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoslim_cli.stages.evaluate import load_model

__version__ = "0.1.0"
__all__ = ["__version__", "load_model"]


def __getattr__(name: str) -> Any:
    """Import torch only when something needs it."""
    if name == "load_model":
        from autoslim_cli.stages.evaluate import load_model

        return load_model
    raise AttributeError(name)
