"""Find the blocks of a network that was read: modules that run several operations, and that can run a second time."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rehearsal import on_meta
from autoslim_cli.network.tensors import tensors_in
from autoslim_cli.network.text import first_line


@dataclass(frozen=True)
class Block:
    """A module within the part that was traced, by its name in the network, and the nodes of each call of it."""

    name: str
    calls: tuple[frozenset[fx.Node], ...]


def blocks(reading: Reading) -> list[Block]:
    """Return the blocks that give the same when they run again on what they were given, outer ones first.

    A block whose inputs are changed in place, by itself or later on, is none. Raises UsageError if the network does not
    run in training mode without values: nothing is known of it then.
    """
    calls: defaultdict[str, defaultdict[tuple[str, ...], set[fx.Node]]] = defaultdict(lambda: defaultdict(set))
    for node in reading.graph.nodes:
        stack = node.meta.get("nn_module_stack", {})
        for depth, (name, _) in enumerate(stack.values(), 1):
            calls[_in_network(reading, name)][tuple(stack)[:depth]].add(node)
    spoiled = _given_what_changes(reading)
    return [
        Block(name, tuple(map(frozenset, nodes.values())))
        for name, nodes in calls.items()
        if name not in spoiled and any(len(one) > 1 for one in nodes.values())
    ]


def _given_what_changes(reading: Reading) -> set[str]:
    """Return the modules that are given a tensor which is changed in place before a forward pass in training ends."""
    given: list[tuple[str, Tensor, int]] = []

    def noting(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            given.extend((name, tensor, tensor._version) for tensor in tensors_in((args, kwargs)))

        module.register_forward_pre_hook(note, with_kwargs=True)

    network = reading.traced(on_meta(reading.module)).train()
    for name, module in network.named_modules():
        noting(_in_network(reading, name), module)
    images = [
        torch.empty(reading.shapes[node], dtype=reading.dtypes[node], device="meta") for node in reading.placeholders
    ]
    try:
        with torch.no_grad():
            network(*images)
    except Exception as error:  # whatever the user's operations raise
        raise UsageError(
            "activation_checkpointing: the network does not run in training mode without values "
            f"({first_line(error)}); leave it out, or set micro_batch"
        ) from None
    return {name for name, tensor, version in given if tensor._version != version}


def _in_network(reading: Reading, name: str) -> str:
    """Return the name in the whole network of a module of the part that was traced."""
    return ".".join(part for part in (reading.part, name) if part)
