"""What training costs beside what it computes: a sandwich step, and a plain training beside torchvision's loop.

    python benchmarks/train.py [--networks mobilenet_v2 resnet18] [--rounds 7] [--device cpu] [--json]
    python benchmarks/train.py --quick --json
    python benchmarks/train.py --checkpointing

`sandwich_overhead`: the time of a step of the sandwich rule (forward and backward of the largest, two random and the
smallest sub-network, with inplace distillation) over that of four plain networks that were cut out at the same channels
and do the same. They take turns at going first, after one step of the plain ones that is not counted: whoever computes
with new shapes first waits for the device's library to prepare them, and the other would not. 1.0 would be no cost at
all for keeping many networks in one. `new_channels` is what that preparation costs, which any network at channels that
were not seen before pays: the time of the step that is not counted over that of the plain networks' next.

`plain_vs_reference`: images per second of `autoslim retrain` over those of the loop that torchvision's reference
trainings have (ImageFolder, transforms in workers, SGD, loss and accuracies at every step), on the same network, the
same JPEG files and as many workers; each in a process of its own, in turns.

`--checkpointing` measures something else: the time of a plain network's step with `activation_checkpointing` over that
of one without (on a CPU the process's own time), and the MiB that both take in closed form.

One thread a process, 32x32 images. Works in runs/train-benchmark.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoslim_cli.cost.closed_form import flops
from autoslim_cli.machine import keep_freed_memory
from autoslim_cli.network.rebuild import fresh, on_device
from autoslim_cli.network.table import Channels
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import RetrainSettings, SupernetSettings, TrainSettings
from autoslim_cli.slimming.pointwise import without_strided_pointwise
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.stages.retrain import learning
from autoslim_cli.training.checkpointing import with_memory
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.sandwich import draw_subnetworks, run_channels, sandwich_step
from autoslim_cli.training.tasks import classification

TASK = classification(10)
HERE = Path("runs/train-benchmark")
SIDE, BATCH, WORKERS = 32, 128, 1
MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes, the device's work included."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def together(supernet: Supernet, drawn: Sequence[Channels], images: Tensor, labels: Tensor) -> None:
    """Add the gradients of a sandwich step."""
    first, *others = drawn
    supernet.zero_gradients()
    sandwich_step(run_channels(supernet), images, labels, first, others, task=TASK, distill=True)


def one_by_one(networks: list[nn.Module], images: Tensor, labels: Tensor) -> None:
    """Add the same gradients to networks of their own."""
    for network in networks:
        network.zero_grad()
    first, *others = networks
    outputs = first(images)
    TASK.learned(outputs, labels).backward()  # type: ignore[no-untyped-call]
    target = TASK.target(outputs)
    for network in others:
        TASK.distilled(network(images), target).backward()  # type: ignore[no-untyped-call]


def sandwich_overhead(name: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Return the seconds of a sandwich step and of plain networks at the same channels, and ratios: medians, all."""
    import torchvision

    torch.manual_seed(0)
    reading = read(torchvision.models.get_model(name, num_classes=10), (3, SIDE, SIDE))
    space = Space.of(reading.table, width=1.5, min_width=0.15, groups=12, divisor=8)
    body = on_device(fresh(reading.module, reading.table, space.largest), device)
    supernet, settings = Supernet(body, reading, space.largest), SupernetSettings()
    supernet.train()
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,), device=device)
    times: dict[str, list[float]] = {"sandwich": [], "plain": [], "unprepared": []}
    for number in range(rounds + 1):
        drawn = draw_subnetworks(space, settings, partial(flops, reading.table), random.Random(number))
        plain = [on_device(supernet.extract(channels), device).train() for channels in drawn]
        of_sandwich = ("sandwich", partial(together, supernet, drawn), [supernet.body])
        of_plain = ("plain", partial(one_by_one, plain), plain)
        turns = (of_sandwich, of_plain) if number % 2 else (of_plain, of_sandwich)
        for what, call, networks in (("unprepared", *of_plain[1:]), *turns):
            with nullcontext() if device.type == "cuda" else without_strided_pointwise(nn.ModuleList(networks)):
                times[what].append(seconds_of(partial(call, images, labels), device))
    # The first round warms up.
    times = {what: values[1:] for what, values in times.items()}
    ratios = {
        "ratio": [one / other for one, other in zip(times["sandwich"], times["plain"], strict=True)],
        "new_channels": [one / other for one, other in zip(times["unprepared"], times["plain"], strict=True)],
    }
    return (
        {what: round(statistics.median(values), 4) for what, values in times.items()}
        | {what: round(statistics.median(values), 3) for what, values in ratios.items()}
        | {"ratios": [round(ratio, 3) for ratio in ratios["ratio"]]}
    )


