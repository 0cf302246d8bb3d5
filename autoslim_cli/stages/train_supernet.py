"""Train a supernet: every sub-network works once its BN statistics are calibrated (US-Nets; AutoSlim, section 3.1).

With switchable BN it is a slimmable network of fixed widths instead, and needs no calibration (Slimmable Networks).
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from autoslim_cli.cost.configs import config_of
from autoslim_cli.cost.forward_memory import forward_memory
from autoslim_cli.data.batch import Batch
from autoslim_cli.data.sets import Images
from autoslim_cli.errors import UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.metric import Metric
from autoslim_cli.files.names import SUPERNET_FILE, state_file
from autoslim_cli.files.provenance import decisive, difference
from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.schema import SupernetSettings
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.stages.expected_images import warn_of_weights
from autoslim_cli.stages.project import Project, learned_from, origin
from autoslim_cli.stages.seen_images import refuse_unfit_base, warn_of_seen_holdout
from autoslim_cli.training.checkpointing import blocks_computed_anew, with_memory
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.job import Glance, Job, Result, Training
from autoslim_cli.training.measure import calibrate, calibration_batches, evaluate, running_averages
from autoslim_cli.training.opening import task_of
from autoslim_cli.training.sandwich import supernet_step
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import Task
from autoslim_cli.training.trained import trained

STATE_FILE = state_file("supernet")
GLANCE_IMAGES = 1024
"""Training images that calibrate each width that is scored: enough for a glance."""

Batches = Callable[[], Iterable[Batch]]
"""Give the same batches each time: those of this process."""


def train_supernet(project: Project, *, resume: bool = False, force: bool = False) -> dict[str, Any]:
    """Train the recipe's supernet and write `supernet.safetensors`; return its holdout scores at three widths.

    With switchable BN the scores are those of every switch. `resume` continues a stopped training, and keeps a supernet
    that is already there and current; another one is refused by UsageError, unless `force`, which keeps it aside, and
    gives up a stopped training that is not continued.
    Raises AutoslimError on a loss that is not finite.
    """
    recipe, network = project.recipe, project.network
    if not any(len(unit.counts) > 1 for unit in network.space.units.values()):
        raise UsageError(f"{recipe.model.name}: no unit can be slimmed; `{project.commands('units')}` says why")
    path = project.directory / SUPERNET_FILE
    job = Job(
        settings=recipe.train,
        seed=recipe.seed,
        made_from=origin(project, *_sections(project), also=["weights"]),
        format=checkpoint.SUPERNET,
        channels={path: network.full},
        state=project.directory / STATE_FILE,
        replaces=force,
        forced=force,
        track=recipe.track,
    )

    def build() -> Training:
        return _training(project, scored_channels(network, recipe.supernet))

    (facts,) = trained(job, build, project.reporter, project.ranks, resume=resume).values()
    return {"supernet": str(path), "widths": facts["holdout"]}


def refuse_supernet(project: Project, *, force: bool = False) -> None:
    """Raise what the training of a supernet will be refused for, whatever the weights that it starts from come to.

    Errors are UsageError for settings that do not suit the task or the network, or, unless `force`, where a supernet of
    other settings is there, finished or stopped.
    """
    recipe, path, state = project.recipe, project.directory / SUPERNET_FILE, project.directory / STATE_FILE
    task_of(recipe, project.directory, recipe.train, project.task)
    blocks_computed_anew(project.network.reading, recipe.train)
    if force:
        return
    now = decisive(_from_any_weights(origin(project, *_sections(project)), recipe.model.weights))
    if state.exists():
        then = checkpoint.load_state(state).get("decisive", {})
        what = f"{state} holds a stopped training with other settings"
    elif path.exists():
        again = project.commands("train-supernet", "--force")
        then = checkpoint.read_facts(path, checkpoint.SUPERNET, again)["made_from"]
        what = f"{path} is finished, and not what would be made now"
    else:
        return
    then = decisive(_from_any_weights(then))
    if why := difference({key: then.get(key) for key in now}, now):
        raise UsageError(f"{what} ({why}); restore the settings, or --force makes it anew")


def _from_any_weights(origin: Mapping[str, Any], weights: str | None = None) -> dict[str, Any]:
    """Return a record of origin that does not say what the weights are that are named, or are to be."""
    contents = dict(origin.get("contents", {}))
    named = {"weights": "any"} if weights or "weights" in contents else {}
    return {**origin, "contents": {**contents, **named}}


def _sections(project: Project) -> list[str]:
    """Return the recipe's sections, and keys, that a supernet depends on."""
    return ["data", "space", "supernet", "train", *_judging(project)]


def _judging(project: Project) -> list[str]:
    """Return the recipe's keys that the scores after each epoch depend on, where they decide how the training ends."""
    if not project.recipe.train.validates:
        return []
    return ["evaluate.images"] if project.network.switches else ["evaluate.images", "calibrate.batch"]


