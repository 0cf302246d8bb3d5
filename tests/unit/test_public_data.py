"""Recipes for public data read folders in their layout: tiny ones, generated here."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoslim_cli.data.batch import Each
from autoslim_cli.data.image_sets import ImageSets
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.training.opening import task_of

RECIPES = Path(__file__).parents[2] / "recipes"
COUNT = 10


def picture(path, height, width, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def mask(path, height, width, *parts):
    """Write a mask: parts are values, tops and lefts of squares of 20 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width), dtype=np.uint8)
    for value, top, left in parts:
        pixels[top : top + 20, left : left + 20] = value
    image = Image.fromarray(pixels, "P")
    image.putpalette(list(range(256)) * 3)
    image.save(path)


def penn_fudan(root):
    for number in range(COUNT):
        picture(root / "PNGImages" / f"Fudan{number:05}.png", 60, 70 + number, number)
        mask(root / "PedMasks" / f"Fudan{number:05}_mask.png", 60, 70 + number, (1, 5, 10), (2, 30, 40))


def voc(root):
    base = root / "VOCdevkit" / "VOC2012"
    names = [f"2007_{number:06}" for number in range(COUNT)]
    for number, name in enumerate(names):
        picture(base / "JPEGImages" / f"{name}.jpg", 40, 60, number)
        mask(base / "SegmentationClass" / f"{name}.png", 40, 60, (15, 5, 10), (255, 10, 35))
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(names[:8]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[8:]) + "\n")


def coco(root):
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train2017", 8), ("val2017", 2)):
        images, objects = [], []
        for number in range(count):
            picture(root / split / f"{number:012}.jpg", 50, 60 + number, number)
            images.append({"id": number, "file_name": f"{number:012}.jpg", "height": 50, "width": 60 + number})
            if number != 1:  # one without objects
                whole = {"bbox": [10.0, 5.0, 20.0, 30.0], "category_id": 90, "iscrowd": 0}
                crowd = {"bbox": [0.0, 0.0, 9.0, 9.0], "category_id": 1, "iscrowd": 1}
                for one in (whole, crowd):
                    objects.append({"id": len(objects) + 1, "image_id": number, "area": 100.0, **one})
        content = {"images": images, "annotations": objects, "categories": [{"id": 1}, {"id": 90}]}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def opened(name, tmp_path, **args):
    """Return the image sets of a shipped recipe on a tiny folder of its own, and its task."""
    directory = Path(shutil.copytree(RECIPES / name, tmp_path / "recipes" / name))
    given = ", ".join(f"{key}: {value}" for key, value in {"path": tmp_path / "data", **args}.items())
    recipe = load_recipe(directory, ["data.holdout=2", "data.workers=0", "data.args={" + given + "}"])
    images = ImageSets(recipe.data, recipe.model, recipe.task, 0, directory, torch.device("cpu"))
    return images, task_of(recipe, directory)


def test_penn_fudan(tmp_path):
    penn_fudan(tmp_path / "data")
    images, task = opened("penn-fudan-detection", tmp_path)
    assert (len(images.training), len(images.holdout), len(images.test)) == (6, 2, 2)
    ((given, targets),) = images.holdout.evaluation(2)
    assert isinstance(given, Each)  # of two sizes
    assert 0 <= float(given[0].min()) < float(given[0].max()) <= 1  # the detector normalises
    for one in task.to_network(targets):
        assert one["boxes"].tolist() == [[10, 5, 30, 25], [40, 30, 60, 50]]
        assert one["labels"].tolist() == [1, 1]
    batches = [batch for epoch in range(6) for batch in images.training.training(6, 0, epoch)]
    lefts = {float(one["boxes"][0, 0]) for _, some in batches for one in some}
    assert 10 in lefts
    assert len(lefts) > 1  # some are mirrored


def test_voc(tmp_path):
    voc(tmp_path / "data")
    images, _ = opened("voc-segmentation", tmp_path, size=320)
    assert (len(images.training), len(images.holdout), len(images.test)) == (6, 2, 2)
    ((given, masks),) = images.test.evaluation(2)
    assert (given.shape, masks.shape, masks.dtype) == ((2, 3, 320, 320), (2, 320, 320), torch.int64)
    assert set(masks.unique().tolist()) == {0, 15, 255}
    ((given, masks),) = images.training.training(6, 0, 0)
    assert set(masks.unique().tolist()) <= {0, 15, 255}
    assert given.shape == (6, 3, 320, 320)


def test_coco(tmp_path):
    pytest.importorskip("pycocotools")
    coco(tmp_path / "data")
    images, task = opened("coco-ssdlite", tmp_path)
    assert len(images.all_training) == 7  # those with objects
    ((_, targets),) = images.all_training.evaluation(7)
    assert [one["boxes"].tolist() for one in targets] == [[[10, 5, 30, 35]]] * 7
    ((_, targets),) = images.test.evaluation(2)
    assert [len(one["boxes"]) for one in targets] == [2, 0]
    alone = task.to_network(targets)[0]  # crowds are not learned
    assert (alone["labels"].tolist(), alone["boxes"].tolist()) == ([90], [[10, 5, 30, 35]])
