"""Show what lies in a recipe's directory: one HTML page, and its figures as SVG files."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoslim_cli import __version__
from autoslim_cli.cost.budget import parse
from autoslim_cli.cost.configs import check_cost
from autoslim_cli.errors import ArtifactError, AutoslimError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.atomic import file_name, sha256, write_bytes, write_text
from autoslim_cli.files.channel_config import (
    BY_HAND,
    ChannelConfig,
    config_in,
    config_sha256,
    describe,
    read_config,
)
from autoslim_cli.files.measures import MEASURES
from autoslim_cli.files.metric import Metric
from autoslim_cli.files.names import (
    CONFIGS,
    SUPERNET_FILE,
    TABLES,
    config_name,
    device_of,
    is_aside,
    metrics_file,
    network_name,
    trained_in,
    width_of,
)
from autoslim_cli.files.provenance import decisive, difference
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.predictor import Latency, predictor
from autoslim_cli.latency.table import read_table, refuse_incomplete, refuse_other_model
from autoslim_cli.network.table import Channels, LayerRow, features
from autoslim_cli.recipe.plain_yaml import to_yaml
from autoslim_cli.report.charts import figures
from autoslim_cli.report.facts import Artifact, Facts, Kind, Layer, Network, Parent
from autoslim_cli.report.markup import svg_file
from autoslim_cli.report.page import page
from autoslim_cli.report.png import png
from autoslim_cli.report.strokes import STYLE
from autoslim_cli.searching.log import LOG_FILE, read_log, read_steps
from autoslim_cli.slimming.space import Space
from autoslim_cli.stages.compare import kind_of, scores_of
from autoslim_cli.stages.project import Project, with_activation_memory
from autoslim_cli.training.metrics import read_metrics

PAGE_FILE = "report.html"

MOST = 1e18
"""Beyond it no FLOPs and no losses are drawn."""


def report(project: Project, latency_table: Path | None = None, *, as_png: bool = False) -> dict[str, Any]:
    """Write `report.html` and `report-<figure>.svg` of what lies in the recipe's directory; return their paths.

    Latency is that of the tables that lie there, or of one that is named. Files that cannot be read, or are of another
    network, are left out and named. `as_png` draws the figures as PNG, too: UsageError without matplotlib.
    """
    facts = gathered(project, latency_table)
    drawn = figures(facts)
    pictures = {name: png(drawing) for name, drawing in drawn.items()} if as_png else {}
    written = {}
    for name, drawing in drawn.items():
        path = project.directory / f"report-{file_name(name)}.svg"
        write_text(path, svg_file(drawing, STYLE))
        written[name] = str(path)
        if name in pictures:
            write_bytes(path.with_suffix(".png"), pictures[name])
    path = project.directory / PAGE_FILE
    write_text(path, page(facts, drawn))
    for note in facts.notes:
        project.reporter.say(f"left out: {note}")
    return {"page": str(path), "figures": written, "left_out": list(facts.notes)}


def gathered(project: Project, latency_table: Path | None = None) -> Facts:
    """Read everything that a report shows."""
    recipe, directory, space = project.recipe, project.directory, project.network.space
    project, notes = with_activation_memory(project), list[str]()
    latencies = dict(_latencies(project, latency_table, notes))
    for name, latency in latencies.items():
        project = replace(project, costs=project.costs.also(name, latency))
    rows = [row for row in project.network.reading.table.rows if row.multiplies]

    def network(name: str, kind: Kind, channels: Channels, **more: Any) -> Network:
        ms = {device: dict(_layer_ms(latency, channels)) for device, latency in latencies.items()}
        return Network(
            name=name,
            kind=kind,
            costs=project.costs(channels),
            channels=dict(channels),
            outputs={row.name: features(row.outputs, channels) for row in rows},
            flops={row.name: row.flops(channels) for row in rows},
            params={row.name: row.params(channels) for row in rows},
            ms=ms,
            **more,
        )

    # 1. Channel configs and checkpoints.
    found, others = list[Network](), list[Network]()
    supernet: dict[str, float] = {}
    artifacts = []
    paths = (*sorted(directory.glob(CONFIGS)), *sorted(directory.glob("*.safetensors")))
    for path in (path for path in paths if not is_aside(path)):  # what a command kept
        try:
            artifacts.append(_artifact(path))
            config, facts = _opened(path)
            if config is None:
                if path.name == SUPERNET_FILE:
                    _refuse_other_supernet(path, facts, project)
                    supernet = _scores(path, ChannelConfig(model=recipe.model, channels={}), facts, project.task.metric)
                continue
            if config.model.architecture != recipe.model.architecture:
                raise AutoslimError(f"{path}: of {describe(config.model)}, which is not the recipe's model")
            channels = space.check(config.channels, str(path), bounded=False)
            least, most = space.ends
            if latencies and any(not least[unit] <= count <= most[unit] for unit, count in channels.items()):
                raise AutoslimError(f"{path}: channels beyond the supernet's, for which no latency was measured")
            check_cost(path, config, project.costs, channels)
            scores = _scores(path, config, facts, project.task.metric)
        except AutoslimError as error:
            notes.append(str(error))
            continue
        if not facts:
            budget = config.found.budget if config.found else ""
            limits = dict(_limits(budget, project.costs(project.network.base)))
            name = config_name(path)
            found.append(network(name, "found", channels, scores=scores, budget=budget, limits=limits))
            continue
        kind: Kind = "retrained" if kind_of(facts) == "retrained" else "subnet"
        by = "one width" if kind == "subnet" and _at_one_width(path, channels, space) else _chosen_by(facts)
        trained = {"trained": _training(facts), **_depends_on(facts)} if kind == "retrained" else {}
        others.append(network(path.stem, kind, channels, scores=scores, channels_by=by, **trained))
    # 2. The search.
    steps, search = list[dict[str, Any]](), ""
    try:
        steps, search = _last_search(project)
    except AutoslimError as error:
        notes.append(str(error))
    found.sort(key=lambda one: -one.costs["flops"])
    others.sort(key=lambda one: (one.kind, -one.costs["flops"]))
    return Facts(
        title=directory.resolve().name,
        about=recipe.about,
        model=describe(recipe.model),
        metric=project.task.metric,
        layers=[_layer(row) for row in rows],
        base=network("base", "base", project.network.base),
        supernet=network("supernet", "supernet", space.largest, scores=supernet),
        found=found,
        others=others,
        curves=dict(_curves(directory)),
        steps=[step for step in steps if _can_be_drawn(step, project.task.metric)],
        search=search,
        artifacts=artifacts,
        notes=notes,
        recipe=to_yaml(recipe.model_dump(mode="json")),
        version=__version__,
    )


def _refuse_other_supernet(path: Path, facts: Mapping[str, Any], project: Project) -> None:
    """Raise ArtifactError if a supernet is of another network, or of another width, than the recipe says now."""
    network, contents = project.network, facts.get("made_from", {}).get("contents", {})
    then = {"model": facts.get("model"), "channels": facts.get("channels"), "network": contents.get("network")}
    if difference(then, {"model": network.architecture, "channels": network.full, "network": network.digest}):
        raise ArtifactError(f"{path}: of another network or other channels than the recipe's supernet has now")


def _last_search(project: Project) -> tuple[list[dict[str, Any]], str]:
    """Return the steps of the last search, and what it was. Raises ArtifactError if its log is of another network."""
    path = project.directory / LOG_FILE
    header, *_ = read_log(path) or [{}]
    largest, contents = header.get("largest"), header.get("contents")
    channels = largest.get("channels") if isinstance(largest, dict) else None
    network = contents.get("network") if isinstance(contents, dict) else None
    if channels not in (None, project.network.full) or network not in (None, project.network.digest):
        raise ArtifactError(f"{path}: of another network or other channels than the recipe's supernet has now")
    return read_steps(path), _search(project.directory)


def _scores(path: Path, config: ChannelConfig, facts: dict[str, Any], metric: Metric) -> dict[str, float]:
    """Return the scores that a file records. Raises ArtifactError for those of another task."""
    measured, scores = scores_of(config, facts)
    if scores and measured.name != metric.name:
        raise ArtifactError(f"{path}: measured by {measured.title}, and the recipe's task is by {metric.title}")
    return scores


def _opened(path: Path) -> tuple[ChannelConfig | None, dict[str, Any]]:
    """Return the channel config that a file holds, None for a supernet's, and a checkpoint's facts."""
    if path.suffix == ".json":
        return read_config(path), {}
    facts = checkpoint.read_any(path)
    return (config_in(path, facts) if facts["format"] == checkpoint.MODEL else None), facts


def _latencies(project: Project, named: Path | None, notes: list[str]) -> Iterator[tuple[str, Latency]]:
    """Yield what predicts latency, by `ms on DEVICE`. A table that is named must do; others that do not are noted."""
    network, commands = project.network, project.commands
    found = [path for path in sorted(project.directory.glob(TABLES)) if not is_aside(path)]
    for path in [named] if named else found:
        try:
            table = read_table(path)
            refuse_other_model(path, table, network.model, network.digest, commands)
            refuse_incomplete(path, table, commands)
            latency = predictor(table, pieces(network.reading), *network.space.ends, str(path), commands)
        except AutoslimError as error:
            if named:
                raise
            notes.append(str(error))
            continue
        yield f"ms on {device_of(path)}", latency


def _layer_ms(latency: Latency, channels: Channels) -> Iterator[tuple[str, float]]:
    """Yield the ms of each convolution or linear layer with what is run along with it, as it was measured alone."""
    for piece, grid, _ in latency.layers:
        if piece.multiplies:
            name = next(row.name for row in piece.rows if row.multiplies)
            yield name, grid.at(piece.counts(channels))


def _layer(row: LayerRow) -> Layer:
    """Return what is drawn of a layer."""
    units = tuple(dict.fromkeys(segment.unit for segment in row.outputs if segment.unit is not None))
    inputs = {segment.unit for segment in row.inputs}
    return Layer(row.name, units, depthwise=bool(row.group_inputs) and set(units) == inputs)


def _limits(budget: str, base: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield the bounds of a budget as a channel config has it, by cost; a person may have written something else."""
    for text in budget.split(" and "):
        measure, _, bound = text.partition("<=")
        with suppress(UsageError):
            if measure in MEASURES and measure in base:
                yield measure, parse(measure, bound, base[measure]).limit


