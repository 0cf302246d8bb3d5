"""Measure a deployable checkpoint on the recipe's test set."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoslim_cli.cost.closed_form import params
from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.atomic import sha256
from autoslim_cli.files.channel_config import ChannelConfig, config_in, read_config
from autoslim_cli.files.learned import refuse_unsuited, shortened
from autoslim_cli.files.making import making_network
from autoslim_cli.files.names import width_of
from autoslim_cli.files.provenance import refuse_another_network
from autoslim_cli.models.trust import Trust, build_named_by
from autoslim_cli.network.digest import digest
from autoslim_cli.network.rebuild import fresh, on_device
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.commands import Commands
from autoslim_cli.slimming.space import Space
from autoslim_cli.stages.calibrate_bn import switch_name
from autoslim_cli.stages.project import Project, images_now, load_supernet
from autoslim_cli.training import measure


def load_model(
    path: str | Path, directory: str | Path | None = None, *, trust: bool = False
) -> tuple[nn.Module, ChannelConfig]:
    """Return the plain network that a `model-*` or `subnet-*` checkpoint holds, in eval mode, and its channel config.

    A file names the factory of its network: with `trust`, one is called that neither autoslim, torchvision nor timm
    lists, and `./net.py` is looked up in `directory`, by default the file's own. Raises UsageError without, and
    ArtifactError if the file is missing, damaged or foreign, or `./net.py` is not what it was made with.
    """
    return trained_model(Path(path), Trust(directory=Path(directory) if directory else None, anything=trust))


def trained_model(path: Path, trust: Trust) -> tuple[nn.Module, ChannelConfig]:
    """Return what `load_model` does, of a file that may call what is trusted."""
    tensors, facts = checkpoint.load(path, checkpoint.MODEL, making_network(path))
    config = config_in(path, facts)
    with torch.random.fork_rng(devices=[]):
        network, now = _network(config, path, trust, most=sum(tensor.numel() for tensor in tensors.values()))
    if config.model.name.startswith("./"):  # a package's networks change with its versions, in name alone
        refuse_another_network(path, facts, config.model.name, now, making_network(path))
    checkpoint.fill(network, tensors, path)
    return network.eval(), config


def untrained_model(path: Path, trust: Trust) -> tuple[nn.Module, ChannelConfig]:
    """Return the plain network of a channel config, newly initialised, in eval mode, and the config."""
    config = read_config(path)
    return _network(config, path, trust)[0].eval(), config


def _network(config: ChannelConfig, path: Path, trust: Trust, *, most: int | None = None) -> tuple[nn.Module, str]:
    """Return the network of a config that a file holds, newly initialised, and the digest of what was read.

    Raises ArtifactError, before memory is taken, if it has more than the `most` weights that the file has.
    """
    built = build_named_by(path, config.model, trust)
    reading = read(built, *config.model.shapes, part=config.model.trace)
    space = Space.of(reading.table, width=1.0, min_width=0.5, groups=1, divisor=1)
    channels = space.check(config.channels, str(path), bounded=False)
    if most is not None and (wanted := params(reading.table, channels)) > most:
        raise ArtifactError(f"{path}: its channels give {wanted:,} parameters, but it holds {most:,} values")
    return fresh(reading.module, reading.table, channels), digest(reading)


def evaluate(project: Project, path: Path, width: float | None = None) -> dict[str, Any]:
    """Return loss and score on the test set, FLOPs and parameters of a checkpoint, or of a switch of the supernet."""
    recipe, base = project.recipe, project.network

    def score(network: nn.Module) -> dict[str, float]:
        if untested := project.images.untested():
            project.reporter.say(f"the score says nothing of classes without a test image: {shortened(untested)}")
        with project.reporter.doing("measuring on the test images"):
            ranks = project.ranks
            if ranks.size > 1:  # one process alone has nothing to compare with
                measured = {"test images": project.images.test.source.digest, "file": sha256(path)}
                ranks.agreed(measured, "things to measure")
            batches = project.images.test.evaluation(recipe.evaluate.batch, rank=ranks.rank, size=ranks.size)
            return measure.evaluate(network, batches, project.task, ranks).figures

    if width is not None:
        name = switch_name(project, width)
        switch = load_supernet(project, path, same_holdout=False).extract(base.switches[name], name)
        refuse_unsuited(path, checkpoint.read_any(path), images_now(project, "test"))
        return {"path": str(path), "switch": name, **project.costs(base.switches[name]), **score(switch)}
    facts = checkpoint.read_any(path, making_network(path))
    _refuse_supernet(project, path, facts)
    network, config = trained_model(path, project.trust)
    expected, given = config.model, recipe.model
    if (expected.input, expected.classes) != (given.input, given.classes):
        raise ArtifactError(
            f"{path}: takes {list(expected.input)} and gives {expected.classes} classes, but the recipe's data is "
            f"{list(given.input)} and {given.classes}; {_with_its_own(project, path)}"
        )
    refuse_unsuited(path, facts, images_now(project, "test"))
    assert config.cost is not None
    cost = {"flops": config.cost.flops, "params": config.cost.params}
    return {"path": str(path), **cost, **score(on_device(network, project.device, config.model.trace))}


def _with_its_own(project: Project, path: Path) -> str:
    """Say with which recipe a checkpoint of another model than that of the recipe in use can be measured."""
    own = Commands.of_file(path)
    if own.directory is None:
        return f"name the recipe that it was made by: `{own('evaluate', path)}`"
    if own.directory.resolve() != project.directory.resolve():
        return f"it lies in another recipe, which measures it: `{own.on_file('evaluate', path)}`"
    return "restore model.input and model.classes, or make it again"


def _refuse_supernet(project: Project, path: Path, facts: dict[str, Any]) -> None:
    """Raise UsageError for a supernet, of which nothing says what to measure."""
    if facts["format"] == checkpoint.SUPERNET:
        switches = [f"{width:g}" for name in facts.get("switches", {}) if (width := width_of(name))]
        cut = project.commands("calibrate-bn", "--widths", "0.5,1")
        which = (
            f"--width names the switch to measure: {', '.join(switches)}"
            if switches
            else f"`{cut}` cuts networks out of it that can be measured"
        )
        raise UsageError(f"{path}: a supernet; {which}")
