"""What the peers' scripts share: the trained base network, its images, its FLOPs, and what is handed back.

Runs in the environment of a peer: needs torch, torchvision and safetensors, and autoslim for `load_model` alone.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from plan import config_text
from torch import Tensor, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass
class Work:
    """Count the multiply-adds of convolutions and linear layers in forward passes."""

    multiply_adds: int = 0

    def see(self, layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        """Add a layer's: one for each weight at each place where it is used. Bias is not counted."""
        if isinstance(layer, LAYERS) and not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            places = output.numel() // output.shape[-1 if isinstance(layer, nn.Linear) else 1]
            self.multiply_adds += places * layer.weight.numel()


@contextmanager
def counted() -> Iterator[Work]:
    """Count the forward passes of all networks."""
    work = Work()
    handle = nn.modules.module.register_module_forward_hook(work.see)
    try:
        yield work
    finally:
        handle.remove()


def flops(network: nn.Module, image: Tensor) -> int:
    """Return multiply-adds of convolutions and linear layers for one image (1, C, H, W)."""
    training = network.training
    if training:  # FastNAS calibrates BN whenever it is told to be in eval mode
        network.eval()
    with counted() as work, torch.no_grad():
        network(image)
    if training:
        network.train()
    return work.multiply_adds


def channels_of(network: nn.Module, units: list[dict[str, Any]]) -> dict[str, int]:
    """Return the count of every unit that is free; raise ValueError where the layers of a unit differ."""
    channels = {}
    for unit in units:
        if unit["pinned"] is not None:
            continue
        layers = [network.get_submodule(name) for name in unit["layers"]]
        counts = {layer.weight.shape[0] for layer in layers if isinstance(layer, LAYERS)}
        if len(counts) != 1:
            raise ValueError(f"the layers of {unit['name']} have {sorted(counts)} channels")
        channels[unit["name"]] = counts.pop()
    return channels


def options(about: str | None, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """Parse what the benchmark hands to a peer."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--base", type=Path, required=True, help="model-*.safetensors of the trained base network")
    parser.add_argument("--units", type=Path, required=True, help="what `autoslim units --json` says")
    parser.add_argument("--flops", type=int, nargs="+", required=True, help="budgets in multiply-adds, largest first")
    parser.add_argument("--divisor", type=int, required=True, help="counts are multiples of this")
    parser.add_argument("--train", type=Path, required=True, help="image folder: images that the base was trained on")
    parser.add_argument("--held", type=Path, required=True, help="image folder: images that it never saw")
    parser.add_argument("--mean", type=float, nargs=3, required=True)
    parser.add_argument("--std", type=float, nargs=3, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="directory for arch-FLOPS.json, weights-FLOPS, facts")
    for name, settings in more:
        parser.add_argument(name, **settings)
    return parser.parse_args()


def images(folder: Path, given: argparse.Namespace, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, H, W), normalised, and labels; `most` draws as many by seed."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    change = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=given.mean, std=given.std)]
    )
    found = ImageFolder(str(folder), transform=change)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(given.seed))[:most].tolist()
    pairs = [found[number] for number in order]
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def open_base(given: argparse.Namespace) -> tuple[nn.Module, list[dict[str, Any]], dict[str, Any], Tensor]:
    """Return the trained base network, its units, its model section, and one image to trace it with."""
    from autoslim_cli import load_model

    network, _ = load_model(given.base)
    said = json.loads(given.units.read_text())
    return network, said["units"], said["model"], torch.zeros(1, *said["model"]["input"])


def hand_back(
    network: nn.Module, units: list[dict[str, Any]], model: dict[str, Any], given: argparse.Namespace, budget: int
) -> dict[str, Any]:
    """Write the channels and the weights of a pruned network; return its facts."""
    from safetensors.torch import save_file

    given.out.mkdir(parents=True, exist_ok=True)
    channels = channels_of(network, units)
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, given.out / f"weights-{budget}.safetensors")
    (given.out / f"arch-{budget}.json").write_text(config_text(model, channels, given.out.name))
    spent = flops(network, torch.zeros(1, *model["input"]))
    return {"budget": budget, "flops": spent, "fill": spent / budget, "channels": channels}


@dataclass
class Clock:
    """Time a peer."""

    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Return the seconds since it began."""
        return round(time.perf_counter() - self.began, 2)


def say(found: list[dict[str, Any]], **facts: Any) -> None:
    """Write facts.json's content to stdout, as the last line."""
    sys.stdout.flush()
    print(json.dumps({"found": found, **facts}), flush=True)
