"""Say what networks are trained for: what they lose, what smaller ones learn from the largest, how they are scored."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.schema import ModelSettings


@dataclass(frozen=True)
class Task:
    """What a network's outputs are held against. `images` are as many as `outputs`, their first dimension."""

    name: str
    check: Callable[[Tensor], None]
    """Given outputs, raise UsageError naming what was expected."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """Given outputs and labels, return the mean that training lowers: ()."""
    target: Callable[[Tensor], Tensor]
    """Given the largest network's outputs, return what smaller ones learn from, without a gradient."""
    distillation: Callable[[Tensor, Tensor], Tensor]
    """Given outputs and a target, return the mean that a smaller network's training lowers: ()."""
    losses: Callable[[Tensor, Tensor], Tensor]
    """Given outputs and labels, return the loss that is measured, of each image: (images,)."""
    scores: Callable[[Tensor, Tensor], Tensor]
    """Given outputs and labels, return the score of each image: (images,)."""
    higher_is_better: bool
    """Whether a greater score is a better one. A lower loss always is."""


def classification(classes: int, label_smoothing: float = 0.0) -> Task:
    """Return the task of naming one of some classes: cross-entropy, and top-1 as the score.

    Smaller networks learn from the largest one's softmax alone, by soft cross-entropy (US-Nets, section 3.2).
    """

    def check(outputs: Tensor) -> None:
        if outputs.dim() != 2 or outputs.shape[1] != classes:
            raise UsageError(
                f"classification expects logits of shape (images, classes) = ({len(outputs)}, {classes}), but the "
                f"network gives {tuple(outputs.shape)}; set model.classes, or mend the network's last layer"
            )

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs.float(), labels, label_smoothing=label_smoothing)

    return Task(
        name="classification",
        check=check,
        loss=loss,
        target=lambda outputs: outputs.detach().float().softmax(1),
        distillation=lambda outputs, target: F.cross_entropy(outputs.float(), target),
        losses=lambda outputs, labels: F.cross_entropy(outputs.float(), labels, reduction="none"),
        scores=lambda outputs, labels: outputs.argmax(1) == labels,
        higher_is_better=True,
    )


def task_of(model: ModelSettings, label_smoothing: float = 0.0) -> Task:
    """Return the task that a recipe's model is for."""
    return classification(model.classes, label_smoothing)
