"""Compose scenes of CIFAR-10 images, with masks and boxes: data/scenes/{train,test}/{images,masks}, boxes.json.

A scene of 40x40 pixels shows one to three things. Each is an ellipse, 15 to 24 pixels wide and high, cut out of a
CIFAR-10 image that was reduced to that size; later ones may cover a part of earlier ones. Behind them is a piece of
another image, of 10x10 pixels, enlarged four times. A mask says of every pixel: 0 background, 1 animal, 2 vehicle. A
box [class, left, top, right, bottom] holds what is seen of a thing. Scenes of `test` are made of CIFAR-10's test
images. Every scene depends on its part and number alone.

    python scripts/make_scenes.py [--images data/cifar10-jpeg] [--to data/scenes] [--train 8000] [--test 1000]
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, PIECE = 40, 10
SMALLEST, LARGEST, MOST = 15, 24, 3
SEEN = 0.5
"""The least share of a thing that must be seen, or the scene is drawn again."""
BACKGROUND, ANIMAL, VEHICLE = range(3)
CLASSES = ("background", "animal", "vehicle")
KINDS = {
    **dict.fromkeys(("bird", "cat", "deer", "dog", "frog", "horse"), ANIMAL),
    **dict.fromkeys(("airplane", "automobile", "ship", "truck"), VEHICLE),
}
"""Of CIFAR-10's classes. Both kinds are drawn equally often."""

Array = np.ndarray


@functools.lru_cache(maxsize=100_000)
def pixels(file: Path) -> Image.Image:
    """Return an image, decoded once."""
    return Image.open(file).convert("RGB")


def compose(files: dict[int, list[Path]], draw: np.random.Generator) -> tuple[Array, Array, list[list[int]]]:
    """Return a scene (40, 40, 3), its mask (40, 40) and its boxes; `files` are images by kind."""
    while True:
        scene = background(pick(files[int(draw.integers(ANIMAL, VEHICLE + 1))], draw), draw)
        owner, kinds = np.full((SIZE, SIZE), -1), list[int]()
        whole = list[int]()
        for number in range(int(draw.integers(1, MOST + 1))):
            kinds.append(int(draw.integers(ANIMAL, VEHICLE + 1)))
            width, height = (int(side) for side in draw.integers(SMALLEST, LARGEST + 1, size=2))
            left, top = (int(draw.integers(SIZE - side + 1)) for side in (width, height))
            thing = np.asarray(pick(files[kinds[-1]], draw).resize((width, height), Image.Resampling.BICUBIC))
            place, shape = np.s_[top : top + height, left : left + width], ellipse(width, height)
            scene[place][shape] = thing[shape]
            owner[place][shape] = number
            whole.append(int(shape.sum()))
        if all((owner == number).sum() >= SEEN * area for number, area in enumerate(whole)):
            break
    mask = np.array([BACKGROUND, *kinds], dtype=np.uint8)[owner + 1]
    return scene, mask, [[kind, *box(owner == number)] for number, kind in enumerate(kinds)]


def pick(files: list[Path], draw: np.random.Generator) -> Image.Image:
    """Return one of some images."""
    return pixels(files[int(draw.integers(len(files)))])


def background(image: Image.Image, draw: np.random.Generator) -> Array:
    """Return a piece of an image, enlarged to a scene's size."""
    left, top = (int(draw.integers(side - PIECE + 1)) for side in image.size)
    piece = image.crop((left, top, left + PIECE, top + PIECE))
    return np.array(piece.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def ellipse(width: int, height: int) -> Array:
    """Return which pixels (height, width) an ellipse of that size covers."""
    rows, columns = np.ogrid[:height, :width]
    inside: Array = ((rows + 0.5) / height * 2 - 1) ** 2 + ((columns + 0.5) / width * 2 - 1) ** 2 <= 1
    return inside


def box(seen: Array) -> list[int]:
    """Return left, top, right and bottom of what is seen, the last two behind it."""
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def main() -> None:
    """Compose all scenes of both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("data/cifar10-jpeg"))
    parser.add_argument("--to", type=Path, default=Path("data/scenes"))
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--test", type=int, default=1000)
    options = parser.parse_args()
    if options.to.exists():
        sys.exit(f"{options.to} is there already; remove it first")
    for part, count in (("train", options.train), ("test", options.test)):
        files: dict[int, list[Path]] = {ANIMAL: [], VEHICLE: []}
        for name, kind in KINDS.items():
            files[kind] += sorted((options.images / part / name).glob("*.jpg"))
        if not all(files.values()):
            sys.exit(f"{options.images / part} lacks images: <class>/*.jpg of CIFAR-10's ten classes")
        place, boxes = options.to / part, {}
        for kept in ("images", "masks"):
            (place / kept).mkdir(parents=True)
        for number in range(count):
            scene, mask, boxes[f"{number:05}"] = compose(files, np.random.default_rng([part == "test", number]))
            Image.fromarray(scene).save(place / "images" / f"{number:05}.png")
            Image.fromarray(mask).save(place / "masks" / f"{number:05}.png")
        (place / "boxes.json").write_text(json.dumps({"classes": CLASSES, "boxes": boxes}) + "\n")
        print(f"{part}: {count} scenes in {place}", flush=True)


if __name__ == "__main__":
    main()
