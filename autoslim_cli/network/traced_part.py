"""Find the part of a larger network that is read, see what it is given, and give its outputs in its place.

A detector's own forward pass branches on values and cannot be traced; its backbone can. What lies before the part and
what reads its outputs is left as it is, and runs as the network's author wrote it.
"""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.text import first_line


class _ReachedError(Exception):
    """End a forward pass where the part is called, with what it was given."""

    def __init__(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        super().__init__()
        self.args_given, self.kwargs_given = args, kwargs


def part_of(network: nn.Module, name: str) -> nn.Module:
    """Return the part of a network that is traced: all of it without a name.

    Raises UsageError naming the parts that there are.
    """
    parts: dict[str, nn.Module] = dict(network.named_modules())
    if name in parts:
        return parts[name]
    near = difflib.get_close_matches(name, parts, n=1, cutoff=0.6)
    top = ", ".join(child for child, _ in network.named_children())
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"model.trace: {type(network).__name__} has no part {name!r}; expected is one of {top}, or a part of one{hint}"
    )


@contextmanager
def answering(part: nn.Module, answer: Callable[..., Any]) -> Iterator[None]:
    """Let a part give what `answer` gives of its arguments."""
    before = vars(part).get("forward")
    vars(part)["forward"] = answer
    try:
        yield
    finally:
        if before is None:
            del vars(part)["forward"]
        else:
            vars(part)["forward"] = before


def given_to(network: nn.Module, name: str, *inputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors that a part is given when the network runs on some inputs; it runs no further.

    Raises UsageError if the network does not run so far, never calls the part, or gives it anything but tensors.
    """

    def reached(*args: object, **kwargs: object) -> object:
        raise _ReachedError(args, kwargs)

    try:
        with answering(part_of(network, name), reached), torch.no_grad():
            network(*inputs)
    except _ReachedError as call:
        tensors = tuple(value for value in call.args_given if isinstance(value, Tensor))
        if call.kwargs_given or len(tensors) < len(call.args_given):
            raise UsageError(
                f"model.trace: {name} is called with more than tensors by position: name a part that takes tensors, "
                "as backbone"
            ) from None
        return tensors
    except Exception as error:  # whatever the user's code raises on an image that does not suit it
        raise UsageError(
            f"the network does not run up to {name}: {first_line(error)}; check model.input, model.args and model.trace"
        ) from None
    raise UsageError(
        f"model.trace: the forward pass never calls {name}: expected is a part that is called as a module, as backbone"
    )


def with_outputs(network: nn.Module, name: str, outputs: object, *inputs: Any) -> Any:
    """Return what a network gives of some inputs where its part gives `outputs`.

    Raises UsageError if the part is called twice: its outputs are known for one call.
    """
    waiting = [outputs]

    def answer(*_args: object, **_kwargs: object) -> object:
        if not waiting:
            raise UsageError(f"model.trace: {name} is called more than once in a forward pass: name a part that is not")
        return waiting.pop()

    with answering(part_of(network, name), answer):
        return network(*inputs)
