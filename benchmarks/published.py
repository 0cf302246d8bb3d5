"""Time the MobileNetV2 networks that AutoSlim's authors found beside plain widths of it, at 224x224 on this machine.

    python benchmarks/published.py [--threads N] [--json]

Batch 1, eager PyTorch and ONNX Runtime; medians over interleaved rounds. Half a minute on a CPU core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoslim_cli.cost.fvcore_count import fvcore_flops
from autoslim_cli.latency.engines import load
from autoslim_cli.latency.local_device import local_device
from autoslim_cli.latency.table import Engine
from autoslim_cli.latency.timing import time_interleaved
from autoslim_cli.models.trust import Trust
from autoslim_cli.stages.evaluate import untrained_model

FOUND = Path("recipes/imagenet-mobilenet-v2/published")
WIDTHS = (1.4, 1.0, 0.75)
INPUT = (3, 224, 224)
ROUNDS = 25


def networks() -> dict[str, nn.Module]:
    """Return the networks by name, untrained."""
    import torchvision

    found = {f"AutoSlim, {path.stem.removeprefix('autoslim-')}": path for path in sorted(FOUND.glob("*.json"))[::-1]}
    plain = {f"{width}x": torchvision.models.mobilenet_v2(width_mult=width).eval() for width in WIDTHS}
    return {**{name: untrained_model(path, Trust())[0] for name, path in found.items()}, **plain}


def measure(engine: Engine) -> list[dict[str, Any]]:
    """Time all networks by one engine, in turn."""
    cpu = torch.device("cpu")
    device, named = local_device(cpu, engine, "fp32", 1, True), networks()
    flops = {name: fvcore_flops(network, INPUT) for name, network in named.items()}
    runs = [load(network, [torch.rand(1, *INPUT)], device, cpu) for network in named.values()]
    times = time_interleaved(runs, cpu, ROUNDS)
    return [
        {"network": name, "engine": engine, "flops": flops[name], "ms": ms, "spread": spread}
        for name, (ms, spread) in zip(named, times, strict=True)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [*measure("eager"), *measure("onnxruntime")]
    if options.as_json:
        print(json.dumps({"threads": options.threads, "torch": torch.__version__, "networks": rows}))
        return
    for row in rows:
        print(f"{row['network']:16} {row['engine']:12} {row['flops'] / 1e6:6.1f}M FLOPs  {row['ms']:7.2f} ms")


if __name__ == "__main__":
    main()
