"""Read every classification network of torchvision and a list of timm's, and check what was read.

For each network, `read` means: the graph and, at full width, the supernet are the plain network, at random channels it
is the extracted network (largest difference of the logits, relative to the largest logit, under 1e-5), and the closed
forms of FLOPs and parameters are fvcore's and the network's own at these channels. `refused` gives the operation that
stopped it.
`wrong` and `error` are bugs.

    python benchmarks/sweep.py [--only PATTERN] [--json] [--markdown]

timm's networks need `pip install '.[timm]'`. All of them take about five minutes on two CPU cores.
"""

import argparse
import copy
import fnmatch
import gc
import json
import random
import re
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import fx, nn

from autoslim_cli.cost import closed_form
from autoslim_cli.cost.fvcore_count import fvcore_flops
from autoslim_cli.errors import UsageError
from autoslim_cli.machine import keep_freed_memory
from autoslim_cli.models.zoo import build
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import ModelSettings
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet

TIMM = (
    *("adv_inception_v3", "cs3darknet_m", "cspresnet50", "cspresnext50", "darknet53", "densenet121", "dla34", "dla60x"),
    *("dpn68b", "edgenext_xx_small", "efficientnet_b0", "efficientnet_es", "efficientnetv2_rw_t", "ese_vovnet19b_dw"),
    *("fbnetc_100", "fbnetv3_b", "ghostnet_100", "ghostnetv2_100", "hardcorenas_a", "hgnet_tiny", "hgnetv2_b0"),
    *("hrnet_w18_small", "inception_next_tiny", "inception_v4", "lcnet_100", "mixnet_s", "mobilenetv3_large_100"),
    *("mobilenetv3_small_100", "mobilenetv4_conv_small", "mobilenetv4_conv_medium", "mobileone_s0", "mnasnet_small"),
    *("convnext_atto", "convnext_tiny", "convnextv2_atto", "nf_resnet26", "nfnet_l0", "dm_nfnet_f0", "regnetx_004"),
    *("regnety_004", "regnetz_b16", "repghostnet_050", "repvgg_a0", "repvit_m0_9", "res2net50_26w_4s", "resnest14d"),
    *("resnest50d_1s4x24d", "resnet18", "resnet50d", "resnetblur50", "resnetv2_50", "resnext50_32x4d", "rexnet_100"),
    *("semnasnet_100", "seresnet50", "skresnet18", "spnasnet_100", "starnet_s1", "tf_efficientnet_b0", "tinynet_e"),
    *(
        "tresnet_m",
        "vgg11_bn",
        "vovnet39a",
        "wide_resnet50_2",
        "xception41",
        "selecsls42b",
        "gernet_s",
        "eca_resnet33ts",
    ),
    *("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "ghostnetv3_100"),
)
SIDES = (64, 96, 224, 299)
"""Image sides to try: the first one that the network runs on."""
TOLERANCE = 1e-5


@dataclass
class Outcome:
    """What became of one network."""

    name: str
    status: str
    side: int = 0
    units: int = 0
    pinned: int = 0
    pins: tuple[str, ...] = ()
    reason: str = ""
    difference: float = 0.0
    flops_agree: bool = False
    seconds: float = 0.0


def names() -> list[str]:
    """Return every network of the sweep that is installed here."""
    import torchvision

    found = [f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models)]
    try:
        import timm
    except ImportError:
        print("timm is not installed: its networks are left out", file=sys.stderr)
        return found
    return found + [f"timm/{name}" for name in TIMM if timm.is_model(name)]


def check(name: str) -> Outcome:
    """Read one network and check the two equalities and the counts."""
    started = time.monotonic()
    try:
        outcome = _check(name)
    except UsageError as error:
        reason = re.sub(r" \([^()]*\.py:\d+\)", "", str(error))  # where the library is installed
        outcome = Outcome(name, "refused", reason=reason)
    except Exception:
        outcome = Outcome(name, "error", reason=traceback.format_exc(limit=-3))
    outcome.seconds = round(time.monotonic() - started, 1)
    gc.collect()
    return outcome