def _training(project: Project, widths: dict[str, dict[str, int]]) -> Training:
    """Build the supernet, and say how it is trained and scored at some widths."""
    recipe, network, costs, say = project.recipe, project.network, project.costs, project.reporter.say
    for channels in widths.values():  # before any work: fvcore agrees on what will be counted
        config_of(network, costs, channels)
    images, holdout = project.images.training, project.images.holdout
    if recipe.model.weights is None:
        supernet = network.fresh_supernet()
    else:
        warn_of_weights(project)
        if recipe.base:
            refuse_unfit_base(project)
        else:
            warn_of_seen_holdout(project, project.directory / recipe.model.weights)
        supernet = network.trained_supernet(project.directory, say, sort=recipe.supernet.sort)
    text = "  ".join(f"{name} {costs['flops'](channels) / 1e6:.2f}M" for name, channels in widths.items())
    kind = "slimmable network" if network.switches else "supernet"
    say(f"{kind} of {recipe.model.name} on {project.device}: FLOPs {text}; {len(images)} images")
    ranks, batch = project.ranks, recipe.evaluate.batch
    glance, calibration = holdout.take(recipe.evaluate.images).in_memory(), images.take(GLANCE_IMAGES).in_memory()
    # The other images of the holdout are looked at when hours of training are over: a damaged one shows now.
    holdout.select(holdout.indices[recipe.evaluate.images :]).decode(batch, rank=ranks.rank, size=ranks.size)

    def scores_on(some: Images) -> dict[str, Score]:
        return scores_at(
            supernet,
            widths,
            project.task,
            lambda: some.evaluation(batch, rank=ranks.rank, size=ranks.size),
            lambda: calibration_batches(calibration, GLANCE_IMAGES, recipe.calibrate.batch, ranks),
            ranks,
        )

    def after_epoch() -> Glance:
        return glance_at(scores_on(glance), project.task.metric)

    def results() -> dict[Path, Result]:
        scores = {name: score.of_use("holdout", "train") for name, score in scores_on(holdout).items()}
        figures = {name: {**costs(widths[name]), **score.figures} for name, score in scores.items()}
        facts = {"model": network.architecture, "channels": network.full, "holdout": figures}
        facts["metric"] = project.task.metric.model_dump(mode="json")
        facts |= {"switches": network.switches} if network.switches else {}
        facts |= learned_from(project)
        return {project.directory / SUPERNET_FILE: Result(supernet.kept.state_dict(), facts)}

    task = task_of(recipe, project.directory, recipe.train, project.task)
    step = supernet_step(supernet, network.space, recipe.supernet, costs["flops"], task, recipe.seed, ranks.rank)
    statistics = running_averages(supernet.private)
    step, needs = with_memory(step, supernet.body, network.reading, recipe.train)

    def memory(count: int) -> int:
        return needs(network.full, count, recipe.train)

    name, channels = next(iter(widths.items()))  # the largest
    largest = supernet.extract(channels, name if supernet.switches else None)
    looks = {"evaluate.batch": min(batch, len(holdout))}
    if not supernet.switches:
        looks["calibrate.batch"] = min(recipe.calibrate.batch, len(calibration))

    return Training(
        supernet.kept,
        images,
        step,
        supernet.zero_gradients,
        results,
        after_epoch,
        statistics,
        memory,
        looks=looks,
        look_memory=forward_memory(largest, network.reading),
        part=network.reading.part,
    )


def scored_channels(network: BaseNetwork, settings: SupernetSettings) -> dict[str, dict[str, int]]:
    """Return the channels that are scored: of all switches, or of the largest, the base and the smallest."""
    base = {"base": network.base} if settings.width >= 1 else {}
    return network.switches or {"largest": network.space.largest, **base, "smallest": network.space.smallest}


def scores_at(
    supernet: Supernet,
    widths: Mapping[str, Channels],
    task: Task,
    holdout: Batches,
    calibration: Batches,
    ranks: Ranks,
) -> dict[str, Score]:
    """Score sub-networks on the holdout: switches with their own BN, others calibrated on a few training images."""
    scores = {}
    for name, channels in widths.items():
        network = supernet.extract(channels, name if supernet.switches else None)
        if not supernet.switches:
            calibrate(network, calibration(), ranks)
        scores[name] = evaluate(network, holdout(), task, ranks)
    return scores


def glance_at(scores: Mapping[str, Score], metric: Metric) -> Glance:
    """Say how sub-networks score, by their names."""
    words = f"holdout {metric.title} " + "  ".join(f"{name} {score.text}" for name, score in scores.items())
    return Glance(words, sum(score.loss for score in scores.values()) / len(scores))
