"""AP of boxes: by hand, and as pycocotools has it where that is installed."""

import contextlib
import io

import numpy as np
import pytest
import torch

from autoslim_cli.training.average_precision import THRESHOLDS, average_precision, rows_of

A, B, FAR = [0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def objects(boxes, labels=None, **more):
    labels = torch.tensor(labels or [1] * len(boxes), dtype=torch.int64)
    return {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": labels, **more}


def found(boxes, scores, labels=None):
    return objects(boxes, labels, scores=torch.tensor(scores, dtype=torch.float32))


def ap(pairs, thresholds=THRESHOLDS):
    return average_precision(torch.cat([rows_of(*pair) for pair in pairs]).flatten().tolist(), thresholds)


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        # All found, whatever the order; nothing found; nothing there.
        ([(found([A, B], [0.2, 0.9]), objects([A, B]))], 1.0),
        ([(found([], []), objects([A]))], 0.0),
        ([(found([A], [0.5]), objects([]))], 0.0),
        # Half of the objects: precision 1 at 51 of 101 recalls (0 to 0.5).
        ([(found([A], [0.5]), objects([A, B]))], 51 / 101),
        # A surer box that is wrong: precision 1/2 up to recall 1.
        ([(found([FAR, A], [0.9, 0.5]), objects([A]))], 0.5),
        # A less sure one that is wrong harms nothing, nor does the same object found twice, the better one first.
        ([(found([A, FAR, A], [0.9, 0.5, 0.4]), objects([A]))], 1.0),
        # Found at IoU 0.8 (8 of 10 columns): at 7 of the 10 thresholds, 0.5 to 0.8.
        ([(found([[0.0, 0.0, 8.0, 10.0]], [0.9]), objects([A]))], 0.7),
        # The scores of all images are one order: right, wrong, right; precision 1 to recall 1/2, then 2/3.
        (
            [(found([A, FAR], [0.9, 0.8]), objects([A])), (found([B], [0.7]), objects([B]))],
            (51 + 50 * 2 / 3) / 101,
        ),
        # Classes: one is found, the other is called by the first's name.
        ([(found([A, B], [0.9, 0.8], [1, 1]), objects([A, B], [1, 2]))], 0.5),
        # A crowd is not asked for, and a box within it does not count.
        ([(found([A, FAR], [0.5, 0.9]), objects([A, FAR], iscrowd=torch.tensor([0, 1])))], 1.0),
    ],
)
def test_by_hand(pairs, wanted):
    assert ap(pairs) == pytest.approx(wanted, abs=1e-12)


def test_at_one_threshold():
    pair = found([[0.0, 0.0, 6.0, 10.0]], [0.9]), objects([A])
    assert ap([pair], THRESHOLDS[:1]) == 1.0
    assert ap([pair]) == pytest.approx(0.3)


def scenes(seed, images=30, classes=4):
    """Random boxes, found with errors, twice, or not at all; some crowds."""
    draw = np.random.default_rng(seed)
    for _ in range(images):
        corner = draw.integers(0, 40, (draw.integers(0, 7), 2))
        boxes = np.column_stack([corner, corner + draw.integers(4, 20, corner.shape)]).astype(float)
        labels, crowd = draw.integers(1, classes, len(boxes)), draw.random(len(boxes)) < 0.15
        places = np.repeat(np.arange(len(boxes)), draw.integers(0, 4, len(boxes)))
        named = np.where(draw.random(len(places)) < 0.85, labels[places], 1)
        guesses = boxes[places] + draw.integers(-2, 3, (len(places), 4))
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = np.round(draw.random(len(guesses)), 1)  # many are equal
        yield (
            found(guesses.tolist(), scores.tolist(), named.tolist()),
            objects(boxes.tolist(), labels.tolist(), iscrowd=torch.from_numpy(crowd).long()),
        )


@pytest.mark.parametrize("seed", range(5))
def test_as_pycocotools_has_it(seed):
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    pairs = list(scenes(seed))

    def boxes(one):
        return torch.cat([one["boxes"][:, :2], one["boxes"][:, 2:] - one["boxes"][:, :2]], 1).double().tolist()

    there, guesses = [], []
    for image, (given, wanted) in enumerate(pairs):
        columns = boxes(wanted), wanted["labels"].tolist(), wanted["iscrowd"].tolist()
        for box, label, crowd in zip(*columns, strict=True):
            there.append({"id": len(there) + 1, "image_id": image, "category_id": label, "bbox": box})
            there[-1] |= {"area": box[2] * box[3], "iscrowd": crowd}
        columns = boxes(given), given["labels"].tolist(), given["scores"].double().tolist()
        for box, label, score in zip(*columns, strict=True):
            guesses.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": image} for image in range(len(pairs))],
            "categories": [{"id": label} for label in range(1, 4)],
            "annotations": there,
            "info": {},
        }
        truth.createIndex()
        judge = evaluation.COCOeval(truth, truth.loadRes(guesses), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert ap(pairs) == pytest.approx(judge.stats[0], abs=1e-9)
    assert ap(pairs, THRESHOLDS[:1]) == pytest.approx(judge.stats[1], abs=1e-9)
    assert 0.1 < judge.stats[0] < 0.9