def _check(name: str) -> Outcome:
    network, reading, side = _read(name)
    table = reading.table
    pinned = [unit for unit in table.units if unit.pinned and unit.pinned != "the network's output"]
    outcome = Outcome(name, "read", side, len(table.units), len(pinned), table.notes)
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        expected = network.eval()(images)
    graph = fx.GraphModule(network, reading.graph)
    supernet = Supernet(copy.deepcopy(network), reading, table.base).eval()
    outcome.difference = max(_difference(graph, expected, images), _difference(supernet, expected, images))
    space = Space.of(table, width=1.0, min_width=0.25, groups=8, divisor=1)
    outcome.flops_agree = True
    for seed in (1, 2):
        channels = space.random(random.Random(seed))
        extracted = supernet.extract(channels).eval()
        supernet.activate(channels)
        with torch.inference_mode():
            expected = extracted(images)
        outcome.difference = max(outcome.difference, _difference(supernet, expected, images))
        held = sum(p.numel() for p in extracted.parameters())
        outcome.flops_agree &= closed_form.flops(table, channels) == fvcore_flops(extracted, (3, side, side))
        outcome.flops_agree &= closed_form.params(table, channels) == held
    if not (outcome.difference < TOLERANCE and outcome.flops_agree):
        outcome.status = "wrong"
    return outcome


def _read(name: str) -> tuple[nn.Module, Reading, int]:
    """Build a network with values that show a wrong slice, and read it at the first image size that it runs on."""
    for side in SIDES:
        torch.manual_seed(0)
        try:
            network = build(ModelSettings(name=name, input=(3, side, side), classes=10, args=_arguments(name)))
            _randomise(network)
            return network, read(network, (3, side, side)), side
        except UsageError as error:
            if "does not run on an image" not in str(error) or side == SIDES[-1]:
                raise
    raise AssertionError(name)


def _arguments(name: str) -> dict[str, Any]:
    """Leave out what no forward pass in eval mode runs."""
    if name in ("torchvision/googlenet", "torchvision/inception_v3"):
        return {"aux_logits": False, "init_weights": False}
    return {}


@torch.no_grad()
def _randomise(network: nn.Module) -> None:
    """Give every channel its own scale, shift and statistics: at their initial values a wrong slice would not show."""
    for parameter in network.parameters():
        if parameter.numel() == max(parameter.shape, default=1):
            parameter.uniform_(0.5, 1.0)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)


@torch.inference_mode()
def _difference(supernet: nn.Module, expected: torch.Tensor, images: torch.Tensor) -> float:
    """Return the largest difference from the expected logits, relative to the largest of these."""
    return float((supernet(images) - expected).abs().max() / expected.abs().max())


def line(outcome: Outcome, markdown: bool) -> str:
    """Write an outcome for people."""
    what = outcome.reason.strip().splitlines()[-1] if outcome.reason else "; ".join(outcome.pins)
    if markdown:
        read_at = f"{outcome.units} | {outcome.pinned} | {outcome.difference:.0e}" if outcome.units else " |  | "
        return f"| `{outcome.name}` | {outcome.status} | {read_at} | {what} |"
    return (
        f"{outcome.name:42} {outcome.status:8} units {outcome.units:4} pinned {outcome.pinned:3} "
        f"difference {outcome.difference:.0e} {outcome.seconds:5.1f} s  {what[:150]}"
    )


def main() -> None:
    """Sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="a pattern of names, as 'timm/*net*'")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/networks.md")
    options = parser.parse_args()
    keep_freed_memory()
    progress = sys.stderr if options.json or options.markdown else sys.stdout
    outcomes = []
    for name in fnmatch.filter(names(), options.only):
        outcomes.append(check(name))
        print(line(outcomes[-1], False), file=progress, flush=True)
    if options.json:
        print(json.dumps({"networks": [asdict(outcome) for outcome in outcomes]}))
    if options.markdown:
        print("| network | outcome | units | pinned | difference | why pinned, why refused |")
        print("| --- | --- | --- | --- | --- | --- |")
        print("\n".join(line(outcome, True) for outcome in outcomes))
    counts = {status: sum(o.status == status for o in outcomes) for status in ("read", "refused", "wrong", "error")}
    print(", ".join(f"{count} {status}" for status, count in counts.items()), file=sys.stderr)
    sys.exit(1 if counts["wrong"] or counts["error"] else 0)


if __name__ == "__main__":
    main()
