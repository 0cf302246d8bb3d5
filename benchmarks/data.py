"""How fast images come from files: beside torchvision's own loader, and while a network trains on them.

    python benchmarks/data.py [--images 20000] [--batches 40] [--rounds 5] [--workers 2] [--output FILE] [--json]
    python benchmarks/data.py --quick --json

JPEG files of 500x375 pixels are generated, of about the size and with names as long as ImageNet's, as many to a class;
the same files are packed into tar shards. Each image is decoded, a random part of it resized to 224x224, and the batch
normalised. All loaders have as many workers and take turns. Prints

- `loader_vs_torchvision`: images per second, ours over ImageFolder and DataLoader, the median of rounds; likewise
  `shards_vs_folder`, ours both; an epoch's start is in `first_batch_seconds`;
- `one_image_ms`: the CPU time that one image takes, and that of Pillow's decoder alone;
- `wait_share`: the share of a training's time in which it waited for images, its epochs' starts included;
- `start_seconds`: what every process does before its first image: it lists the files or indexes the shards, and reads
  their sizes to tell one set from another; from the page cache, where the files are since they were written;
- `worker_memory`: what each of 16 workers takes alone (MiB), with names of as many files as ImageNet has, after two
  batches and after many more; `names_mib`: what those names, classes and places take.

`--output` keeps it all, with each round's rates: `python scripts/scale.py` writes docs/scale.md of that.

Works in runs/data-benchmark, where the files stay.
"""

import argparse
import gc
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from autoslim_cli.data.folder import ImageFiles, Names
from autoslim_cli.data.opening import open_source
from autoslim_cli.data.sets import Images, all_images
from autoslim_cli.data.sources import FileSource, RandomPart
from autoslim_cli.machine import available_cores
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings
from recipes import processor

