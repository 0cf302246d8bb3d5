"""Find the part of a larger network that is read, see what it is given, and give its outputs in its place.

A detector's own forward pass branches on values and cannot be traced; its backbone can. What lies before the part and
what reads its outputs is left as it is, and runs as the network's author wrote it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from autoslim_cli.errors import UsageError, is_out_of_memory
from autoslim_cli.near import near
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
    top = ", ".join(child for child, _ in network.named_children())
    meant = "".join(f"; did you mean {other}?" for other in near(name, parts))
    raise UsageError(
        f"model.trace: {type(network).__name__} has no part {name!r}; expected is one of {top}, or a part of one{meant}"
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
        if is_out_of_memory(error):
            raise
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


class Judged(NamedTuple):
    """What a network that computes its losses itself gives of inputs and targets: these, and what it finds."""

    losses: Any
    outputs: Any


def judged(network: nn.Module, name: str, inputs: tuple[Any, ...], targets: object) -> Judged:
    """Return the losses and the outputs of a network in eval mode, whose part runs once.

    Raises UsageError if it never runs, or twice.
    """
    part, given = part_of(network, name), list[object]()
    run = part.forward

    def remembered(*args: Any, **kwargs: Any) -> Any:
        given.append(run(*args, **kwargs))
        return given[-1]

    with answering(part, remembered):
        outputs = network(*inputs)
    if len(given) != 1:
        raise UsageError(f"model.trace: {name} is called {len(given)} times in a forward pass: name another part")
    return Judged(_losses(network, name, given[0], inputs, targets), outputs)


def judged_with(network: nn.Module, name: str, given: object, inputs: tuple[Any, ...], targets: object) -> Judged:
    """Return the losses and the outputs of a network in eval mode where its part gives `given`."""
    outputs = with_outputs(network, name, given, *inputs)
    return Judged(_losses(network, name, given, inputs, targets), outputs)


def _losses(network: nn.Module, name: str, given: object, inputs: tuple[Any, ...], targets: object) -> Any:
    """Return the losses of a network in eval mode where its part gives `given`.

    What lies around the part is told that it trains, for else it gives none, but for normalisation, dropout and
    torchvision's resizing, which would draw a size. What is drawn all the same, as the boxes that a loss is of, comes
    from one seed.
    """
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    within = {id(module) for module in part_of(network, name).modules()}
    as_they_are = (_NormBase, _DropoutNd, GeneralizedRCNNTransform)
    around = [m for m in network.modules() if id(m) not in within and not isinstance(m, as_they_are)]
    try:
        for module in around:
            module.training = True
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return with_outputs(network, name, given, *inputs, targets)
    finally:
        for module in around:
            module.training = False
