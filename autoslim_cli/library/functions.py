"""Train a supernet, search it, and train what was found: on a caller's own network and batches, without a recipe."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autoslim_cli.cost.activation_memory import ActivationMemory
from autoslim_cli.cost.budget import parse_many
from autoslim_cli.cost.costs import Costs
from autoslim_cli.data.batch import Tree
from autoslim_cli.errors import UsageError, expected
from autoslim_cli.files.checkpoint import versions
from autoslim_cli.files.measures import MEASURES
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.library.loader import AnyBatches, Loader, held, input_shapes, opened
from autoslim_cli.library.measures import outputs_of, task_for
from autoslim_cli.library.networks import (
    OWN_WEIGHTS,
    Found,
    Keys,
    base_network,
    beside,
    checked,
    drawing_apart,
    refuse_unknown_start,
    reporter,
)
from autoslim_cli.machine import choose_device
from autoslim_cli.network.rebuild import on_device
from autoslim_cli.network.trace import expected_network, read
from autoslim_cli.recipe.schema import (
    EvaluateSettings,
    RetrainSettings,
    SearchSettings,
    Settings,
    SpaceSettings,
    SupernetSettings,
    TrainSettings,
)
from autoslim_cli.searching import STRATEGIES
from autoslim_cli.searching.forecast import foresee
from autoslim_cli.searching.journal import Journal, answered
from autoslim_cli.searching.log import SearchLog
from autoslim_cli.searching.preparation import check_reach, prepared, refuse_settings
from autoslim_cli.searching.problem import Step
from autoslim_cli.searching.telling import decided_by_cost
from autoslim_cli.searching.telling import progress as step_progress
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.slimmable import SlimmableNetwork
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.stages.retrain import ends_in_calibration, glance_as_ended, learning
from autoslim_cli.stages.train_supernet import (
    GLANCE_IMAGES,
    glance_at,
    scored_channels,
    scores_at,
)
from autoslim_cli.training import measure
from autoslim_cli.training.checkpointing import with_memory
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.job import Glance, Job, Training
from autoslim_cli.training.loop import fit
from autoslim_cli.training.sandwich import supernet_step
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import Task

Bounds = str | float | Sequence[str | float]
"""A budget as on the command line, or a number; or several, in a list or with commas between."""
Progress = Callable[[str], object]
"""Told a line now and then, as `print` is."""
MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Given parameters, return what updates them."""
MakeSchedule = Callable[[Optimizer, int], LRScheduler]
"""Given an optimizer and the number of steps, return the learning rate's schedule, which is stepped after each."""

ONE = Ranks()
EVALUATED = EvaluateSettings().batch
CALIBRATED = 5120
"""Training images that end a training whose running averages are not to be relied on."""


