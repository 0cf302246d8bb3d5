"""Cut sub-networks out of the supernet and give each its own BN statistics (US-Nets, section 3.3)."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoslim_cli.errors import UsageError
from autoslim_cli.files.checkpoint import MODEL
from autoslim_cli.files.provenance import current_facts
from autoslim_cli.stages.train_supernet import calibration_batches
from autoslim_cli.stages.workshop import SUPERNET_FILE, Workshop, width_name
from autoslim_cli.training.measure import calibrate, evaluate
from autoslim_cli.training.task import classification

MOST_WIDTHS = 1000


def parse_widths(text: str) -> list[float]:
    """Read widths: `0.5`, `0.25,0.5,1.0`, or `start:stop:step` with both ends included."""
    if not re.fullmatch(r"[\d.,:]+", text):
        raise UsageError(f"--widths: {text!r} is not a list of widths: write 0.25,0.5 or 0.25:1.0:0.25")
    widths = []
    for part in text.split(","):
        try:
            numbers = [float(number) for number in part.split(":")]
        except ValueError:
            raise UsageError(f"--widths: {part!r} is not a width or start:stop:step") from None
        if len(numbers) == 1:
            widths += numbers
        elif len(numbers) == 3 and numbers[2] > 0 and numbers[1] >= numbers[0]:
            start, stop, step = numbers
            count = int((stop - start) / step + 1e-6) + 1
            if count > MOST_WIDTHS:
                raise UsageError(f"--widths: {part!r} is {count} widths; {MOST_WIDTHS} at most")
            widths += [round(start + place * step, 6) for place in range(count)]
        else:
            raise UsageError(f"--widths: {part!r} is not start:stop:step with start <= stop and step > 0")
    return widths


def calibrate_bn(
    shop: Workshop, widths: list[float], configs: list[Path], *, compare: bool = False, resume: bool = False
) -> list[dict[str, Any]]:
    """Write `subnet-<name>.safetensors` for each width and channel config; return a row of figures for each.

    `compare` also scores each with the statistics of the largest sub-network instead of its own.
    Raises UsageError for a width or channels beyond the supernet, and for a supernet with switchable BN.
    """
    if shop.switches:
        raise UsageError(
            "supernet.bn: switchable has measured its BN; `autoslim extract --width` cuts its switches out"
        )
    wanted = {_width_name(shop, width): shop.space.uniform(width) for width in widths}
    for path in configs:
        wanted[path.stem.removeprefix("arch-")] = shop.read_channels(path, bounded=True)
    supernet = shop.load_supernet()
    parents = shop.sha256_of(shop.path(SUPERNET_FILE))
    made_from = shop.made_from("data", "calibrate", parents=parents)
    rows: list[dict[str, Any]] = []
    if compare:
        calibrate(supernet.eval().body, calibration_batches(shop, shop.recipe.calibrate.images))
    with shop.reporter.bar("calibrating", len(wanted)) as bar:
        for done, (name, channels) in enumerate(wanted.items()):
            path = shop.path(f"subnet-{name}.safetensors")
            spelled_out = shop.space.spelled_out(channels)
            kept = current_facts(path, MODEL, made_from, spelled_out) if resume else None
            if kept is None or (compare and "uncalibrated_top1" not in kept["holdout"]):
                # 1. A plain network with the first channels' weights; 2. its own BN statistics; 3. its score.
                network = supernet.extract(channels)
                figures = (
                    {
                        "uncalibrated_top1": evaluate(
                            network, shop.holdout.evaluation(512), classification(shop.recipe.model.classes)
                        ).top1
                    }
                    if compare
                    else {}
                )
                calibrate(network, calibration_batches(shop, shop.recipe.calibrate.images))
                score = evaluate(network, shop.holdout.evaluation(512), classification(shop.recipe.model.classes))
                kept = {"made_from": made_from, "holdout": {**asdict(score), **figures}}
                shop.save_model(path, network, shop.config(channels, network=network), kept)
            rows.append({"name": name, "path": str(path), **shop.cost(channels), **kept["holdout"]})
            bar(done + 1, lambda: f"{rows[-1]['name']}: top-1 {rows[-1]['top1']:.1%}")
    return rows


def extract(shop: Workshop, width: float) -> dict[str, Any]:
    """Write one switch of a slimmable network as `subnet-width-<width>.safetensors`; return its figures on the holdout.

    Raises UsageError for a width that is no switch.
    """
    name = switch_name(shop, width)
    network = shop.load_supernet().extract(shop.switches[name], name)
    score = evaluate(network, shop.holdout.evaluation(512), classification(shop.recipe.model.classes))
    path = shop.path(f"subnet-{name}.safetensors")
    made_from = shop.made_from("data", "supernet", parents=shop.sha256_of(shop.path(SUPERNET_FILE)))
    config = shop.config(shop.switches[name], network=network)
    shop.save_model(path, network, config, {"made_from": made_from, "holdout": asdict(score)})
    return {"name": name, "path": str(path), **shop.cost(shop.switches[name]), **asdict(score)}


def switch_name(shop: Workshop, width: float) -> str:
    """Return the name of a switch. Raises UsageError if the recipe has none of this width."""
    if not shop.switches:
        raise UsageError(
            "supernet.bn: shared has no switches; `autoslim calibrate-bn --widths` makes deployable networks"
        )
    if width_name(width) not in shop.switches:
        raise UsageError(f"--width {width:g} is no switch; supernet.widths: {list(shop.recipe.supernet.widths)}")
    return width_name(width)


def _width_name(shop: Workshop, width: float) -> str:
    """Name a width's file; refuse a width that the supernet does not hold."""
    supernet = shop.recipe.supernet
    if not supernet.min_width <= width <= supernet.width:
        raise UsageError(f"width {width:g} is outside the supernet's {supernet.min_width:g} to {supernet.width:g}")
    return width_name(width)
