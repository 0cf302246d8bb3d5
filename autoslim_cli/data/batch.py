"""Handle what a batch is made of: a tensor, or tuples and dictionaries of tensors of as many images each.

What differs in shape from image to image, as boxes do, is a list instead: `Each`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor


class Each(list["Tree"]):
    """One tree for each image, of shapes of its own: what torchvision's detectors take and give."""


Tree: TypeAlias = "Tensor | tuple[Tree, ...] | dict[str, Tree] | Each"
"""A network's inputs, its targets, or its outputs; the first dimension of every tensor counts the images, or there is
one tree for each."""

Batch: TypeAlias = tuple[Tree, Tree]
"""Inputs and targets. Of a classifier: images (batch, channels, height, width) and labels (int64: batch)."""


def mapped(tree: object, function: Callable[[Tensor], Tensor]) -> Tree:
    """Return a tree of what a function makes of its tensors; lists become tuples. Raises TypeError for other leaves."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Each):
        return Each(mapped(one, function) for one in tree)
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


def images_in(tree: Tree) -> int:
    """Return how many images a tree is of."""
    if isinstance(tree, Tensor | Each):
        return len(tree)
    return images_in(next(iter(tree.values() if isinstance(tree, Mapping) else tree)))


def split(tree: Tree, pieces: int) -> list[Tree]:
    """Cut a tree along its images into pieces of equal size, to an image."""
    images = images_in(tree)
    bounds = [piece * (images // pieces) + min(piece, images % pieces) for piece in range(pieces + 1)]
    return [_along(tree, slice(*bound)) for bound in itertools.pairwise(bounds)]


def chosen(tree: Tree, images: Tensor) -> Tree:
    """Return the images at some places: (int64: images)."""
    return _along(tree, images)


def _along(tree: Tree, which: slice | Tensor) -> Tree:
    """Return some images of a tree."""
    if isinstance(tree, Tensor):
        return tree[which if isinstance(which, slice) else which.to(tree.device)]
    if isinstance(tree, Each):
        return Each(tree[which] if isinstance(which, slice) else (tree[place] for place in which.tolist()))
    if isinstance(tree, Mapping):
        return {name: _along(one, which) for name, one in tree.items()}
    return tuple(_along(one, which) for one in tree)


def joined(trees: Sequence[Tree]) -> Tree:
    """Return one tree of the images of several; images of several sizes become one tree each."""
    first = trees[0]
    if isinstance(first, Mapping):
        return {name: joined([one[name] for one in trees if isinstance(one, Mapping)]) for name in first}
    if isinstance(first, tuple):
        return tuple(joined(parts) for parts in zip(*trees, strict=True))
    parts = [one for one in trees if isinstance(one, Tensor)]
    if len(parts) == len(trees) and len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(parts)
    return Each(image for one in trees if isinstance(one, Tensor | Each) for image in one)


def forward(network: Callable[..., Any], inputs: Tree) -> Any:
    """Return the outputs of a network; of several inputs each is an argument of its own."""
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def shapes(tree: object) -> str:
    """Write the shapes of a tree: `(8, 21, 64, 64)`, `{out: (8, 21, 64, 64), aux: ...}`."""
    if isinstance(tree, Tensor):
        return str(tuple(tree.shape))
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{name}: {shapes(one)}" for name, one in tree.items()) + "}"
    if isinstance(tree, Each) and len(tree) > 1:
        return f"[{shapes(tree[0])}, ...] of {len(tree)}"
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return "[" + ", ".join(map(shapes, tree)) + "]"
    return type(tree).__name__
