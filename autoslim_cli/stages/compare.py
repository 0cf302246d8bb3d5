"""Set networks side by side: what they cost, what was measured of them, and the units in which they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoslim_cli.cost.activation_memory import ActivationMemory
from autoslim_cli.cost.configs import check_cost
from autoslim_cli.cost.costs import Costs
from autoslim_cli.files.channel_config import ChannelConfig, describe
from autoslim_cli.files.checkpoint import MODEL
from autoslim_cli.files.metric import TOP1, Metric
from autoslim_cli.files.names import relative
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.predictor import predictor
from autoslim_cli.latency.table import LatencyTable, read_table, refuse_incomplete, refuse_other_model
from autoslim_cli.models.trust import Trust, build_named_by, refuse_untrusted
from autoslim_cli.network.digest import digest
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import ModelSettings, SpaceSettings
from autoslim_cli.slimming.constraints import constrained
from autoslim_cli.slimming.space import Space
from autoslim_cli.stages.inspect import network_in

BASE = "base network"


def compare(paths: Sequence[Path], latency_table: Path | None = None, *, trust: bool = False) -> dict[str, Any]:
    """Return a row for each file, after one for the base network of each model, and the units that differ.

    Files are channel configs and checkpoints, of one model or of several; a supernet stands for its largest channels.
    Latency is in ms, activation memory in bytes. With `trust` a file may call code that its recipe does not name.
    Raises UsageError without, ArtifactError for a file that is missing, damaged or says
    another cost than its channels have, and for a latency table of another network.
    """
    times = read_table(latency_table) if latency_table else None
    if latency_table and times:
        refuse_incomplete(latency_table, times)
    models: dict[tuple[object, ...], Model] = {}
    rows: list[dict[str, Any]] = []
    metrics: dict[str, Metric] = {}
    for path in paths:
        config, steering, facts = network_in(path)
        trusted = Trust.in_recipe_of(path, anything=trust)
        model = _title(config.model, trusted.directory or path.parent)
        refuse_untrusted(path, config.model, trusted)
        if latency_table and times:
            refuse_other_model(latency_table, times, config.model)
        tie = times.tie if times else steering.tie
        if (key := (model, tie)) not in models:
            built = build_named_by(path, config.model, trusted)
            models[key] = one = Model.of(built, config, tie, times, str(latency_table))
            if not any(row["model"] == model for row in rows):
                rows.append({"name": BASE, "kind": "base", "model": model, **one.row(one.base)})
        one = models[key]
        if latency_table and times:
            refuse_other_model(latency_table, times, config.model, one.digest)
        channels = one.space.check(config.channels, str(path), bounded=False)
        check_cost(path, config, one.costs, channels)
        metric, scores = scores_of(config, facts)
        metrics[metric.name] = metric
        facts_of = {"kind": kind_of(facts), "source": source_of(config), metric.name: scores}
        rows.append({"name": str(path), "model": model, **facts_of, **one.row(channels)})
    return {
        "networks": rows,
        "metrics": {name: metric.model_dump(mode="json") for name, metric in metrics.items()},
        "differ": differing([row["channels"] for row in rows]),
    }


def differing(channels: Sequence[Mapping[str, int]]) -> dict[str, list[int | None]]:
    """Return the units in which networks differ, in their order: a count for each network, None without the unit."""
    names = dict.fromkeys(name for one in channels for name in one)
    counts = {name: [one.get(name) for one in channels] for name in names}
    return {name: values for name, values in counts.items() if len(set(values)) > 1}


def _title(model: ModelSettings, directory: Path) -> str:
    """Name a model by what sets it apart; code of its own by its file, since two recipes may each have a `./net.py`."""
    place, _, factory = model.name.rpartition(":")
    if place.endswith(".py"):
        model = model.model_copy(update={"name": f"{relative((directory / place).resolve(), Path.cwd())}:{factory}"})
    return describe(model)


@dataclass(frozen=True)
class Model:
    """A model that was read, once for all files of it, and what its networks cost; `digest` is that of the network."""

    digest: str
    reading: Reading
    space: Space
    costs: Costs
    times: LatencyTable | None
    table: str

    @classmethod
    def of(
        cls,
        built: nn.Module,
        config: ChannelConfig,
        tie: tuple[tuple[str, ...], ...],
        times: LatencyTable | None,
        table: str,
    ) -> "Model":
        """Read a config's model, which was built, with units tied as where it was searched."""
        as_built = read(built, *config.model.shapes, part=config.model.trace)
        reading = constrained(as_built, SpaceSettings(tie=tie))
        space = Space.of(reading.table, width=1.0, min_width=0.5, groups=1, divisor=1)
        memory = ActivationMemory.of(reading, pieces(reading))
        costs = Costs.closed_form(reading.table).also("activation_memory", memory)
        return cls(digest(as_built), reading, space, costs, times, table)

    @property
    def base(self) -> dict[str, int]:
        """Return the channels of the network as it was read."""
        return self.reading.table.base

    def row(self, channels: Channels) -> dict[str, Any]:
        """Return what a network costs, and the channels of all of its units."""
        values = {name: int(value) for name, value in self.costs(channels).items()}
        latency = {}
        if self.times:
            latency_ms = predictor(self.times, pieces(self.reading), channels, channels, self.table)
            latency = {"latency_ms": latency_ms(channels)}
        return {**values, **latency, "channels": self.space.spelled_out(channels)}


def kind_of(facts: Mapping[str, Any]) -> str:
    """Say what a file holds: a channel config, a supernet, a retrained network, or one cut out of a supernet."""
    if not facts:
        return "config"
    if facts["format"] != MODEL:
        return "supernet"
    return "retrained" if "test" in facts else "subnet"


def scores_of(config: ChannelConfig, facts: Mapping[str, Any]) -> tuple[Metric, dict[str, float]]:
    """Return the score that a file records, by the images that it was measured on: `test`, `holdout`."""
    if not facts:
        return (config.found.metric, {"holdout": config.found.score}) if config.found else (TOP1, {})
    metric = Metric.model_validate(facts.get("metric", TOP1))
    scores = {where: facts.get(where) or {} for where in ("holdout", "test")}
    scores["holdout"] = scores["holdout"].get("largest", scores["holdout"])  # of a supernet
    return metric, {where: score[metric.name] for where, score in scores.items() if metric.name in score}


def source_of(config: ChannelConfig) -> str | None:
    """Say where channels come from, as far as their config says it."""
    if config.found:
        return f"{config.found.strategy or 'searched'}, {config.found.budget}"
    return config.source