def train_supernet(
    model: nn.Module,
    example: Tree,
    loader: AnyBatches,
    *,
    epochs: int,
    lr: float = 0.1,
    width: float = 1.5,
    min_width: float = 0.15,
    start: Literal["scratch", "weights"] = "scratch",
    holdout: AnyBatches | None = None,
    task: Task | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule | None = None,
    train: Keys | None = None,
    supernet: Keys | None = None,
    space: Keys | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> SlimmableNetwork:
    """Train a supernet of a network, whose sub-networks all work (US-Nets; AutoSlim, section 3.1).

    `model` is not changed; `example` is as in `units`. From `scratch` it must be newly built; with `start="weights"`
    its weights are where the supernet starts, the most important channels first. `loader` gives batches of inputs and
    targets; what it draws from torch's generator is seeded for each epoch. A `holdout` is scored after each epoch.
    Without a `task` it is classification, of as many classes as there are outputs. `train`, `supernet` and `space` hold
    further keys of a recipe's sections; an `optimizer` and a `schedule` of your own take the place of what `train`
    says of them.
    Raises UsageError for a network that cannot be read or slimmed, and for batches, outputs or settings that do not
    fit, AutoslimError on a loss that is not finite.
    """
    refuse_unknown_start(start, "scratch", "weights")
    say = reporter(progress)
    wide = beside({"width": width, "min_width": min_width}, supernet, "supernet")
    network = base_network(model, example, wide, space, seed, choose_device(device))
    if not any(len(unit.counts) > 1 for unit in network.space.units.values()):
        raise UsageError("no unit of this network can be slimmed; units(model, example) says why")
    settings_of_supernet = checked(SupernetSettings, wide, "supernet")
    with drawing_apart():
        learned = opened(loader, network.device, network.reading.inputs)
        scored = opened(holdout, network.device, network.reading.inputs, "holdout") if holdout is not None else None
        given = _of_loader(learned, beside({"epochs": epochs, "lr": lr}, train, "train"))
        settings = checked(TrainSettings, given, "train")
        _refuse_unseen(settings, scored)
        task = task_for(network.reading.outputs, task, settings)
        task.check_outputs(network.reading.outputs, network.model.input)
        if start == "weights":
            trained = copy.deepcopy(network.reading.module)
            body = network.holding(trained, network.full, say.say, sort=settings_of_supernet.sort)
            noted = network.model.model_copy(update={"weights": OWN_WEIGHTS})
            network = dataclasses.replace(network, model=noted)
            wide_network = Supernet(body, network.reading, network.full, network.switches)
        else:
            wide_network = network.fresh_supernet()
        costs, widths = Costs.closed_form(network.reading.table), scored_channels(network, settings_of_supernet)
        images = held(scored) if scored else None
        step = supernet_step(wide_network, network.space, settings_of_supernet, costs["flops"], task, seed)
        step, needs = with_memory(step, wide_network.body, network.reading, settings)

        def after_epoch() -> Glance:
            assert images is not None
            on_holdout, some = partial(images.evaluation, EVALUATED), partial(learned.some, GLANCE_IMAGES)
            return glance_at(scores_at(wide_network, widths, task, on_holdout, some, ONE), task.metric)

        training = Training(
            wide_network.kept,
            learned,
            step,
            wide_network.zero_gradients,
            after_epoch=after_epoch if images else None,
            statistics=measure.running_averages(wide_network.private),
            memory=lambda count: needs(network.full, count, settings),
            part=network.reading.part,
            optimizer=_made(optimizer),
            schedule=schedule,
        )
        fit(Job(settings, seed), training, say, ONE, resume=False)
    steering = checked(SpaceSettings, space or {}, "space")
    facts = _facts(network, task, seed, train=settings, supernet=settings_of_supernet, space=steering)
    return SlimmableNetwork(wide_network, network, facts)


def search(
    supernet: SlimmableNetwork,
    holdout: AnyBatches,
    *,
    flops: Bounds | None = None,
    params: Bounds | None = None,
    activation_memory: Bounds | None = None,
    task: Task | None = None,
    settings: Keys | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Found]:
    """Return what the recipe's strategy finds for every budget, largest first, in one pass (AutoSlim, section 3.2).

    Budgets are as on the command line, `"300M"` or `"50%"` of the base network, or numbers; several are `"60%,40%"`, or
    a list. `holdout` gives batches of images that the supernet was not trained on; they are kept on its device.
    `settings` holds keys of a recipe's section `search`; `rivals` need a recipe. Raises BudgetError with the reachable
    range, UsageError for a budget, batches or settings that do not fit, AutoslimError for a supernet whose training
    diverged.
    """
    expected("supernet", supernet, SlimmableNetwork, "what train_supernet or SlimmableNetwork.load gives")
    network, say = supernet.network, reporter(progress)
    if network.switches:
        raise UsageError("a search needs shared BN: switchable BN has weights for its switches alone")
    bounds = {"flops": flops, "params": params, "activation_memory": activation_memory}
    asked = {name: _text(bound, name) for name, bound in bounds.items() if bound is not None}
    if not asked:
        raise UsageError("name a budget: flops='300M', params='2M', activation_memory='4MB', or several")
    reading = network.reading
    costs = Costs.closed_form(reading.table)
    if "activation_memory" in asked:
        costs = costs.also("activation_memory", ActivationMemory.of(reading, pieces(reading)))
    budgets = parse_many(asked, costs(network.base))
    chosen = checked(SearchSettings, settings or {}, "settings")
    if chosen.rivals:
        raise UsageError("settings.rivals: they are trained as a recipe says; the command `search` does, of a recipe")
    check_reach(network.space, costs, budgets)
    device = next(supernet.parameters()).device
    own, steps = task is not None, list[Step]()
    with drawing_apart():
        images = held(opened(holdout, device, reading.inputs, "holdout"))
        task = task_for(reading.outputs, task)
        refuse_settings(chosen, task, len(images))
        # A copy as the command has it: what the caller's supernet runs at stays as it is.
        copied = Supernet(supernet.supernet.extract(network.full), reading, network.full)
        problem, scorer = prepared(
            *(copied, network.space, costs, budgets, images, task, chosen), seed=seed, ranks=ONE, say=say.say
        )
        strategy, log = STRATEGIES[chosen.strategy], SearchLog(Path(), {}, writing=False, metric=task.metric)
        journal = Journal(costs, scorer, log)
        forecast = foresee(problem, strategy, scorer.images / scorer.images_of(1))
        with say.bar("searching", forecast.steps) as bar:

            def told(step: Step) -> None:
                steps.append(step)
                bar(min(journal.number, forecast.steps), partial(step_progress, costs, step, budgets[-1]))

            spelled_out = network.space.spelled_out  # a network that is read anew knows of no ties
            found = [
                Found(
                    *(supernet, str(one.budget), spelled_out(one.channels), costs(one.channels)),
                    *(one.score, scorer.images),
                )
                for one in answered(strategy, problem, journal, told)
            ]
    if own and (why := decided_by_cost(problem, steps)):
        say.say(why)
    return found


def retrain(
    network: Found | nn.Module,
    loader: AnyBatches,
    *,
    epochs: int,
    lr: float = 0.1,
    holdout: AnyBatches | None = None,
    task: Task | None = None,
    teacher: nn.Module | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule | None = None,
    settings: Keys | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> nn.Module:
    """Train what was found from scratch, or a plain network from the weights that it has; return it in eval mode.

    A network is trained in place: `found.network("supernet")` is fine-tuned, and a newly built one of yours becomes the
    base to compare with. `loader`, `holdout`, `task`, `optimizer` and `schedule` are as in `train_supernet`;
    `settings` holds keys of a recipe's section `retrain`; a `teacher` is learned from beside the targets, and is not
    changed. Ends by measuring BN statistics on batches of the loader where `settings` say so, or running averages are
    too young. Errors as in `train_supernet`.
    """
    expected("network", network, (Found, nn.Module), "a network, an nn.Module, or what a search found")
    if isinstance(network, SlimmableNetwork):
        raise UsageError("network: a supernet; retrain what a search found in it, or its found.network('supernet')")
    if teacher is not None:
        expected_network("teacher", teacher)
    where, say = choose_device(device), reporter(progress)
    plain = on_device(network.network() if isinstance(network, Found) else network, where)
    with drawing_apart():
        learned = opened(loader, where)
        scored = opened(holdout, where, what="holdout") if holdout is not None else None
        given = _of_loader(learned, beside({"epochs": epochs, "lr": lr}, settings, "settings"))
        if of_recipe := sorted({"start", "teacher", "distill"} & given.keys()):
            raise UsageError(f"settings.{of_recipe[0]}: names what lies in a recipe's directory; leave it out")
        chosen = checked(RetrainSettings, given, "settings")
        _refuse_unseen(chosen, scored)
        outputs = outputs_of(plain, learned)
        task = task_for(outputs, task, chosen)
        task.check(outputs, learned.first[1])
        images = held(scored) if scored else None
        calibrates = ends_in_calibration(chosen, plain, learned.count)

        def end(trained: nn.Module) -> None:
            if calibrates:
                measure.calibrate(trained, learned.some(CALIBRATED))

        def score(trained: nn.Module) -> Score:
            assert images is not None
            return measure.evaluate(trained, images.evaluation(EVALUATED), task)

        taught_by = on_device(copy.deepcopy(teacher), where).eval().requires_grad_(False) if teacher else None
        step = learning(plain, task, chosen, taught_by)
        if chosen.activation_checkpointing:
            step, _ = with_memory(step, plain, read(plain, *input_shapes(learned.first[0])), chosen)
        training = Training(
            plain,
            learned,
            step,
            lambda: plain.zero_grad(set_to_none=True),
            after_epoch=(lambda: glance_as_ended([plain], task, end, score)) if images else None,
            statistics=measure.running_averages(plain),
            optimizer=_made(optimizer),
            schedule=schedule,
        )
        fit(Job(chosen, seed), training, say, ONE, resume=False)
        end(plain)
    return plain.eval()


def _facts(network: BaseNetwork, task: Task, seed: int, **sections: Settings) -> dict[str, object]:
    """Return what a supernet's file says of how it was made: as the command's, but with the caller's own images."""
    recipe = {"seed": seed, "data": {}, **{name: one.model_dump(mode="json") for name, one in sections.items()}}
    contents = {"network": network.digest, "images": "the caller's own batches"}
    made_from = {"recipe": recipe, "contents": contents, "parents": {}, "versions": versions()}
    return {"made_from": made_from, "metric": task.metric.model_dump(mode="json")}


def _of_loader(loader: Loader, given: Keys) -> dict[str, object]:
    """Return settings with the loader's batch. Raises UsageError if they say another."""
    if "batch" in given:
        raise UsageError("batch: it is the loader's; leave it out, or set micro_batch")
    return {**given, "batch": loader.batch}


def _text(bounds: Bounds, measure: str) -> str:
    """Return budgets as people write them on the command line; a number is of the measure's smallest unit."""
    several = bounds if isinstance(bounds, Sequence) and not isinstance(bounds, str) else [bounds]
    unit = min(MEASURES[measure].units.items(), key=lambda pair: pair[1])[0]
    return ",".join(one if isinstance(one, str) else f"{one}{unit}" for one in several)


def _refuse_unseen(settings: TrainSettings, holdout: Loader | None) -> None:
    """Raise UsageError if a holdout decides how a training ends, and there is none."""
    if settings.validates and holdout is None:
        raise UsageError("keep: best and patience go by the holdout's loss: pass holdout=")


def _made(optimizer: MakeOptimizer | None) -> Callable[[nn.Module], Optimizer] | None:
    """Return what makes a network's optimizer of what makes one of parameters."""
    return (lambda network: optimizer(network.parameters())) if optimizer else None
