"""Time searches: every candidate from the image (naive), forked at the cut, and the default strategy, in one process.

    python benchmarks/search.py [--quick] [--json]

On each network, steps along a search are timed in turn, naive and forked, on the same images with the same supernet,
beside a plain forward pass (eval mode, the base network's code) of the same sub-network; medians over repeats. Then the
default strategy runs a whole search to 50 % of the base network's FLOPs, first-time costs included. What the naive
search would take for that is extrapolated from timed naive steps along the same path.

`--quick` (under 3 minutes on two CPU cores) does MobileNetV2 at 32x32, briefly trained on the embedded digits; without
it, MobileNetV2 and ResNet-50 at 224x224 follow, whose untrained supernets only time steps.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch

from autoslim_cli.cost.budget import Bound, Budget
from autoslim_cli.cost.closed_form import flops
from autoslim_cli.data.opening import open_source
from autoslim_cli.data.sets import Images, all_images
from autoslim_cli.machine import keep_freed_memory
from autoslim_cli.network.rebuild import fresh, on_device
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, SearchSettings, SupernetSettings
from autoslim_cli.searching import STRATEGIES, Answer, Problem, Step
from autoslim_cli.searching.problem import SCREEN
from autoslim_cli.seeds import python_random
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.pointwise import without_strided_pointwise
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.training.sandwich import draw_subnetworks, run_channels, sandwich_step
from autoslim_cli.training.score import Score
from autoslim_cli.training.tasks import classification

TASK = classification(10)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
QUICK = {"mobilenet_v2 at 32": ("mobilenet_v2", 32, 256)}
FULL = {
    "mobilenet_v2 at 32": ("mobilenet_v2", 32, 500),
    "mobilenet_v2 at 224": ("mobilenet_v2", 224, 16),
    "resnet50 at 224": ("resnet50", 224, 4),
}


def wait() -> None:
    """Wait for the work in flight."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    wait()
    started = time.perf_counter()
    result = run()
    wait()
    return time.perf_counter() - started, result


