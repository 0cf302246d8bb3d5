"""How fast images come from files: beside torchvision's own loader, and while a network trains on them.

    python benchmarks/data.py [--images 20000] [--batches 40] [--rounds 3] [--workers 2] [--json]
    python benchmarks/data.py --quick --json

JPEG files of 500x375 pixels are generated, of about the size that ImageNet's have; each is decoded, a random part of it
resized to 224x224, and the batch normalised. Both loaders have as many workers and take turns. Prints

- `loader_vs_torchvision`: images per second, ours over ImageFolder and DataLoader, the median of rounds; an epoch's
  start is in `first_batch_seconds`;
- `wait_share`: the share of a training's time in which it waited for images, its epochs' starts included;
- `worker_memory`: what each worker takes alone (MiB), with a list of as many files as ImageNet has.

`--scale` adds the tables of docs/scale.md: what these figures come to for ImageNet on 1, 8 and 64 GPUs.

Works in runs/data-benchmark, where the files stay.
"""

import argparse
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from autoslim_cli.data.folder import ImageFiles, list_images
from autoslim_cli.data.sets import Images, all_images
from autoslim_cli.data.sources import FileSource
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings

HERE = Path("runs/data-benchmark")
WIDTH, HEIGHT, SIDE, BATCH = 500, 375, 224, 64
IMAGENET = 1_281_167
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CPU = torch.device("cpu")


def generate(directory: Path, images: int, distinct: int = 256) -> float:
    """Write so many JPEG files of ten classes, copies of a few hundred; return their mean size in KiB."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(min(distinct, images)):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            (WIDTH, HEIGHT), Image.BICUBIC
        )
        grain = rng.normal(0, 22, (HEIGHT // 2 + 1, WIDTH // 2, 3)).repeat(2, 0).repeat(2, 1)[:HEIGHT]
        pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    for part, count in (("train", images), ("test", 20)):
        for number in range(count):
            path = directory / part / str(number % 10) / f"{number:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[number % len(files)])
    return statistics.mean(map(len, files)) / 1024


def ours(files: ImageFiles, workers: int) -> Images:
    """Return the images as a recipe for ImageNet opens them."""
    data = DataSettings(
        name="image-folder", holdout=1, mean=MEAN, std=STD, augment=AugmentSettings(crop="resized", flip=True)
    )
    source = FileSource(files, (3, SIDE, SIDE), workers)
    return all_images(source, data, ModelSettings(name="any", input=(3, SIDE, SIDE), classes=10), CPU)


def torchvisions(directory: Path, workers: int) -> "DataLoader[Any]":
    """Return torchvision's own: ImageFolder and a DataLoader, pixels as uint8 as ours hands them over."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    folder = ImageFolder(str(directory / "train"), transform)
    return DataLoader(folder, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True)


def normalised(batches: Iterator[Any]) -> Iterator[Any]:
    """Bring uint8 images to floats in the main process, as ours does."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    for images, labels in batches:
        yield images.float().div_(255).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last), labels


def rate(begin: Callable[[], Iterator[Any]], count: int, workers: int) -> tuple[float, float]:
    """Return images per second, once what the workers had ready is taken, and the seconds until the first batch."""
    began = time.perf_counter()
    batches = begin()
    next(batches)
    first = time.perf_counter() - began
    for _ in itertools.islice(batches, 2 * workers):
        pass
    began = time.perf_counter()
    done = sum(len(labels) for _, labels in itertools.islice(batches, count))
    return done / (time.perf_counter() - began), first


def memory_of_workers(files: ImageFiles, workers: int, batches: int) -> dict[str, float]:
    """Return the MiB that each worker takes alone, with as long a list of files as ImageNet's, at first and later."""
    names = [f"{files.names[number % len(files.names)]}" for number in range(IMAGENET)]
    many = replace(files, names=names, labels=torch.arange(IMAGENET) % 10)
    images = ours(many, workers)
    handed = images.training(BATCH, 0, 0)
    figures = {}
    for what, count in (("first", 2), ("later", batches)):
        for _ in itertools.islice(handed, count):
            pass
        figures[what] = _own_memory()
    return figures


def _own_memory() -> float:
    """Return the MiB that this process's children have for themselves, each, in the mean."""
    own = []
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
        own.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024)
    return round(statistics.mean(own), 1) if own else 0.0


