"""The built-in tasks of images: naming classes or labels, segmentation, super-resolution."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoslim_cli.data.batch import Tree, images_in, mapped, shapes
from autoslim_cli.errors import UsageError
from autoslim_cli.files.metric import TOP1, Metric
from autoslim_cli.training.task import Task, l1, l2

AUXILIARY = 0.5
"""What the loss of a segmentation network's further output counts in training, as in torchvision's reference."""

PERFECT = 1e-10
"""Mean squared errors below count as this: 100 dB."""


def classification(classes: int, label_smoothing: float = 0.0) -> Task:
    """Return the task of naming one of some classes: cross-entropy, and top-1 as the score.

    Labels are whole numbers, or shares of the classes (images, classes), as one-hot and mixed ones are; of these the
    largest is the true class. Smaller networks learn from the largest one's softmax alone, by soft cross-entropy
    (US-Nets, section 3.2).
    """

    def check(outputs: object, labels: Tree) -> None:
        if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] != classes:
            raise UsageError(
                f"classification expects logits of shape (images, classes) = ({images_in(labels)}, {classes}), but "
                f"the network gives {shapes(outputs)}; set model.classes, or mend the network's last layer"
            )
        if not isinstance(labels, Tensor) or shapes(labels) not in (shapes(outputs), f"({len(outputs)},)"):
            raise UsageError(
                f"classification expects labels of shape ({len(outputs)},), but the data gives {shapes(labels)}"
            )
        if labels.dim() == 1 and labels.dtype != torch.int64:
            raise UsageError(f"classification expects labels of whole numbers, but the data gives {labels.dtype}")

    def cross_entropy(outputs: Tensor, labels: Tensor, **options: Any) -> Tensor:
        try:
            return F.cross_entropy(outputs.float(), labels.float() if labels.dim() == 2 else labels, **options)
        except IndexError:  # to look at every label beforehand would wait for a GPU
            raise UsageError(
                f"classification expects labels from 0 to {classes - 1}, as the network gives {classes} logits, but "
                f"the data gives {int(labels.min())} to {int(labels.max())}"
            ) from None

    return Task(
        name="classification",
        metric=TOP1,
        check=check,
        loss=functools.partial(cross_entropy, label_smoothing=label_smoothing),
        losses=functools.partial(cross_entropy, reduction="none"),
        statistics=lambda outputs, labels: (outputs.argmax(1) == _classes(labels)).sum(),
        score=lambda sums, images: sums[0] / images,
        target=lambda outputs: outputs.detach().float().softmax(1),
        distillation=cross_entropy,
        gives_logits=True,
        example=lambda image: torch.empty(2, dtype=torch.int64),
    )


def _classes(labels: Tensor) -> Tensor:
    """Return the true class of each image (images,), of shares of the classes the largest."""
    return labels.float().argmax(1) if labels.dim() == 2 else labels


def segmentation(classes: int, ignore_index: int = 255, label_smoothing: float = 0.0) -> Task:
    """Return the task of naming the class of every pixel: cross-entropy, and mean intersection over union.

    The mean is over classes that occur, in the masks or in what is predicted, of pixels of all images together. Of
    several outputs the one called `out`, or the first, is scored, and the others are trained as well. Smaller networks
    learn from the largest one's softmax at every pixel.
    """

    def check(outputs: object, masks: object) -> None:
        if not isinstance(masks, Tensor) or masks.dim() != 3:
            raise UsageError(f"segmentation expects masks (images, height, width), but the data gives {shapes(masks)}")
        expected = (masks.shape[0], classes, *masks.shape[1:])
        if masks.dtype != torch.int64:
            raise UsageError(f"segmentation expects masks of whole numbers, but the data gives {masks.dtype}")
        try:
            right = all(shapes(one) == str(expected) for one in _parts(outputs).values())
        except KeyError:
            right = False
        if not right:
            raise UsageError(
                f"segmentation expects logits (images, classes, height, width) = {expected}, or several of them of "
                f"which one is called out, but the network gives {shapes(outputs)}; set model.classes or model.input, "
                "or let the network resize what it gives"
            )

    def cross_entropy(outputs: Tensor, masks: Tensor) -> Tensor:
        summed = F.cross_entropy(
            outputs.float(), masks, ignore_index=ignore_index, reduction="sum", label_smoothing=label_smoothing
        )
        return summed / (masks != ignore_index).sum().clamp(min=1)

    def loss(outputs: object, masks: Tensor) -> Tensor:
        main, *others = (cross_entropy(one, masks) for one in _parts(outputs).values())
        return main + AUXILIARY * torch.stack(others).sum() if others else main

    def losses(outputs: object, masks: Tensor) -> Tensor:
        each = F.cross_entropy(_main(outputs).float(), masks, ignore_index=ignore_index, reduction="none")
        return each.sum((1, 2)) / (masks != ignore_index).sum((1, 2)).clamp(min=1)

    def statistics(outputs: object, masks: Tensor) -> Tensor:
        """Return pixels that are and are called each class, and those that are or are called it: (2 x classes,)."""
        counted = (masks != ignore_index).flatten()
        named, true = _main(outputs).argmax(1).flatten(), masks.flatten().clamp(0, classes - 1)

        def count(of: Tensor, which: Tensor) -> Tensor:
            # Whole numbers: floats count no further than 16,777,216, the pixels of 256 images of 256x256.
            return torch.zeros(classes, dtype=torch.int64, device=of.device).scatter_add_(0, of, which.long())

        both = count(true, counted & (named == true))
        return torch.cat([both, count(true, counted) + count(named, counted) - both])

    def mean_iou(sums: Sequence[float], _images: int) -> float:
        pairs = zip(sums[:classes], sums[classes:], strict=True)
        shares = [both / either for n, (both, either) in enumerate(pairs) if either and n != ignore_index]
        return sum(shares) / len(shares) if shares else float("nan")

    def distillation(outputs: object, target: object) -> Tensor:
        pairs = zip(_parts(outputs).values(), _parts(target).values(), strict=True)
        main, *others = (F.cross_entropy(one.float(), soft) for one, soft in pairs)
        return main + AUXILIARY * torch.stack(others).sum() if others else main

    return Task(
        name="segmentation",
        metric=Metric(name="miou", label="mIoU", unit="%"),
        check=check,
        loss=loss,
        losses=losses,
        statistics=statistics,
        score=mean_iou,
        target=lambda outputs: mapped(outputs, lambda one: one.detach().float().softmax(1)),
        distillation=distillation,
        gives_logits=True,
        example=lambda image: torch.empty(2, *image[1:], dtype=torch.int64),
    )


def super_resolution(scale: int = 2, distill: str = "l2") -> Task:
    """Return the task of giving an image more pixels: L1, and PSNR in dB, over colours in [0, 1], cut off there.

    PSNR is the mean of the images' own, all pixels counted. Smaller networks learn from the largest one's output, by L2
    or L1.
    """

    def check(outputs: object, targets: object) -> None:
        if not isinstance(outputs, Tensor) or outputs.dim() != 4 or shapes(outputs) != shapes(targets):
            raise UsageError(
                f"super-resolution expects images (images, channels, height, width) = {shapes(targets)}, but the "
                f"network gives {shapes(outputs)}; task.scale is by how much it enlarges model.input"
            )
        if isinstance(targets, Tensor) and not targets.is_floating_point():
            raise UsageError("super-resolution expects images as floats from 0 to 1 for targets, not whole numbers")

    def statistics(outputs: Tensor, images: Tensor) -> Tensor:
        errors = (outputs.float().clamp(0, 1) - images).square().mean((1, 2, 3)).clamp(min=PERFECT)
        return -10 * errors.double().log10().sum() if errors.device.type != "mps" else -10 * errors.log10().sum()

    return Task(
        name="super-resolution",
        metric=Metric(name="psnr", label="PSNR", unit="dB"),
        check=check,
        loss=l1,
        losses=lambda outputs, images: (outputs.float() - images).abs().mean((1, 2, 3)),
        statistics=statistics,
        score=lambda sums, images: sums[0] / images,
        distillation={"l1": l1, "l2": l2}[distill],
        noise=(1e-6, 0.01),
        example=lambda image: torch.empty(2, image[0], *(scale * side for side in image[1:])),
    )


def multi_label(labels: int) -> Task:
    """Return the task of saying which of some labels an image has: binary cross-entropies added up over labels, and F1.

    F1 is over the decisions of all images and labels, at a probability of one half. Smaller networks learn from the
    largest one's sigmoid.
    """

    def check(outputs: object, targets: object) -> None:
        for what, tree in (("logits", outputs), ("labels of 0 or 1", targets)):
            if not isinstance(tree, Tensor) or tree.dim() != 2 or tree.shape[1] != labels:
                source = "network" if tree is outputs else "data"
                raise UsageError(
                    f"multi-label expects {what} of shape (images, labels), {labels} labels each, but the {source} "
                    f"gives {shapes(tree)}; model.classes is the number of labels"
                )

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs.float(), targets.float(), reduction="none").sum(1)

    def statistics(outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how many labels are right, said and true: (3,)."""
        said, true = outputs > 0, targets > 0.5
        return torch.stack([(said & true).sum(), said.sum(), true.sum()])

    return Task(
        name="multi-label",
        metric=Metric(name="f1", label="F1", unit="%"),
        check=check,
        loss=lambda outputs, targets: losses(outputs, targets).mean(),
        losses=losses,
        statistics=statistics,
        score=lambda sums, _: 2 * sums[0] / (sums[1] + sums[2]) if sums[1] + sums[2] else 1.0,
        target=lambda outputs: outputs.detach().float().sigmoid(),
        distillation=lambda outputs, target: losses(outputs, target).mean(),
        gives_logits=True,
        example=lambda image: torch.empty(2, labels),
    )


def _parts(outputs: Any) -> dict[str, Tensor]:
    """Return a segmentation network's outputs by name, that which is scored first. Raises KeyError without it."""
    if isinstance(outputs, Mapping):
        return {"out": outputs["out"], **outputs}
    if isinstance(outputs, Sequence):
        return {str(number) if number else "out": one for number, one in enumerate(outputs)}
    return {"out": outputs}


def _main(outputs: object) -> Tensor:
    """Return the output that is scored."""
    return next(iter(_parts(outputs).values()))
