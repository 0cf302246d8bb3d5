"""Write the channels that a search found for a budget, and what they cost."""

from pathlib import Path
from typing import Any

from autoslim_cli.cost.budget import Budget
from autoslim_cli.cost.configs import config_of
from autoslim_cli.errors import AutoslimError
from autoslim_cli.files.atomic import sha256
from autoslim_cli.files.channel_config import ChannelConfig, Found, Holdout, LatencyFacts, read_config, write_config
from autoslim_cli.files.measures import MEASURES
from autoslim_cli.files.names import config_file
from autoslim_cli.files.provenance import set_aside
from autoslim_cli.latency.measuring import time_found
from autoslim_cli.latency.table import read_table
from autoslim_cli.network.table import Channels
from autoslim_cli.searching import Answer
from autoslim_cli.searching.log import SearchLog
from autoslim_cli.searching.telling import said
from autoslim_cli.stages.project import Project
from autoslim_cli.training.distributed import Ranks


def file_of(project: Project, budget: Budget) -> Path:
    """Return where the channels found for a budget are written."""
    return project.directory / config_file(budget.label)


def write_answer(
    project: Project, answer: Answer, found_by: str, log: SearchLog, number: int, ranks: Ranks
) -> dict[str, Any]:
    """Write the channel config of a budget that now holds."""
    path = file_of(project, answer.budget)
    cost, score = project.costs(answer.channels), answer.score
    binding = answer.budget.binding(cost)
    found = Found(
        budget=str(answer.budget),
        binding=binding.measure,
        strategy=found_by,
        holdout=Holdout(images=log.header["holdout"], seed=project.recipe.seed),
        metric=score.metric,
        step=number,
        supernet=log.header["supernet"],
        **score.figures,
    )
    measured = None
    if "latency" in cost:
        ranks.wait("a measurement")  # nobody scores while the first rank measures
        (measured, *_) = ranks.gather(_measured(project, answer, log) if log.writing else None, "a measured latency")
    if log.writing:
        latency = _latency_facts(project, answer.channels, measured)
        config = config_of(project.network, project.costs, answer.channels, found=found, latency=latency)
        if path.exists() and not _holds(path, config):
            project.reporter.say(f"{path} had other channels: kept as {set_aside(path).name}")
        write_config(path, config)
    costs = ", ".join(f"{MEASURES[name].show(value)} {MEASURES[name].word}" for name, value in cost.items())
    project.reporter.say(
        f"{path}: {costs}{f', measured {measured:.4g}ms' if measured else ''}, holdout "
        f"{said(score)} after {number} steps"
    )
    _warn_of_a_broken_bound(project, path, answer.budget, measured)
    cost |= {"measured_latency": measured} if measured else {}
    spent = {"budget": str(answer.budget), "used": answer.budget.used(project.costs(answer.channels))}
    return {"path": str(path), **spent, **cost, **score.figures}


TOLD = 0.0005
"""A share that is told as 0.1 %, and not as none."""


def _warn_of_a_broken_bound(project: Project, path: Path, budget: Budget, measured_ms: float | None) -> None:
    """Say so where a network takes longer than its budget allows: only its prediction is what the search bounds."""
    bound = next((bound for bound in budget.bounds if bound.measure == "latency"), None)
    if bound is None or measured_ms is None:
        return
    excess = measured_ms / bound.limit - 1
    if excess < TOLD:
        return
    show = MEASURES["latency"].show
    within = show(bound.limit * bound.limit / measured_ms)
    project.reporter.warn(
        f"{path}: measured {show(measured_ms)}, which breaks {bound} ({show(bound.limit)}) by {excess:.1%}: "
        f"only the prediction holds; search for about {within} to be within it"
    )


def _holds(path: Path, config: ChannelConfig) -> bool:
    """Tell whether a file holds the channels of a config; a person may have written another."""
    try:
        return read_config(path).channels == config.channels
    except AutoslimError:
        return False


def _measured(project: Project, answer: Answer, log: SearchLog) -> float | None:
    """Return the latency of found channels end to end: as the log has it, or measured now."""
    assert project.latency_table is not None
    table, counts = sha256(project.latency_table), tuple(answer.channels.values())
    if (table, counts) not in log.measured:
        device, reading = read_table(project.latency_table).device, project.network.reading
        ms = time_found(reading, answer.channels, device, project.device, project.reporter)
        if ms is not None:
            log.add_measured(table, counts, ms)
    return log.measured.get((table, counts))


def _latency_facts(project: Project, channels: Channels, measured_ms: float | None) -> LatencyFacts | None:
    """Return what a channel config says of latency; None if latency is not among the costs."""
    if project.latency_table is None:
        return None
    return LatencyFacts(
        predicted_ms=round(project.costs["latency"](channels), 4),
        measured_ms=measured_ms,
        device=str(read_table(project.latency_table).device),
        table=sha256(project.latency_table),
    )