class Bench:
    """A supernet, some labelled images, and the ways to score candidates on them."""

    def __init__(self, name: str, side: int, images: int) -> None:
        import torchvision

        torch.manual_seed(0)
        network = torchvision.models.get_model(name, num_classes=10)
        self.shape = (3, side, side)
        self.reading = read(network, self.shape)
        self.space = Space.of(self.reading.table, width=1.5, min_width=0.15, groups=10, divisor=8)
        body = on_device(fresh(self.reading.module, self.reading.table, self.space.largest), DEVICE)
        self.supernet = Supernet(body, self.reading, self.space.largest)
        self.digits = self._digits(name)
        (batch,) = self.digits.take(images).evaluation(images)
        assert all(isinstance(tensor, torch.Tensor) for tensor in batch)
        self.images, self.labels = cast("tuple[torch.Tensor, torch.Tensor]", batch)
        self.evaluator = ForkedEvaluator(self.supernet)

    def _digits(self, name: str) -> Images:
        """Return the embedded digits, at the network's size."""
        data = DataSettings(name="digits", holdout=1)
        model = ModelSettings(name=f"torchvision/{name}", input=self.shape, classes=10)
        torch.manual_seed(0)
        images = all_images(open_source("train", data, model, 0, None, DEVICE), data, model, DEVICE)  # type: ignore[arg-type]
        return images.select(images.indices[torch.randperm(len(images))])

    def train(self, steps: int, rate: float = 0.2) -> None:
        """Train the supernet a little, by the sandwich rule: harms then differ as they do in use."""
        settings = SupernetSettings()
        optimizer = torch.optim.SGD(self.supernet.body.parameters(), lr=rate, momentum=0.9, nesterov=True)
        self.supernet.train()
        done = 0
        with without_strided_pointwise(self.supernet.body):
            while done < steps:
                for images, labels in self.digits.training(64, 0, done):
                    self.supernet.zero_gradients()
                    first, *others = draw_subnetworks(self.space, settings, self.flops, python_random(done))
                    sandwich_step(run_channels(self.supernet), images, labels, first, others, task=TASK, distill=True)
                    for group in optimizer.param_groups:
                        group["lr"] = rate * min(1.0, (done + 1) / 20) * (1 - done / steps)
                    torch.nn.utils.clip_grad_norm_(self.supernet.body.parameters(), 5.0)
                    optimizer.step()
                    done += 1
                    if done >= steps:
                        break
        self.supernet.eval()

    def flops(self, channels: Mapping[str, int]) -> int:
        """Return multiply-adds."""
        return flops(self.reading.table, channels)

    def score_of(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the loss of some logits, on the device."""
        assert TASK.losses is not None
        return TASK.losses(logits, self.labels[: len(logits)]).double().mean()

    def naive(self, channels: dict[str, int], candidates: list[Any]) -> dict[Any, float]:
        """Score every candidate by a forward pass of its own."""
        losses = {c: self.score_of(self.evaluator.logits(self.images, c.applied(channels))) for c in candidates}
        return {c: float(loss) for c, loss in losses.items()}

    def forked(self, channels: dict[str, int], candidates: list[Any], share: float = 1.0) -> dict[Any, float]:
        """Score every candidate by a fork of one forward pass, on all or the first of the images."""
        images = self.images[: round(share * len(self.images))]
        forks = self.evaluator.forked_logits(images, channels, candidates)
        losses = {c: self.score_of(logits) for c, logits in forks}
        return {c: float(loss) for c, loss in losses.items()}

    def forward_rate(self, channels: dict[str, int]) -> float:
        """Return the multiply-adds per second of the extracted network in eval mode."""
        self.supernet.activate(channels)
        plain = self.supernet.extract(channels).eval()
        with torch.inference_mode():
            seconds, _ = timed(lambda: plain(self.images).sum().item())
        return self.flops(channels) * len(self.images) / seconds

    def problem(self, settings: SearchSettings) -> Problem:
        """Return the search to half of the base network's FLOPs."""
        budget = Budget((Bound("flops", "50%", self.flops(self.reading.table.base) // 2),))
        return Problem(self.space, lambda c: {"flops": self.flops(c), "params": 0}, (budget,), settings)

    def whole_search(self, settings: SearchSettings) -> dict[str, Any]:
        """Run a strategy to the end; return its path, and what it took."""
        asked: dict[Any, Score] = {}

        def ask(channels: Any, candidates: Any, draw: int) -> dict[Any, Score]:
            screening = draw == SCREEN
            keys = {c: (screening, *c.applied(channels).values()) for c in candidates}
            missing = [c for c in candidates if keys[c] not in asked]
            share = settings.screen if screening else 1.0
            for candidate, loss in self.forked(channels, missing, share).items() if missing else ():
                asked[keys[candidate]] = Score(loss, 0.0)
            return {c: asked[keys[c]] for c in candidates}

        def run() -> list[Any]:
            return list(STRATEGIES[settings.strategy](self.problem(settings), ask))

        before = self.evaluator.multiply_adds
        seconds, events = timed(run)
        path = [
            self.space.largest,
            *(channels for event in events if isinstance(event, Step) for channels in groups(event)),
        ]
        work = self.evaluator.multiply_adds - before
        (answer,) = (event for event in events if isinstance(event, Answer))
        if not math.isfinite(answer.score.loss):
            raise RuntimeError("the supernet diverged: nothing was compared")
        return {
            "seconds": seconds,
            "steps": sum(isinstance(event, Step) for event in events),
            "evaluations": len(asked),
            "path": path,
            "rate": work / seconds,
            "loss": answer.score.loss,
        }


def measure(name: str, settings: tuple[str, int, int], *, steps: int, repeats: int, train: int) -> dict[str, Any]:
    """Time steps and a whole search on one network."""
    bench = Bench(*settings)
    if train:
        bench.train(train)
    # 1. The default strategy's whole search, and the path that it takes.
    if train:
        default = bench.whole_search(SearchSettings())
        path = default.pop("path")[:-1]
    else:  # harms of an untrained supernet say nothing: its units are slimmed in turn
        default, path = {}, evenly(bench.problem(SearchSettings()))
    # 2. Steps along that path, naive and forked in turn, beside a plain forward pass.
    places = sorted({round(n * (len(path) - 1) / max(steps - 1, 1)) for n in range(steps)})
    problem, rows, same = bench.problem(SearchSettings()), [], []
    for place in places:
        channels = path[place]
        candidates = problem.slimmer(channels)
        bench.forked(channels, candidates)  # warm-up at these shapes
        bench.naive(channels, candidates[-1:])
        bench.forward_rate(channels)
        whole = sum(bench.flops(c.applied(channels)) for c in candidates) * len(bench.images)
        times: dict[str, list[float]] = {"naive": [], "forked": [], "rate": [], "forward": [], "work_ratio": []}
        for _ in range(repeats):
            seconds, naive = timed(partial(bench.naive, channels, candidates))
            times["naive"].append(seconds)
            times["forward"].append(bench.forward_rate(channels))
            before = bench.evaluator.multiply_adds
            seconds, forked = timed(partial(bench.forked, channels, candidates))
            times["forked"].append(seconds)
            work = bench.evaluator.multiply_adds - before
            times["rate"].append(work / seconds)
            times["work_ratio"].append(whole / work)
            times["forward"].append(bench.forward_rate(channels))
            same.append(min(naive, key=naive.__getitem__) == min(forked, key=forked.__getitem__))
        medians = {key: statistics.median(values) for key, values in times.items()}
        rows.append({"step": place + 1, "candidates": len(candidates), **medians})
    # 3. What the naive search would take along the path: its steps' times, interpolated.
    naive_seconds = interpolated([(row["step"], row["naive"]) for row in rows], len(path))
    forked_seconds = interpolated([(row["step"], row["forked"]) for row in rows], len(path))
    return {
        "network": name,
        "images": len(bench.images),
        "units": sum(len(unit.counts) > 1 for unit in bench.space.units.values()),
        "steps": len(path),
        "timed_steps": rows,
        "naive_seconds": naive_seconds,
        "forked_seconds": forked_seconds,
        "default": default,
        "forked_vs_naive": statistics.median(row["naive"] / row["forked"] for row in rows),
        "default_vs_naive": naive_seconds / default["seconds"] if train else None,
        "same_choices": all(same),
        "work_ratio": statistics.median(row["work_ratio"] for row in rows),
        "rate_vs_forward": statistics.median(row["rate"] / row["forward"] for row in rows),
    }


def groups(step: Step) -> list[dict[str, int]]:
    """Return the channels along a step, one unit at a time: what a search takes that slims one by one."""
    channels = {**step.channels, **{unit: before for unit, before, _ in step.changes}}
    path = []
    for unit, _, after in step.changes:
        channels = {**channels, unit: after}
        path.append(channels)
    return path


def evenly(problem: Problem) -> list[dict[str, int]]:
    """Return the channels of a search that takes every step from the unit that lost least so far."""
    path = [problem.space.largest]
    while not problem.fits(problem.budgets[-1], path[-1]):
        candidates = problem.slimmer(path[-1])
        widest = max(candidates, key=lambda c: path[-1][c.units[0]] / problem.space.units[c.units[0]].largest)
        path.append(widest.applied(path[-1]))
    return path[:-1]


def interpolated(points: Sequence[tuple[float, float]], steps: int) -> float:
    """Return the sum over all steps of what was timed at some."""
    total = 0.0
    for step in range(1, steps + 1):
        right = next((p for p in points if p[0] >= step), points[-1])
        left = next((p for p in reversed(points) if p[0] <= step), points[0])
        share = (step - left[0]) / (right[0] - left[0]) if right[0] > left[0] else 0.0
        total += left[1] + share * (right[1] - left[1])
    return total


def machine() -> dict[str, Any]:
    """Name what the times belong to."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            processor = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else processor
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    keep_freed_memory()
    results = []
    for name, settings in (QUICK if options.quick else FULL).items():
        small = settings[1] == 32
        steps, repeats = (3, 1) if options.quick or not small else (5, 3)
        train = 0 if not small else 150 if options.quick else 400
        results.append(measure(name, settings, steps=steps, repeats=repeats, train=train))
    keys = ("forked_vs_naive", "default_vs_naive", "same_choices", "rate_vs_forward")
    if options.as_json:
        print(json.dumps({"machine": machine(), **{key: results[0][key] for key in keys}, "networks": results}))
        return
    print(" ".join(f"{key}={value}" for key, value in machine().items()))
    for result in results:
        print(f"{result['network']}, {result['images']} images, {result['units']} units, {result['steps']} steps")
        for row in result["timed_steps"]:
            print(
                f"  step {row['step']:3}: {row['candidates']} candidates, naive {row['naive']:.2f} s, forked "
                f"{row['forked']:.2f} s for 1/{row['work_ratio']:.2f} of the multiply-adds; forked "
                f"{row['rate'] / 1e9:.1f}, plain forward {row['forward'] / 1e9:.1f} G multiply-adds/s"
            )
        print(f"  whole search: naive {result['naive_seconds']:.0f} s, forked exact {result['forked_seconds']:.0f} s")
        if result["default"]:
            default = result["default"]
            print(f"  default: {default['seconds']:.0f} s with {default['evaluations']} evaluations")
        print("  " + "  ".join(f"{key} {result[key]:.3g}" for key in keys if result[key] is not None))


if __name__ == "__main__":
    main()
