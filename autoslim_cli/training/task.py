"""Say what networks are trained for: what they lose, what smaller ones learn from the largest, how they are scored.

The built-in tasks are in `tasks.py` and `detection.py`.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoslim_cli.data.batch import Tree, forward, images_in, mapped, shapes, split, tensors
from autoslim_cli.errors import AutoslimError, UsageError, is_out_of_memory
from autoslim_cli.files.metric import Metric
from autoslim_cli.network.text import first_line
from autoslim_cli.network.traced_part import Judged, judged
from autoslim_cli.training.score import Score

NOISE = 1e-3
"""A difference of cross-entropy, or of a fraction, that a few thousand images do not tell from none."""


def detached(outputs: object) -> Tree:
    """Return outputs without a gradient, in full precision."""
    return mapped(outputs, lambda tensor: tensor.detach().float())


def l2(outputs: object, target: object) -> Tensor:
    """Return the mean squared difference of outputs and a target of the same shapes, added up over tensors: ()."""
    pairs = zip(tensors(outputs), tensors(target), strict=True)
    return torch.stack([F.mse_loss(one.float(), other) for one, other in pairs]).sum()


def l1(outputs: object, target: object) -> Tensor:
    """Return the mean absolute difference of outputs and a target of the same shapes, added up over tensors: ()."""
    pairs = zip(tensors(outputs), tensors(target), strict=True)
    return torch.stack([F.l1_loss(one.float(), other) for one, other in pairs]).sum()


SUMS = "they must add up over batches: sum over the images, or set adds_up=False"

ROUNDING = 1e-6
"""By which a fraction may be beyond 0 or 1."""


@dataclass(frozen=True)
class Task:
    """What a network's outputs are held against.

    Outputs and targets are tensors, or tuples and dictionaries of them, of as many images each.
    """

    name: str
    metric: Metric
    """What the score is called, its unit, and which way is better. A lower loss always is."""
    loss: Callable[[Any, Any], Tensor]
    """Given outputs and targets, return the mean that training lowers: ()."""
    statistics: Callable[[Any, Any], Tensor]
    """Given outputs and targets, return numbers from which the score is computed: (n,). They add up over batches, or
    are put one behind the other."""
    score: Callable[[Sequence[float], int], float]
    """Given the statistics of all images together, and how many images, return the metric's value."""
    check: Callable[[Any, Any], None] = lambda outputs, targets: None
    """Given outputs and targets, raise UsageError naming what was expected."""
    losses: Callable[[Any, Any], Tensor] | None = None
    """Given outputs and targets, return the loss that is measured, of each image: (images,). None: `loss`, for all."""
    target: Callable[[Any], Any] = detached
    """Given the largest network's outputs, return what smaller ones learn from, without a gradient."""
    distillation: Callable[[Any, Any], Tensor] | None = l2
    """Given outputs and such a target, return the mean that a smaller network's training lowers: (). None: smaller
    networks learn from the targets, as the largest does."""
    gives_logits: bool = False
    """Whether a temperature softens the outputs."""
    noise: tuple[float, float] = (NOISE, NOISE)
    """Differences of the measured loss and of the score that say nothing, for the search to think little of."""
    example: Callable[[tuple[int, ...]], Any] | None = None
    """Given the shape of one image, return the targets of two, without values: outputs are checked before any work."""
    adds_up: bool = True
    """Whether statistics add up over batches; else those of all are put one behind the other, in order."""
    part: str = ""
    """Of a network that computes its losses itself, of inputs and targets in training mode, the part that is slimmed:
    `loss` is then given these losses. Empty: `loss` is given what the network gives of inputs."""
    to_network: Callable[[Any], Any] = lambda targets: targets
    """Given targets, return those that such a network is given. Raises UsageError naming what was expected."""

    def check_outputs(self, outputs: object, image: tuple[int, ...]) -> None:
        """Raise UsageError if what a network gives for two images of a shape is not what the task expects."""
        if self.example is not None:
            with torch.device("meta"):
                self.check(outputs, self.example(image))

    def run(self, network: Callable[[Tree], Any], inputs: Tree, targets: Tree) -> Any:
        """Return what a network gives in training: its outputs of some inputs, or its losses if it computes them.

        Raises UsageError if it fails on targets.
        """
        if not self.part:
            return network(inputs)
        given = self.to_network(targets)
        try:
            return network((*_all(inputs), given))
        except AutoslimError:
            raise
        except Exception as error:  # whatever a detector's code raises on targets that it was not made for
            if is_out_of_memory(error):
                raise
            raise UsageError(
                f"task {self.name}: the network gives no losses of targets {shapes(targets)}: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from None

    def measured(self, network: nn.Module, inputs: Tree, targets: Tree) -> Any:
        """Return what `sums` is given of a network in eval mode: its outputs, and its losses if it computes them."""
        if not self.part:
            return forward(network, inputs)
        return judged(network, self.part, _all(inputs), self.to_network(targets))

    def learned(self, outputs: object, targets: Tree) -> Tensor:
        """Return the loss of training: (). Raises UsageError for outputs, targets or a loss of another shape."""
        self.check(outputs, targets)
        return self._one_number(self.loss(outputs, targets))

    @property
    def teaches(self) -> bool:
        """Tell whether smaller networks learn from the largest."""
        return self.distillation is not None

    def distilled(self, outputs: object, target: object) -> Tensor:
        """Return the loss of learning from a larger network: ()."""
        assert self.distillation is not None
        return self._one_number(self.distillation(outputs, target))

    def sums(self, outputs: object, targets: Tree) -> Tensor:
        """Return what is kept of a batch: the sum of its losses, then the statistics: (1 + n,), in double precision.

        MPS has none; there they are floats.
        """
        found, given = (outputs.outputs, outputs.losses) if isinstance(outputs, Judged) else (outputs, outputs)
        self.check(given, targets)
        if self.losses is None:
            losses = self._one_number(self.loss(given, targets)).detach() * images_in(targets)
        else:
            losses = self._one_each(self.losses(given, targets), images_in(targets))
        double = torch.float32 if losses.device.type == "mps" else torch.float64
        added = self._added(found, targets).detach().to(double).to(losses.device)
        return torch.cat([losses.to(double).sum().reshape(1), added.reshape(-1)])

    def together(self, parts: Sequence[Sequence[float]]) -> list[float]:
        """Return what `sums` says of some batches, of all of them."""
        if self.adds_up:
            if len(sizes := {len(part) - 1 for part in parts}) > 1:
                raise self._refused(f"its statistics are {min(sizes)} numbers or {max(sizes)}: {SUMS}")
            return [sum(column) for column in zip(*parts, strict=True)]
        return [sum(part[0] for part in parts), *(value for part in parts for value in part[1:])]

    def scored(self, sums: Sequence[float], images: int) -> Score:
        """Return the score that what is kept of some images comes to. Raises UsageError for one that cannot be."""
        loss, given = sums[0] / images, self.score(sums[1:], images)
        try:
            value = float(given)
        except (TypeError, ValueError, RuntimeError):
            raise self._refused(f"its score is {shapes(given)}, where a number was expected: return one") from None
        if math.isfinite(loss) and not math.isfinite(value):
            raise UsageError(
                f"task {self.name}: {self.metric.title} of {images} images is {value}, where a number was expected: "
                "its statistics must be finite, and its score must not divide by zero"
            )
        if self.metric.unit == "%" and math.isfinite(loss):
            if value < -ROUNDING or (self.metric.higher_is_better and value > 1 + ROUNDING):
                raise self._refused(
                    f"{self.metric.title} of {images} images is {value:g}, and of the unit % a score is a fraction "
                    "from 0 to 1: return 0.93 for 93 %, or give the metric another unit"
                )
            value = 1.0 if 1 < value <= 1 + ROUNDING else 0.0 if -ROUNDING <= value < 0 else value
        return Score(loss, value, self.metric)

    def _refused(self, what: str) -> UsageError:
        """Return the error of a task that gives something else than was expected."""
        return UsageError(f"task {self.name}: {what}")

    def _one_each(self, losses: object, images: int) -> Tensor:
        """Return the losses of each image. Raises UsageError if they are anything else."""
        if not isinstance(losses, Tensor) or losses.shape != (images,):
            raise self._refused(
                f"its losses are {shapes(losses)} of {images} images, where one of each was expected, of shape "
                "(images,)"
            )
        return losses

    def _added(self, outputs: Any, targets: Tree) -> Tensor:
        """Return the statistics of a batch. Raises UsageError if they are no numbers, or do not add up over batches."""

        def of(some: object, theirs: object) -> Tensor:
            found = self.statistics(some, theirs)
            try:
                return torch.as_tensor(found)
            except (TypeError, ValueError, RuntimeError):
                what = f"its statistics are {shapes(found)}, where numbers were expected: return a tensor"
                raise self._refused(what) from None

        added, images = of(outputs, targets), images_in(targets)
        if self.adds_up and added.numel() == images > 1:
            # As many as there are images: one each that were not summed, or a chance. One image tells, where one can be
            # cut out.
            fewer = images
            with suppress(Exception):
                some, theirs = (next(iter(split(one, images))) for one in (outputs, targets))
                fewer = of(some, theirs).numel()
            if fewer != images:
                raise self._refused(f"its statistics are {images} numbers of {images} images, {fewer} of one: {SUMS}")
        return added

    def _one_number(self, loss: object) -> Tensor:
        """Return a loss. Raises UsageError if it is not one number that depends on the outputs."""
        if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
            raise UsageError(
                f"task {self.name}: a loss is one number, a tensor of shape (), but it gives {shapes(loss)}: "
                "return its mean over the images"
            )
        return loss


def _all(inputs: Tree) -> tuple[Tree, ...]:
    """Return all that a network takes beside targets."""
    return inputs if isinstance(inputs, tuple) else (inputs,)