HERE = Path("runs/data-benchmark")
WIDTH, HEIGHT, SIDE, BATCH = 500, 375, 224, 64
IMAGENET = 1_281_167
CLASSES = 16
"""Of 20,000 files: 1,250 in each directory, where ImageNet has 1,281."""
A_SHARD = 1000
MEMORY_WORKERS = 16
"""As many as the ImageNet recipes ask for."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODEL = ModelSettings(name="any", input=(3, SIDE, SIDE), classes=CLASSES)
CPU = torch.device("cpu")


def generate(directory: Path, images: int, distinct: int = 256) -> None:
    """Write so many JPEG files, copies of a few hundred: as directory/folder, and in tar files as directory/shards."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(min(distinct, images)):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            (WIDTH, HEIGHT), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 22, (HEIGHT // 2 + 1, WIDTH // 2, 3)).repeat(2, 0).repeat(2, 1)[:HEIGHT]
        pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    for part, count in (("train", images), ("test", 20)):
        for begin in range(0, count, A_SHARD):
            numbers = range(begin, min(begin + A_SHARD, count))
            _write(directory, part, begin // A_SHARD, [(n % CLASSES, n, files[n % len(files)]) for n in numbers])


def _write(directory: Path, part: str, number: int, images: Sequence[tuple[int, int, bytes]]) -> None:
    """Write one shard, and the files in it as files of a folder; of each image the class, a number, and its bytes."""
    shard = directory / "shards" / f"{part}-{number:04}.tar"
    shard.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(shard, "w") as tar:
        for label, one, data in images:
            synset = f"n{1_440_764 + label:08}"
            path = directory / "folder" / part / synset / f"{synset}_{one:05}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            for suffix, content in (("jpg", data), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{synset}_{one:05}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def opened(kind: str, directory: Path, workers: int) -> Images:
    """Return the images as commands open them with a recipe for ImageNet: of `image-folder` or `image-shards`."""
    augment = AugmentSettings(crop="resized", flip=True)
    path = str(place_of(kind, directory).resolve())
    data = DataSettings(name=kind, path=path, holdout=1, mean=MEAN, std=STD, augment=augment, workers=workers, memory=0)
    return all_images(open_source("train", data, MODEL, 0, Path(), CPU), data, MODEL, CPU)


def place_of(kind: str, directory: Path) -> Path:
    """Return where the files of one kind lie."""
    return directory / kind.removeprefix("image-")


def torchvisions(directory: Path, workers: int) -> "DataLoader[Any]":
    """Return torchvision's own: ImageFolder and a DataLoader, pixels as uint8 as ours hands them over."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    folder = ImageFolder(str(place_of("image-folder", directory) / "train"), transform)
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


def compared(directory: Path, workers: int, rounds: int, batches: int) -> dict[str, dict[str, list[float]]]:
    """Return each loader's images per second and seconds until the first batch, of rounds in which they take turns."""
    folder, shards = (opened(f"image-{kind}", directory, workers) for kind in ("folder", "shards"))
    loader = torchvisions(directory, workers)
    figures: dict[str, dict[str, list[float]]] = {"rates": {}, "firsts": {}}
    for number in range(rounds):
        for name, begin in (
            ("autoslim", partial(folder.training, BATCH, 0, number)),
            ("torchvision", lambda: normalised(iter(loader))),
            ("shards", partial(shards.training, BATCH, 0, number)),
        ):
            speed, first = rate(begin, batches, workers)
            figures["rates"].setdefault(name, []).append(round(speed, 1))
            figures["firsts"].setdefault(name, []).append(round(first, 3))
    return figures


def time_of_one(directory: Path, images: int = 256) -> dict[str, float]:
    """Return the milliseconds of CPU time that an image takes, and those of Pillow's decoder alone: medians."""
    source = opened("image-folder", directory, 0).source
    assert isinstance(source, FileSource)
    assert isinstance(source.files, ImageFiles)
    times: dict[str, list[float]] = {"whole": [], "pillow": []}
    for index in range(min(images, len(source))):
        began = time.process_time()
        with Image.open(source.files.directory / source.files.names[index]) as image:
            image.load()
        decoded = time.process_time()
        source[index, RandomPart(index, AugmentSettings(crop="resized", flip=True), False)]
        times["pillow"].append(decoded - began)
        times["whole"].append(time.process_time() - decoded)
    return {name: round(1000 * statistics.median(values), 2) for name, values in times.items()}


def start(directory: Path) -> dict[str, dict[str, float]]:
    """Return the seconds that a process takes to list each kind's images, and to take a digest of what it found."""
    figures = {}
    for kind in ("image-folder", "image-shards"):
        began = time.perf_counter()
        images = opened(kind, directory, 0)
        listed = time.perf_counter()
        assert images.source.digest
        figures[kind] = {"list": round(listed - began, 3), "digest": round(time.perf_counter() - listed, 3)}
    return figures


def with_names_of_imagenet(files: ImageFiles) -> ImageFiles:
    """Return files whose names are as many as ImageNet's, over and over those that are there."""
    names = Names(itertools.islice(itertools.cycle(files.names), IMAGENET))
    return replace(files, names=names, labels=torch.arange(IMAGENET) % CLASSES)


def memory_of_workers(directory: Path, batches: int) -> dict[str, Any]:
    """Return the MiB that each of many workers takes alone, at first and later, and those of the names themselves.

    They are started whether there are cores for them or not, which a command would not do.
    """
    images = opened("image-folder", directory, 0)
    assert isinstance(images.source, FileSource)
    assert isinstance(images.source.files, ImageFiles)
    many = with_names_of_imagenet(images.source.files)
    assert isinstance(many.names, Names)
    names = (len(many.names.text) + many.names.ends.nbytes + many.labels.nbytes) / 2**20
    source = FileSource(many, images.source.shape, MEMORY_WORKERS)
    images = replace(images, source=source, indices=torch.arange(IMAGENET))
    figures: dict[str, Any] = {"workers": MEMORY_WORKERS, "batches": batches}
    before = _children()
    with warnings.catch_warnings(), mock.patch("autoslim_cli.data.workers.available_cores") as cores:
        warnings.filterwarnings("ignore", "This DataLoader will create")
        cores.return_value = MEMORY_WORKERS
        handed = images.training(BATCH, 0, 0)
        for what, count in (("first", 2), ("later", batches)):
            for _ in itertools.islice(handed, count):
                pass
            own = [_own_memory(child) for child in _children() - before]
            assert len(own) == MEMORY_WORKERS
            figures[what] = round(statistics.mean(own), 1)
    return {"worker_memory": figures, "names_mib": round(names, 1)}


def _children() -> set[str]:
    """Return the processes that this one has started and that go on."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


def _own_memory(process: str) -> float:
    """Return the MiB that a process shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def wait_share(directory: Path, workers: int, epochs: int) -> float:
    """Train a small network on some of the files by the real command; return the share of time spent waiting."""
    recipe = HERE / "recipe"
    shutil.rmtree(recipe, ignore_errors=True)
    recipe.mkdir(parents=True)
    (recipe / "recipe.yaml").write_text(
        json.dumps(
            {
                "format": "autoslim.recipe/1",
                "about": "a small network on generated JPEG files",
                "model": {"name": "torchvision/resnet18", "input": [3, SIDE, SIDE], "classes": CLASSES},
                "data": {
                    "name": "image-folder",
                    "path": os.path.relpath(place_of("image-folder", directory), recipe),
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
    waited = sum(t * row["waiting"] for t, row in zip(seconds, looks, strict=True))
    return float(waited / sum(seconds))


def measured(directory: Path, workers: int, rounds: int, batches: int) -> dict[str, Any]:
    """Measure all."""
    files, shards = (
        [path.stat().st_size / 1024 for path in directory.glob(pattern)]
        for pattern in ("folder/train/*/*.JPEG", "shards/train-*.tar")
    )
    starts = start(directory)
    loaders = compared(directory, workers, rounds, batches)
    gc.collect()  # ends their workers
    ratios = {
        name: [round(a / b, 3) for a, b in zip(loaders["rates"][name], loaders["rates"][other], strict=True)]
        for name, other in (("autoslim", "torchvision"), ("shards", "autoslim"))
    }
    return {
        "machine": {"processor": processor(), "cores": available_cores(), "torch": torch.__version__},
        "files": len(files),
        "kib_a_file": round(statistics.mean(files), 1),
        "kib_in_shards": round(sum(shards) / len(files), 1),
        "workers": workers,
        "loader_vs_torchvision": round(statistics.median(ratios["autoslim"]), 3),
        "ratios": ratios["autoslim"],
        "shards_vs_folder": round(statistics.median(ratios["shards"]), 3),
        "shards_ratios": ratios["shards"],
        "images_per_second": {name: round(statistics.median(rates), 1) for name, rates in loaders["rates"].items()},
        "rates": loaders["rates"],
        "first_batch_seconds": {name: round(statistics.median(all_), 2) for name, all_ in loaders["firsts"].items()},
        "one_image_ms": time_of_one(directory),
        "wait_share": round(wait_share(directory, workers, 2), 4),
        "start_seconds": starts,
        **memory_of_workers(directory, 2 * batches),
    }


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--batches", type=int, default=40, help="of 64 images, timed in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=available_cores(), help="a core each at most, as commands have")
    parser.add_argument("--quick", action="store_true", help="2,500 files, three short rounds: two minutes at most")
    parser.add_argument("--output", type=Path, help="write what was measured to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.quick:
        options.images, options.batches, options.rounds = 2500, 15, 3
    torch.set_num_threads(1)
    workers = min(options.workers, available_cores())
    directory = HERE / f"{options.images}-images"
    if not directory.exists():
        made = directory.with_name(f"{directory.name}.tmp")
        shutil.rmtree(made, ignore_errors=True)
        generate(made, options.images)
        made.rename(directory)
    result = measured(directory, workers, options.rounds, options.batches)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:22} {value}")


if __name__ == "__main__":
    main()
