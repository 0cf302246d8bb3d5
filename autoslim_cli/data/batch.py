"""Handle what a batch is made of: a tensor, or tuples and dictionaries of tensors of as many images each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Tree: TypeAlias = "Tensor | tuple[Tree, ...] | dict[str, Tree]"
"""A network's inputs, its targets, or its outputs; the first dimension of every tensor counts the images."""

Batch: TypeAlias = tuple[Tree, Tree]
"""Inputs and targets. Of a classifier: images (batch, channels, height, width) and labels (int64: batch)."""


def mapped(tree: object, function: Callable[[Tensor], Tensor]) -> Tree:
    """Return a tree of what a function makes of its tensors; lists become tuples. Raises TypeError for other leaves."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {str(name): mapped(one, function) for name, one in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return tuple(mapped(one, function) for one in tree)
    raise TypeError(f"{type(tree).__name__} is neither a tensor nor a tuple or dictionary of tensors")


def tensors(tree: object) -> list[Tensor]:
    """Return the tensors of a tree, in order. Raises TypeError for other leaves."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        return [tensor for one in tree.values() for tensor in tensors(one)]
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [tensor for one in tree for tensor in tensors(one)]
    raise TypeError(f"{type(tree).__name__} is neither a tensor nor a tuple or dictionary of tensors")


def rebuilt(tree: Tree, parts: Iterable[Tensor]) -> Tree:
    """Return a tree like another, of other tensors."""
    taken = iter(parts)
    return mapped(tree, lambda _: next(taken))


def images_in(tree: Tree) -> int:
    """Return how many images a tree is of."""
    return len(tensors(tree)[0])


def split(tree: Tree, pieces: int) -> list[Tree]:
    """Cut a tree along its images into pieces of equal size, to an image."""
    cut = [tensor.tensor_split(pieces) for tensor in tensors(tree)]
    return [rebuilt(tree, part) for part in zip(*cut, strict=True)]


def joined(trees: Sequence[Tree]) -> Tree:
    """Return one tree of the images of several."""
    columns = zip(*map(tensors, trees), strict=True)
    return rebuilt(trees[0], (torch.cat(column) for column in columns))


def forward(network: Callable[..., Any], inputs: Tree) -> Any:
    """Return the outputs of a network; of several inputs each is an argument of its own."""
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def shapes(tree: object) -> str:
    """Write the shapes of a tree: `(8, 21, 64, 64)`, `{out: (8, 21, 64, 64), aux: ...}`."""
    if isinstance(tree, Tensor):
        return str(tuple(tree.shape))
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{name}: {shapes(one)}" for name, one in tree.items()) + "}"
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return "[" + ", ".join(map(shapes, tree)) + "]"
    return type(tree).__name__
