"""Cut sub-networks out of the supernet and give each its own BN statistics (US-Nets, section 3.3)."""

import re
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from autoslim_cli.cost.configs import config_of, read_channels
from autoslim_cli.errors import UsageError
from autoslim_cli.files.channel_config import by_name, chosen_by, save_model
from autoslim_cli.files.checkpoint import MODEL
from autoslim_cli.files.metric import Metric
from autoslim_cli.files.names import SUPERNET_FILE, subnet_file, width_name
from autoslim_cli.files.provenance import current_facts, decisive, keeping_the_old
from autoslim_cli.interruption import saying_what_is_kept
from autoslim_cli.network.table import Channels
from autoslim_cli.stages.project import (
    Project,
    learned_from,
    load_supernet,
    origin,
    say_how_it_was_trained,
)
from autoslim_cli.training.measure import calibrate, calibration_batches, evaluate
from autoslim_cli.training.score import Score, measured

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
    project: Project, widths: list[float], configs: list[Path], *, compare: bool = False, resume: bool = False
) -> list[dict[str, Any]]:
    """Write `subnet-<name>.safetensors` for each width and channel config; return a row of figures for each.

    A file that was there with other contents is kept under another name. `compare` also scores each with the
    statistics of the largest sub-network instead of its own.
    Raises UsageError for a width or channels beyond the supernet, for two of one name, and for a supernet with
    switchable BN.
    """
    recipe, network, costs = project.recipe, project.network, project.costs
    if network.switches:
        cut = project.commands("extract", "--width", f"{recipe.supernet.widths[0]:g}")
        raise UsageError(f"supernet.bn: switchable has measured its BN; `{cut}` cuts a switch out")
    wanted = {width_name(width): network.space.at_width(width) for width in widths}
    chosen = {name: {"chosen_by": chosen_by(path)} for name, path in by_name(configs).items()}
    for name, path in by_name(configs).items():
        if name in wanted:
            raise UsageError(f"{path}: called {name}, as one of --widths is; rename it")
        wanted[name] = read_channels(path, network, costs, bounded=True)
    supernet = load_supernet(project)
    say_how_it_was_trained(project)
    made_from = origin(project, "data", "calibrate", parents=[project.directory / SUPERNET_FILE])
    settings, task, ranks, rows = recipe.calibrate, project.task, project.ranks, list[dict[str, Any]]()
    asked = {"channels": wanted, "--compare": compare, "--resume": resume}
    ranks.agreed({**decisive(made_from), **asked}, "supernets, images or options")
    uncalibrated, say = f"uncalibrated_{task.metric.name}", project.reporter.say

    def calibrated(plain: nn.Module) -> None:
        batches = calibration_batches(project.images.training, settings.images, settings.batch, ranks)
        calibrate(plain, batches, ranks)

    def score(plain: nn.Module) -> Score:
        batches = project.images.holdout.evaluation(recipe.evaluate.batch, rank=ranks.rank, size=ranks.size)
        return evaluate(plain, batches, task, ranks)

    if compare:
        calibrated(supernet.eval().body)
    kept = f"what was calibrated lies in {project.directory}"
    with saying_what_is_kept(say, kept), project.reporter.bar("calibrating", len(wanted)) as bar:
        for done, (name, channels) in enumerate(wanted.items()):
            path = project.directory / subnet_file(name)
            facts = _current(project, path, made_from, channels) if resume else None
            if resume:
                ranks.agreed({path.name: facts or "missing or not current"}, "calibrated networks")
            if facts is None or (compare and uncalibrated not in facts["holdout"]):
                # 1. A plain network with the first channels' weights; 2. its own BN statistics; 3. its score.
                plain = supernet.extract(channels)
                before = {uncalibrated: score(plain).value} if compare else {}
                calibrated(plain)
                facts = {"made_from": made_from, **chosen.get(name, {})}
                facts |= {**measured("holdout", score(plain), before), **learned_from(project)}
                config = config_of(network, costs, channels, built=plain)
                if ranks.first:
                    with keeping_the_old(path, say):
                        save_model(path, plain, config, facts)
            rows.append({"name": name, "path": str(path), **costs(channels), **facts["holdout"]})
            bar(done + 1, partial(_progress, task.metric, rows[-1]))
    ranks.wait("the end of a calibration")
    return rows


def _progress(metric: Metric, row: dict[str, Any]) -> str:
    """Say what was measured last."""
    return f"{row['name']}: {metric.title} {metric.show(row[metric.name], 1)}"


def _current(project: Project, path: Path, made_from: dict[str, Any], channels: Channels) -> dict[str, Any] | None:
    """Return the facts of a calibrated sub-network that is there and current."""
    wanted = project.network.space.spelled_out(channels)
    return current_facts(path, MODEL, made_from, wanted, project.reporter.say)


def extract(project: Project, width: float) -> dict[str, Any]:
    """Write one switch of a slimmable network as `subnet-width-<width>.safetensors`; return its figures on the holdout.

    Raises UsageError for a width that is no switch.
    """
    recipe, network = project.recipe, project.network
    name = switch_name(project, width)
    channels = network.switches[name]
    plain = load_supernet(project).extract(channels, name)
    score = evaluate(plain, project.images.holdout.evaluation(recipe.evaluate.batch), project.task)
    path = project.directory / subnet_file(name)
    made_from = origin(project, "data", "supernet", parents=[project.directory / SUPERNET_FILE])
    config = config_of(network, project.costs, channels, built=plain)
    with keeping_the_old(path, project.reporter.say):
        facts = {"made_from": made_from, **measured("holdout", score), **learned_from(project)}
        save_model(path, plain, config, facts)
    return {"name": name, "path": str(path), **project.costs(channels), **score.figures}


def switch_name(project: Project, width: float) -> str:
    """Return the name of a switch. Raises UsageError if the recipe has none of this width."""
    if not project.network.switches:
        cut = project.commands("calibrate-bn", "--widths", f"{width:g}")
        raise UsageError(f"supernet.bn: shared has no switches; `{cut}` makes a deployable network")
    if width_name(width) not in project.network.switches:
        raise UsageError(f"--width {width:g} is no switch; supernet.widths: {list(project.recipe.supernet.widths)}")
    return width_name(width)
