"""Compute the average precision of boxes as COCO defines it, from what images say one by one."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""The intersections over union above which a box counts as found."""

RECALLS = np.linspace(0, 1, 101)
"""Where precision is read off, at the highest of this recall or more."""

MOST = 100
"""Boxes of an image and a class that count, the surest first."""

COLUMNS = 4
"""Of a row: class, score, and two numbers whose bits say at which thresholds a box was found, and does not count.

A row of score -1 says instead how many objects of its class an image has.
"""


def rows_of(found: Mapping[str, Tensor], objects: Mapping[str, Tensor]) -> Tensor:
    """Return what one image says: (rows, 4), in double precision.

    Both hold `boxes` (n, 4: left, top, right, bottom) and `labels` (n,); what was found has `scores` (n,), and objects
    may have `iscrowd` (n,): who finds some of a crowd is neither right nor wrong. Boxes take objects one by one, the
    surest first, each the nearest of its class that is left (pycocotools, evaluateImg).
    """
    scores = _numbers(found["scores"])
    order = np.argsort(-scores, kind="stable")
    labels, boxes, scores = _numbers(found["labels"])[order], _numbers(found["boxes"])[order], scores[order]
    kinds, places = _numbers(objects["labels"]), _numbers(objects["boxes"])
    crowd = _numbers(objects["iscrowd"]).astype(bool) if "iscrowd" in objects else np.zeros(len(kinds), dtype=bool)
    rows = [[kind, -1.0, float((~crowd & (kinds == kind)).sum()), 0.0] for kind in np.unique(kinds)]
    for kind in np.unique(labels):
        mine, theirs = np.flatnonzero(labels == kind)[:MOST], np.flatnonzero(kinds == kind)
        theirs = theirs[np.argsort(crowd[theirs], kind="stable")]
        right, without = _matched(_overlaps(boxes[mine], places[theirs], crowd[theirs]), crowd[theirs])
        bits = 2.0 ** np.arange(len(THRESHOLDS))
        rows += np.column_stack([labels[mine], scores[mine], right @ bits, without @ bits]).tolist()
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, COLUMNS)


def _matched(overlaps: Numbers, crowd: Flags) -> tuple[Numbers, Numbers]:
    """Return at which thresholds each box found an object, and found a crowd: (boxes, thresholds) both.

    `overlaps` are (boxes, objects), crowds last.
    """
    right = np.zeros((len(overlaps), len(THRESHOLDS)))
    without = np.zeros_like(right)
    taken = np.zeros((len(THRESHOLDS), len(crowd)), dtype=bool)
    for box in np.flatnonzero((overlaps >= THRESHOLDS[0] - 1e-10).any(1)):
        for place, threshold in enumerate(THRESHOLDS):
            free = (overlaps[box] >= min(threshold, 1 - 1e-10)) & ~(taken[place] & ~crowd)
            within = np.flatnonzero(free & ~crowd) if (free & ~crowd).any() else np.flatnonzero(free)
            if not len(within):
                continue
            best = within[len(within) - 1 - np.argmax(overlaps[box][within][::-1])]  # the last of equals
            taken[place, best] = True
            (without if crowd[best] else right)[box, place] = 1
    return right, without


def _overlaps(boxes: Numbers, places: Numbers, crowd: Flags) -> Numbers:
    """Return intersections over unions, of a crowd over the box alone: (boxes, places)."""
    low = np.maximum(boxes[:, None, :2], places[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], places[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    area, of_place = (np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (boxes, places))
    either = area[:, None] + np.where(crowd, 0, of_place - both)
    overlaps: Numbers = both / np.maximum(either, 1e-12)
    return overlaps


def average_precision(rows: Sequence[float], thresholds: Sequence[float] = THRESHOLDS) -> float:
    """Return the mean over classes and thresholds of the area below precision against recall, read at 101 recalls.

    `rows` are those of all images, one behind the other. Classes without objects do not count; without any it is 0.
    """
    table = np.asarray(rows, dtype=np.float64).reshape(-1, COLUMNS)
    counts, found = table[table[:, 1] < 0], table[table[:, 1] >= 0]
    areas: list[float] = []
    for kind in np.unique(counts[:, 0]):
        objects = counts[counts[:, 0] == kind, 2].sum()
        if not objects:
            continue
        mine = found[found[:, 0] == kind]
        mine = mine[np.argsort(-mine[:, 1], kind="stable")]
        for threshold in thresholds:
            place = THRESHOLDS.index(threshold)
            right, without = (mine[:, column].astype(np.int64) >> place & 1 for column in (2, 3))
            areas.append(_area(right[without == 0], objects))
    return float(np.mean(areas)) if areas else 0.0


def _area(right: NDArray[np.int64], objects: float) -> float:
    """Return the area for boxes in the order of their scores: 1 where one is right, else 0."""
    if not len(right):
        return 0.0
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(right) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / objects, RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())


def _numbers(values: Tensor) -> Numbers:
    """Return a tensor as an array of double precision."""
    return values.detach().cpu().double().numpy()