def checkpointing_overhead(name: str, rounds: int, device: torch.device) -> dict[str, float]:
    """Return the MiB of a plain network's step without and with checkpointing, and the median ratio of their times."""
    import torchvision

    torch.manual_seed(0)
    reading = read(torchvision.models.get_model(name, num_classes=10), (3, SIDE, SIDE))
    network = on_device(reading.module, device).train()
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,), device=device)
    settings = [TrainSettings(epochs=1, activation_checkpointing=lean) for lean in (False, True)]
    step = learning(network, TASK, RetrainSettings(epochs=1), None)
    steps, needs = zip(*(with_memory(step, network, reading, one) for one in settings), strict=True)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    ratios = []
    for _ in range(rounds + 1):
        times = []
        for one in steps:
            began = clock()
            seconds_of(partial(one, images, labels, Pass()), device)
            times.append(clock() - began)
        ratios.append(times[1] / times[0])
    # The first round warms up.
    plain, lean = (need(reading.table.base, BATCH, one) / 2**20 for need, one in zip(needs, settings, strict=True))
    return {"plain": round(plain, 1), "lean": round(lean, 1), "time": round(statistics.median(ratios[1:]), 3)}


def make_images(directory: Path, count: int) -> None:
    """Write JPEG files of ten classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, some in (("train", count), ("test", BATCH)):
        for number in range(some):
            path = directory / part / str(number % 10) / f"{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path, "JPEG", quality=90)


def ours(directory: Path, name: str, epochs: int) -> float:
    """Return images per second of `autoslim retrain` after its first epoch, as its metrics say."""
    recipe = HERE / "recipe"
    recipe.mkdir(parents=True, exist_ok=True)
    training = {"epochs": epochs, "batch": BATCH, "lr": 0.01}
    (recipe / "recipe.yaml").write_text(
        json.dumps(
            {
                "format": "autoslim.recipe/1",
                "about": "random pixels",
                "model": {"name": f"torchvision/{name}", "input": [3, SIDE, SIDE], "classes": 10},
                "data": {
                    "name": "image-folder",
                    "path": os.path.relpath(directory, recipe),
                    "holdout": 8,
                    "mean": MEAN,
                    "std": STD,
                    "workers": WORKERS,
                    "memory": 0,
                    "augment": {"crop": "pad", "padding": 4, "flip": True},
                },
                "train": training,
                "retrain": training,
            }
        )
    )
    command = [sys.executable, "-m", "autoslim_cli", "retrain", "-r", str(recipe), "--width", "1.0", "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (recipe / "model-width-1.metrics.jsonl").read_text().splitlines()]
    rates: list[float] = [row["images_per_second"] for row in rows if "images_per_second" in row and row["epoch"] > 1]
    return statistics.median(rates)


def reference(directory: Path, name: str, epochs: int, device: torch.device) -> float:
    """Return images per second of a loop as torchvision's references have it, after its first epoch."""
    import torchvision
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    torch.manual_seed(0)
    varied = [v2.RandomCrop(SIDE, padding=4), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    transform = v2.Compose([*varied, v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD)])
    folder = torchvision.datasets.ImageFolder(str(directory / "train"), transform)
    loader = DataLoader(
        folder, BATCH, shuffle=True, num_workers=WORKERS, pin_memory=device.type == "cuda", drop_last=True
    )
    network = torchvision.models.get_model(name, num_classes=10).to(device, memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True)
    network.train()
    rates = []
    for epoch in range(epochs):
        began, seen = time.perf_counter(), 0
        for images, labels in loader:
            images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)  # noqa: PLW2901
            outputs = network(images)
            loss = criterion(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            top = outputs.topk(5).indices == labels.unsqueeze(1)
            _ = loss.item(), top[:, 0].float().mean().item(), top.any(1).float().mean().item()
            seen += len(labels)
        if epoch:
            rates.append(seen / (time.perf_counter() - began))
    return statistics.median(rates)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "resnet18"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--loops", type=int, default=3, help="turns of both loops")
    parser.add_argument("--images", type=int, default=2568)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a smaller network in the loops")
    parser.add_argument("--checkpointing", action="store_true", help="measure activation checkpointing alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--reference", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if not options.reference:  # that loop is another's, whose processes do nothing of the kind
        keep_freed_memory()  # as every command does
    if options.checkpointing:
        rows = {name: checkpointing_overhead(name, options.rounds, options.device) for name in options.networks}
        print(json.dumps(rows) if options.json else "\n".join(f"{name:20} {row}" for name, row in rows.items()))
        return
    directory, epochs, looped = HERE / f"images-{options.images}", 3, "resnet18"
    if options.reference:
        print(reference(directory, options.reference, epochs, options.device))
        return
    if options.quick:
        options.rounds, options.loops, looped = 3, 2, "mobilenet_v2"
    if not (directory / "test").exists():
        make_images(directory, options.images)
    result: dict[str, Any] = {"device": str(options.device), "batch": BATCH, "sandwich": {}, "loops": {}}
    for name in options.networks:
        result["sandwich"][name] = sandwich_overhead(name, options.rounds, options.device)
    rates: dict[str, list[float]] = {"autoslim": [], "reference": []}
    again = [sys.executable, __file__, "--reference", looped, "--images", str(options.images)]
    for _ in range(options.loops):
        rates["autoslim"].append(ours(directory, looped, epochs))
        said = subprocess.run([*again, "--device", str(options.device)], check=True, stdout=subprocess.PIPE, text=True)
        rates["reference"].append(float(said.stdout))
    result["loops"] = {"network": looped, **{what: round(statistics.median(one), 1) for what, one in rates.items()}}
    result["sandwich_overhead"] = max(row["ratio"] for row in result["sandwich"].values())
    ratios = [one / other for one, other in zip(rates["autoslim"], rates["reference"], strict=True)]
    result["plain_vs_reference"] = round(statistics.median(ratios), 3)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