def _chosen_by(facts: Mapping[str, Any]) -> str:
    """Say what chose a network's channels: of one that was retrained without a config one width."""
    is_retrained = kind_of(facts) == "retrained"
    from_config = any(name.endswith(".json") for name in facts.get("made_from", {}).get("parents", {}))
    names = {"uniform": "one width", "random": "random", "magnitude": "magnitude", BY_HAND: BY_HAND}
    return "one width" if is_retrained and not from_config else names.get(facts.get("chosen_by") or "", "searched")


def _at_one_width(path: Path, channels: Channels, space: Space) -> bool:
    """Tell whether a sub-network is of the width that its file is called after, if it is."""
    width = width_of(network_name(path))
    return width is not None and channels == space.uniform(width)


def _training(facts: dict[str, Any]) -> str:
    """Say how a network was trained."""
    recipe = facts.get("made_from", {}).get("recipe", {})
    settings = recipe.get("base") or recipe.get("retrain", {})
    start = settings.get("start", "scratch")
    return f"{settings['epochs']} epochs from {start}" if "epochs" in settings else ""


def _depends_on(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training depended on, but for its seed, and the seed. Images that a seed draws are as many."""
    origin = decisive(dict(facts.get("made_from", {})))
    recipe, contents = dict(origin.get("recipe", {})), dict(origin.get("contents", {}))
    seed = recipe.pop("seed", 0)
    if recipe.get("data", {}).get("limit"):
        contents = {name: digest for name, digest in contents.items() if name not in ("images", "test images")}
    text = json.dumps({**origin, "recipe": recipe, "contents": contents}, sort_keys=True, default=str)
    return {"training": text, "seed": seed if type(seed) is int else 0}


def _search(directory: Path) -> str:
    """Say what the last search of a directory was."""
    rows = read_log(directory / LOG_FILE) or []
    run = next((row["run"] for row in reversed(rows) if isinstance(row.get("run"), dict)), None)
    if run is None:
        return ""
    scored = sum(len(row["scored"]) for row in rows if isinstance(row.get("scored"), list))
    budgets = run.get("budgets")
    named = ", ".join(map(str, budgets)) if isinstance(budgets, list) else "?"
    return f"{run.get('strategy')} search for {named}: {scored} scores in its log"


def _curves(directory: Path) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Yield the training losses of each training that left its metrics: of several networks, the first one's."""
    for path in sorted(directory.glob(metrics_file("*"))):
        points = []
        for row in read_metrics(path):
            losses = row.get("loss")
            loss = next(iter(losses.values()), None) if isinstance(losses, dict) else None
            if isinstance(loss, int | float) and abs(loss) < MOST and 0 <= row["step"] < MOST:
                points.append((float(row["step"]), float(loss)))
        if len(points) > 1:
            yield trained_in(path), points


def _can_be_drawn(step: dict[str, Any], metric: Metric) -> bool:
    """Tell whether a step of a log, which nobody has checked, has numbers where a figure needs them."""
    changes = step.get("changes", [])
    well_formed = isinstance(changes, list) and all(isinstance(one, list) and len(one) == 3 for one in changes)
    complete = {"step", "kind"} <= step.keys() and ("unit" not in step or {"before", "after"} <= step.keys())
    numbers = [step.get(name) for name in ("flops", "loss", metric.name)]
    finite = all(type(number) in (int, float) and abs(number) < MOST for number in numbers if number is not None)
    return well_formed and complete and finite and None not in numbers


def _artifact(path: Path) -> Artifact:
    """Return what a file says of its origin, and whether what it was made from is still there."""
    try:
        digest = sha256(path)
    except OSError as error:  # as a link to what is gone
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix == ".json":
        config = read_config(path)
        if not config.found:
            return Artifact(path.name, "channel config, by hand", digest)
        parents = [_parent(path.parent, SUPERNET_FILE, config.found.supernet)]
        origin = config.found.model_dump(mode="json", exclude_none=True)
        return Artifact(path.name, f"channel config, {config.found.budget}", digest, parents, {}, origin)
    facts = checkpoint.read_any(path)
    made_from = facts.get("made_from", {})
    parents = [_parent(path.parent, name, before) for name, before in made_from.get("parents", {}).items()]
    what = {"supernet": "supernet", "retrained": "retrained network", "subnet": "sub-network"}[kind_of(facts)]
    return Artifact(path.name, what, digest, parents, made_from.get("versions", {}), made_from)


def _parent(directory: Path, name: str, before: str) -> Parent:
    """Tell whether what an artifact was made from is still there as it was, in a directory or right below it."""
    there = [path for path in (directory / name, *sorted(directory.glob(f"*/{Path(name).name}"))) if path.is_file()]
    for path in there:
        with suppress(AutoslimError):
            if (config_sha256(path) if path.suffix == ".json" else sha256(path)) == before:
                return Parent(name, before, "same")
    return Parent(name, before, "changed" if directory / name in there else "missing")
