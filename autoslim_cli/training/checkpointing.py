"""Compute blocks of a network anew in backward passes (activation checkpointing), with nothing else changed by it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from autoslim_cli.cost.step_memory import StepMemory, blocks_to_checkpoint
from autoslim_cli.data.batch import Tree
from autoslim_cli.errors import UsageError
from autoslim_cli.network.blocks import Block
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.traced_part import answering
from autoslim_cli.recipe.schema import TrainSettings
from autoslim_cli.training.job import Losses, Step
from autoslim_cli.training.passes import Pass


def with_memory(step: Step, network: nn.Module, reading: Reading, settings: TrainSettings) -> tuple[Step, StepMemory]:
    """Return a step, checkpointed if settings say so, of a network built as one that was read, and the memory it takes.

    Raises UsageError if checkpointing would save next to nothing.
    """
    blocks = blocks_computed_anew(reading, settings)
    if not blocks:
        return step, StepMemory.of(reading)
    return checkpointed(step, [network.get_submodule(block.name) for block in blocks]), StepMemory.of(reading, blocks)


def blocks_computed_anew(reading: Reading, settings: TrainSettings) -> list[Block]:
    """Return the blocks that settings let a training compute anew; UsageError if they save next to nothing."""
    try:
        return blocks_to_checkpoint(reading) if settings.activation_checkpointing else []
    except UsageError as error:
        raise UsageError(f"{settings.section}.{error}") from None


def checkpointed(step: Step, blocks: Sequence[nn.Module]) -> Step:
    """Return a step that keeps of some modules what they are given alone: the same gradients, to the bit on a CPU."""

    def lean(inputs: Tree, targets: Tree, over: Pass) -> Losses:
        with ExitStack() as stack:
            for block in blocks:
                stack.enter_context(answering(block, _twice(block)))
            return step(inputs, targets, over)

    return lean


def _twice(block: nn.Module) -> Callable[..., Any]:
    """Return what runs a module, and for its backward pass runs it once more."""
    forward = block.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        def called(*given: Any) -> Any:
            by_name = dict(zip(kwargs, given[len(args) :], strict=True))
            return forward(*given[: len(args)], **by_name)

        # All by position: of what is given by name torch keeps no random state, and a GPU would draw other numbers.
        return checkpoint(called, *args, *kwargs.values(), use_reentrant=False, context_fn=partial(_passes, block))

    return run


def _passes(block: nn.Module) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """Return the contexts of a module's two passes: the second starts from what the first found, and leaves nothing.

    So BN's running averages take in a batch once.
    """
    found = [
        (vars(module), name, buffer.clone())
        for module in block.modules()
        for name in module._buffers
        if isinstance(buffer := getattr(module, name), Tensor)
    ]
    return nullcontext(), _shadowed(found)


@contextmanager
def _shadowed(found: Sequence[tuple[dict[str, Any], str, Tensor]]) -> Iterator[None]:
    """Let modules have other buffers: attributes come before registered ones, as in a supernet."""
    before = [attributes.get(name) for attributes, name, _ in found]
    for attributes, name, buffer in found:
        attributes[name] = buffer
    try:
        yield
    finally:
        for (attributes, name, _), own in zip(found, before, strict=True):
            if own is None:
                del attributes[name]
            else:
                attributes[name] = own
