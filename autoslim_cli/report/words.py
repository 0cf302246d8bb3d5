"""Say what a report's figures and its tables both say: steps, scores of several trainings, which networks are alike."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from autoslim_cli.cost.budget import short
from autoslim_cli.files.metric import Metric
from autoslim_cli.report.facts import Network


def said_of(step: Mapping[str, object], metric: Metric) -> str:
    """Say a step's units, its FLOPs and its scores."""
    changes = step.get("changes") or ([[step["unit"], step["before"], step["after"]]] if "unit" in step else [])
    assert isinstance(changes, list)
    text = ", ".join(f"{unit} {before}\u2192{after}" for unit, before, after in changes)
    if not text:  # other channels altogether
        channels = step.get("channels")
        text = ", ".join(f"{unit} {count}" for unit, count in channels.items()) if isinstance(channels, Mapping) else ""
    return (
        f"step {step['step']}, {step['kind']}: {text or 'all units'}; {short(_number(step['flops']))} FLOPs, "
        f"loss {_number(step['loss']):.4g}, {metric.title} {metric.show(_number(step[metric.name]))}"
    )


def alike(networks: Iterable[Network]) -> list[Sequence[Network]]:
    """Return networks by what they have in common but the seed: channels, what chose them, all of their training.

    Of one seed and the same scores there is one: a second is a copy of it.
    """
    groups: dict[tuple[object, ...], dict[tuple[object, ...], Network]] = {}
    for network in networks:
        key = (tuple(network.channels.items()), network.channels_by, network.trained, network.training)
        groups.setdefault(key, {}).setdefault((network.seed, *sorted(network.scores.items())), network)
    return [list(group.values()) for group in groups.values()]


def spread(scores: Sequence[float], metric: Metric) -> str:
    """Write a score, of several their mean and deviation."""
    if not scores:
        return ""
    deviation = f" \u00b1 {metric.show(statistics.stdev(scores))}" if len(scores) > 1 else ""
    return metric.show(statistics.fmean(scores)) + deviation


def _number(value: object) -> float:
    """Return a number of a log."""
    return float(value) if isinstance(value, int | float) else math.nan
