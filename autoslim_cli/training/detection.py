"""Detection: objects found in boxes."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from autoslim_cli.data.batch import Each, Tree, shapes
from autoslim_cli.errors import UsageError
from autoslim_cli.files.metric import AP, AP50
from autoslim_cli.training.average_precision import THRESHOLDS, average_precision, rows_of
from autoslim_cli.training.task import Task


def detection(classes: int, part: str, metric: str = "ap") -> Task:
    """Return the task of finding objects in boxes: the losses that a detector computes itself, and AP as COCO has it.

    Their sum is trained and measured; `classes` counts the background, as torchvision does. Smaller networks learn from
    the targets as the largest does: which of its boxes belong to which of theirs is not defined.
    """

    def to_network(targets: Any) -> Each:
        if not isinstance(targets, Each) or not all(map(_is_objects, targets)):
            raise UsageError(
                "detection expects for each image {boxes: (objects, 4), labels: (objects,)}, labels of int64 and boxes "
                f"as left, top, right, bottom, but the data gives {shapes(targets)}"
            )
        given = [_without_crowds(objects) for objects in targets]
        labels, boxes = (torch.cat([objects[key] for objects in given]) for key in ("labels", "boxes"))
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise UsageError(
                f"detection expects labels below model.classes ({classes}, with the background as 0), but the data "
                f"gives {int(labels.min())} to {int(labels.max())}"
            )
        if bool((empty := (boxes[:, 2:] <= boxes[:, :2]).any(1)).any()):
            raise UsageError(
                "detection expects boxes as left, top, right, bottom that are wider and higher than nothing, but the "
                f"data gives {boxes[empty][0].tolist()}"
            )
        return Each(cast(list[Tree], given))

    def check(losses: object, _targets: object) -> None:
        given = losses.values() if isinstance(losses, Mapping) else [losses]
        if not given or not all(isinstance(one, Tensor) and not one.dim() for one in given):
            raise UsageError(
                "detection expects a network that gives its losses of images and targets in training mode, as "
                f"{{classification: (), bbox_regression: ()}}, but it gives {shapes(losses)}"
            )

    def loss(losses: Mapping[str, Tensor], _targets: object) -> Tensor:
        return torch.stack(list(losses.values() if isinstance(losses, Mapping) else [losses])).sum()

    def statistics(found: Any, targets: Any) -> Tensor:
        if not isinstance(found, Sequence) or len(found) != len(targets) or not all(map(_is_found, found)):
            raise UsageError(
                "detection expects for each image {boxes: (found, 4), labels: (found,), scores: (found,)} in eval "
                f"mode, but the network gives {shapes(found)}"
            )
        return torch.cat([rows_of(one, objects) for one, objects in zip(found, targets, strict=True)]).flatten()

    thresholds = {"ap": THRESHOLDS, "ap50": THRESHOLDS[:1]}[metric]
    return Task(
        name="detection",
        metric={"ap": AP, "ap50": AP50}[metric],
        check=check,
        to_network=to_network,
        loss=loss,
        statistics=statistics,
        adds_up=False,
        score=lambda rows, _: average_precision(rows, thresholds),
        distillation=None,
        part=part,
    )


def _is_objects(objects: object) -> bool:
    """Tell whether these are boxes and labels of as many objects."""
    boxes, labels = (objects.get(key) if isinstance(objects, Mapping) else None for key in ("boxes", "labels"))
    if not isinstance(boxes, Tensor) or not isinstance(labels, Tensor):
        return False
    return labels.dim() == 1 and labels.dtype == torch.int64 and boxes.shape == (len(labels), 4)


def _without_crowds(objects: Any) -> dict[str, Tensor]:
    """Return the objects of an image that are one each: crowds are not learned, and do not count."""
    if "iscrowd" not in objects:
        return dict(objects)
    single, count = objects["iscrowd"] == 0, len(objects["boxes"])
    return {name: one[single] if one.dim() and len(one) == count else one for name, one in objects.items()}


def _is_found(found: object) -> bool:
    """Tell whether these are boxes, labels and scores of as many boxes."""
    if not isinstance(found, Mapping) or not _is_objects(found):
        return False
    return isinstance(found.get("scores"), Tensor) and len(found["scores"]) == len(found["boxes"])