def wait_share(directory: Path, workers: int, epochs: int) -> float:
    """Train a small network on some of the files by the real command; return the share of time spent waiting."""
    recipe = HERE / "recipe"
    recipe.mkdir(parents=True, exist_ok=True)
    (recipe / "recipe.yaml").write_text(
        json.dumps(
            {
                "format": "autoslim.recipe/1",
                "about": "a small network on generated JPEG files",
                "model": {"name": "torchvision/resnet18", "input": [3, SIDE, SIDE], "classes": 10},
                "data": {
                    "name": "image-folder",
                    "path": os.path.relpath(directory, recipe),
                    "holdout": 8,
                    "limit": 968,
                    "workers": workers,
                    "memory": 0,
                    "augment": {"crop": "resized", "flip": True},
                },
                "train": {"epochs": 1, "batch": 32, "lr": 0.01},
                "retrain": {"epochs": epochs, "batch": 32, "lr": 0.01},
            }
        )
    )
    command = [
        sys.executable,
        "-m",
        "autoslim_cli",
        "retrain",
        "-r",
        str(recipe),
        "--width",
        "0.5",
        "--json",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (recipe / "model-width-0.5.metrics.jsonl").read_text().splitlines()]
    looks = [row for row in rows if "waiting" in row]
    steps = [after["step"] - before for before, after in zip([0, *(row["step"] for row in looks)], looks, strict=False)]
    seconds = [count * 32 / row["images_per_second"] for count, row in zip(steps, looks, strict=True)]
    return sum(t * row["waiting"] for t, row in zip(seconds, looks, strict=True)) / sum(seconds)


def scale(result: dict[str, Any]) -> None:
    """Print what it takes to feed GPUs with ImageNet at the measured rate: of one core, and of files of this size."""
    a_core = result["images_per_second"]["autoslim"] / result["workers"]
    mib = result["kib_a_file"] / 1024
    print(f"one core: {a_core:.0f} images/s; ImageNet at {result['kib_a_file']:.0f} KiB a file: ", end="")
    print(f"{IMAGENET * mib / 1024:.0f} GiB; one epoch decoded: {IMAGENET / a_core / 3600:.1f} core hours")
    print(
        "\n| GPUs | images/s of each | cores a GPU | MiB/s from storage | an epoch |\n| --- | --- | --- | --- | --- |"
    )
    for gpus, speed in itertools.product((1, 8, 64), (500, 1000, 2500)):
        total = gpus * speed
        minutes = IMAGENET / total / 60
        print(f"| {gpus} | {speed:,} | {speed / a_core:.1f} | {total * mib:,.0f} | {minutes:,.1f} min |")


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--batches", type=int, default=40, help="of 64 images, timed in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="2,500 files, short rounds: about a minute")
    parser.add_argument("--scale", action="store_true", help="print the tables of docs/scale.md, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.quick:
        options.images, options.batches = 2500, 15
    torch.set_num_threads(1)
    directory = HERE / f"images-{options.images}"
    if not (directory / "test").exists():
        generate(directory, options.images)
    files = list_images(directory, "train")
    size = statistics.mean((files.directory / name).stat().st_size for name in files.names[:512]) / 1024

    images, loader = ours(files, options.workers), torchvisions(directory, options.workers)
    rates: dict[str, list[float]] = {"autoslim": [], "torchvision": []}
    firsts: dict[str, list[float]] = {"autoslim": [], "torchvision": []}
    for number in range(options.rounds):
        for name, batches in (
            ("autoslim", partial(images.training, BATCH, 0, number)),
            ("torchvision", lambda: normalised(iter(loader))),
        ):
            speed, first = rate(batches, options.batches, options.workers)
            rates[name].append(speed)
            firsts[name].append(first)
    ratios = [a / b for a, b in zip(rates["autoslim"], rates["torchvision"], strict=True)]
    result = {
        "files": len(files.names),
        "kib_a_file": round(size, 1),
        "workers": options.workers,
        "loader_vs_torchvision": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "images_per_second": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "first_batch_seconds": {name: round(statistics.median(values), 2) for name, values in firsts.items()},
        "wait_share": round(wait_share(directory, options.workers, 2), 4),
        "worker_memory": memory_of_workers(files, options.workers, options.batches),
    }
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:22} {value}")
    if options.scale:
        scale(result)


if __name__ == "__main__":
    main()
