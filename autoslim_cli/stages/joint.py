"""Train several found networks as one slimmable network, and split it after (AutoSlim, section 4.1)."""

from pathlib import Path
from typing import Any

from autoslim_cli.cost.configs import config_of, read_channels
from autoslim_cli.cost.forward_memory import forward_memory
from autoslim_cli.data.batch import Tree
from autoslim_cli.errors import UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.channel_config import by_name, chosen_by
from autoslim_cli.files.names import joint_name, model_file, state_file
from autoslim_cli.recipe.schema import RetrainSettings
from autoslim_cli.slimming.supernet import Supernet, largest
from autoslim_cli.stages.project import Project, learned_from, origin
from autoslim_cli.stages.retrain import (
    end_training,
    glance,
    looks,
    on_test_images,
    read_last,
    sections,
    training_images,
)
from autoslim_cli.training.checkpointing import with_memory
from autoslim_cli.training.job import Glance, Job, Losses, Result, Training
from autoslim_cli.training.measure import running_averages
from autoslim_cli.training.opening import task_of
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.sandwich import run_switches, sandwich_step
from autoslim_cli.training.score import measured
from autoslim_cli.training.trained import trained

STATE_FILE = state_file("joint")


def retrain_jointly(
    project: Project, configs: list[Path], *, resume: bool = False, force: bool = False
) -> list[dict[str, Any]]:
    """Train the networks of channel configs with shared weights and private BN, and split them after.

    Writes `model-<name>-joint.safetensors` each, beside what was trained alone. All learn from the labels, in every
    step, or with `retrain.distill` all but the largest from it. Returns their figures on the test set. Raises
    UsageError for two configs of one name, and for settings of a network that trains alone.
    """
    recipe, network, costs = project.recipe, project.network, project.costs
    named = by_name(configs)
    if len(named) < 2:
        raise UsageError("--joint: name two or more channel configs of different names")
    _refuse_settings(recipe.retrain)
    found = {name: read_channels(path, network, costs, bounded=False) for name, path in named.items()}
    switches = dict(sorted(found.items(), key=lambda item: costs["flops"](item[1]), reverse=True))
    paths = {name: project.directory / model_file(joint_name(name)) for name in switches}
    chosen = {name: chosen_by(path) for name, path in named.items()}
    job = Job(
        settings=recipe.retrain,
        seed=recipe.seed,
        made_from={
            **origin(project, *sections(project), parents=configs, also=["test images"]),
            "joint": list(switches),
        },
        format=checkpoint.MODEL,
        channels={paths[name]: network.space.spelled_out(channels) for name, channels in switches.items()},
        state=project.directory / STATE_FILE,
        forced=force,
        track=recipe.track,
        read_last=read_last(project),
    )
    facts = trained(
        job, lambda: _training(project, switches, paths, chosen), project.reporter, project.ranks, resume=resume
    )
    return [
        {"name": name, "path": str(paths[name]), **costs(channels), **facts[paths[name]]["test"]}
        for name, channels in switches.items()
    ]


def _refuse_settings(settings: RetrainSettings) -> None:
    """Raise UsageError for a start or a teacher: networks that share their weights have neither."""
    if settings.start != "scratch":
        raise UsageError(
            f"retrain.start: {settings.start}: with --joint networks start from scratch; add --from scratch"
        )
    if settings.teacher != "none":
        raise UsageError(
            f"retrain.teacher: {settings.teacher}: with --joint there is none but the largest network "
            "(retrain.distill); set it to none"
        )


def _training(
    project: Project, switches: dict[str, dict[str, int]], paths: dict[str, Path], chosen: dict[str, str]
) -> Training:
    """Build the slimmable network, and say how it is trained, split and measured."""
    recipe, network, costs = project.recipe, project.network, project.costs
    full = largest(switches)
    slimmable = Supernet(network.fresh(full), network.reading, full, switches)
    configs = {name: config_of(network, costs, channels) for name, channels in switches.items()}
    images = training_images(project)
    project.images.check_test()  # before any work
    task = task_of(recipe, project.directory, recipe.retrain, project.task)
    (first, *others), distill = switches, recipe.retrain.distill
    if distill and not task.teaches:
        raise UsageError(f"retrain.distill: in {task.name} networks learn from the targets alone; leave it out")
    text = "  ".join(f"{name} {costs['flops'](channels) / 1e6:.2f}M" for name, channels in switches.items())
    project.reporter.say(f"retraining jointly: FLOPs {text}")

    def step(inputs: Tree, targets: Tree, over: Pass) -> Losses:
        run = run_switches(slimmable)
        losses = sandwich_step(run, inputs, targets, first, others, task=task, distill=distill, over=over)
        return dict(zip(switches, losses, strict=True))

    def after_epoch() -> Glance:
        return glance(project, (slimmable.extract(channels, name) for name, channels in switches.items()), task)

    def results() -> dict[Path, Result]:
        ended = {}
        for name, channels in switches.items():
            plain = slimmable.extract(channels, name)
            end_training(project, plain)
            score = on_test_images(project, plain, task)
            config = configs[name].model_dump(mode="json", exclude_none=True)
            facts = {"config": config, "chosen_by": chosen[name], **measured("test", score), **learned_from(project)}
            ended[paths[name]] = Result(plain.state_dict(), facts)
        return ended

    statistics = running_averages(slimmable.private)
    lean, needs = with_memory(step, slimmable.body, network.reading, recipe.retrain)

    def memory(count: int) -> int:
        return needs(full, count, recipe.retrain)

    return Training(
        slimmable,
        images,
        lean,
        slimmable.zero_gradients,
        results,
        statistics=statistics,
        memory=memory,
        looks=looks(project),
        look_memory=forward_memory(slimmable.extract(switches[first], first), network.reading),
        part=network.reading.part,
        after_epoch=after_epoch if recipe.retrain.validates else None,
    )
