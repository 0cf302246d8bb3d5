"""Say what a retraining starts from, and who teaches it."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.learned import difference_of_classes, learned_from, refuse_unsuited
from autoslim_cli.files.names import SUPERNET_FILE
from autoslim_cli.files.weights import load_weights
from autoslim_cli.models.library_weights import DEFAULT, is_library_name, library_weights
from autoslim_cli.models.zoo import build
from autoslim_cli.network.rebuild import on_device
from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.schema import BASE_FILE, BaseSettings, ModelSettings
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.slimming.trained_weights import load_trained
from autoslim_cli.stages.evaluate import trained_model
from autoslim_cli.stages.expected_images import warn_of_normalisation, warn_of_weights
from autoslim_cli.stages.project import Project, images_now, load_supernet, weights_key
from autoslim_cli.stages.seen_images import KEPT, refuse_unfit_base, warn_of_seen_holdout
from autoslim_cli.training.measure import calibrate, calibration_batches


def started(project: Project, channels: Channels) -> nn.Module:
    """Return the network at `channels` with the weights that `retrain.start` names, on the device.

    Raises UsageError if the supernet does not hold these channels, or has switches of others, ArtifactError if a file
    is missing, damaged or of another network.
    """
    _refuse_nameless_weights(project)
    start, network = project.recipe.retrain.start, project.network
    if start == "scratch":
        return network.fresh(channels)
    if start == "weights":
        _check_weights(project, same_holdout=project.recipe.retrain.validates)
        sort, key = project.recipe.supernet.sort, weights_key(project)
        if _comes_first(project):
            warn_of_seen_holdout(project, project.directory / str(project.recipe.model.weights))
        return network.trained(channels, project.directory, project.reporter.say, sort=sort, key=key)
    if start == "supernet":
        refuse_missing_channels(project, channels)
        same = project.recipe.retrain.validates  # else nothing is scored on the holdout
        return _extracted(project, load_supernet(project, same_holdout=same), channels)
    built = network.fresh(channels)
    path = _file(project, "start", start)
    given = load_weights(path, "retrain.start", _without_counts(built))
    if given.done:
        project.reporter.say("; ".join([f"starting from {path}", *given.done]))
    _warn_of_other_classes(project, path)
    if project.recipe.retrain.validates and not _comes_first(project):
        warn_of_seen_holdout(project, path, _key(project, "start"), KEPT)
    checkpoint.fill(built, _with_counts(given.tensors, built), path)
    return built


def _warn_of_other_classes(project: Project, path: Path) -> None:
    """Say if a checkpoint that is trained on knows other classes: that may be meant, and costs epochs if it is not."""
    with suppress(ArtifactError):  # weights of one's own, of which nothing is known
        learned = learned_from(checkpoint.read_any(path))
        if learned and (why := difference_of_classes(learned.class_names, project.images.class_names)):
            project.reporter.warn(f"{path} learned other classes ({why}): its last layer starts as that of others")


def teacher(project: Project) -> nn.Module | None:
    """Return the network that `retrain.teacher` names, in eval mode and frozen, None for none.

    Raises ArtifactError if a file is missing, damaged, or of a network for other images or classes, UsageError for an
    unknown name of a library's network or weights, or code that is not trusted.
    """
    name, model = project.recipe.retrain.teacher, project.recipe.model
    if name == "none":
        return None
    _refuse_nameless_weights(project)
    if name == "supernet":
        supernet = load_supernet(project, same_holdout=False)
        network = _extracted(project, supernet, next(iter(supernet.switches.values()), supernet.full))
    elif name == "weights":
        _check_weights(project, same_holdout=False)
        network, done = load_trained(project.network.reading, model, project.directory, whole=True)
        project.reporter.say("; ".join([f"taught by {model.weights}", *done]))
    elif named := _library_teacher(project):
        network = _of_library(project, *named)
    else:
        path = _file(project, "teacher", name)
        if _comes_first(project):
            warn_of_seen_holdout(project, path, _key(project, "teacher"))
        network, config = trained_model(path, project.trust)
        facts = checkpoint.read_any(path)
        if (config.model.input, config.model.classes) != (model.input, model.classes):
            raise ArtifactError(
                f"{_key(project, 'teacher')}: {path} takes {list(config.model.input)} and gives "
                f"{config.model.classes} classes, and the recipe's model {list(model.input)} and {model.classes}"
            )
        refuse_unsuited(path, facts, images_now(project))
    return on_device(network, project.device, model.trace).eval().requires_grad_(False)


def refuse_missing(project: Project) -> None:
    """Raise what `started` would for want of files or names, and `teacher` for any reason: before hours of work.

    Those that earlier stages make need not be there yet.
    """
    _refuse_nameless_weights(project)
    parents(project)
    made_before = ("supernet", "weights") if project.recipe.base else ("supernet",)
    if project.recipe.retrain.teacher not in made_before:
        teacher(project)


def refuse_no_supernet(project: Project) -> None:
    """Raise ArtifactError where a network is to start, or learn, from a supernet that is not there or is damaged."""
    if "supernet" in (project.recipe.retrain.start, project.recipe.retrain.teacher):
        path = project.directory / SUPERNET_FILE
        checkpoint.read_facts(path, checkpoint.SUPERNET, project.commands("train-supernet"))


def contents(project: Project) -> dict[str, str]:
    """Return what names stand for that a retraining is made from, beside its files: a library's weights."""
    named = _library_teacher(project)
    return {"teacher": library_weights(*named, _key(project, "teacher")).address} if named else {}


def _library_teacher(project: Project) -> tuple[ModelSettings, str] | None:
    """Return the network and the weights that `retrain.teacher` names in a library; None if it names no such.

    `DEFAULT` and the like are of the recipe's own network, `timm/resnet50` or `torchvision/resnet50:IMAGENET1K_V2` of
    another.
    """
    name, model = project.recipe.retrain.teacher, project.recipe.model
    if name.startswith(("torchvision/", "timm/")):
        other, _, weights = name.partition(":")
        grey = {"in_chans": model.input[0]} if name.startswith("timm/") and model.input[0] != 3 else {}
        return ModelSettings(name=other, args=grey, input=model.input, classes=model.classes), weights or DEFAULT
    if name not in ("none", "supernet", "weights") and is_library_name(name, project.directory):
        return model.architecture, name
    return None


def _check_weights(project: Project, *, same_holdout: bool) -> None:
    """Warn of the recipe's weights where they are for other images; a base network must be the one that it makes."""
    warn_of_weights(project)
    if project.recipe.base and not _comes_first(project):
        refuse_unfit_base(project, same_holdout=same_holdout)
    elif same_holdout and not _comes_first(project):
        warn_of_seen_holdout(project, project.directory / str(project.recipe.model.weights), "model.weights", KEPT)


def _of_library(project: Project, model: ModelSettings, name: str) -> nn.Module:
    """Return a network with trained weights of its library.

    Raises ArtifactError if those are for other classes, UsageError if the network does not take the recipe's images.
    """
    key = _key(project, "teacher")
    weights = library_weights(model, name, key)
    warn_of_normalisation(project, model, name, key)
    with torch.random.fork_rng(devices=[]):
        network = build(model, project.directory)
    given = weights.load(key)
    checkpoint.fill(network, _with_counts(given, network), f"{key}: {name} of {model.name}")
    try:
        with torch.inference_mode():
            outputs = network.eval()(*(torch.zeros(2, *shape) for shape in model.shapes))
    except Exception as error:  # whatever another network's code raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{key}: {model.name} takes no images of {list(model.input)}: {reason}") from None
    project.task.check_outputs(outputs, model.input)
    return network


def also(project: Project) -> list[str]:
    """Return what a start and a teacher are made from beside files and names, as `origin` calls it: `weights`."""
    settings = project.recipe.retrain
    return ["weights"] if "weights" in (settings.start, settings.teacher) else []


def keys(project: Project) -> list[str]:
    """Return what a start and a teacher depend on of the recipe beside `retrain`: sections, and keys of sections.

    What is cut out of the supernet is calibrated, but for a switch. Weights are sorted unit by unit: ties and pins say
    which units there are.
    """
    settings, found = project.recipe.retrain, list[str]()
    if "supernet" in (settings.start, settings.teacher) and not project.network.switches:
        found.append("calibrate")
    if settings.start == "weights" and not _comes_first(project):  # which keeps all channels in order
        found += ["supernet.sort", "space.tie", "space.pin"]
    return found


def parents(project: Project) -> list[Path]:
    """Return the files that a retraining is made from beside its config."""
    settings, found = project.recipe.retrain, []
    for key, name, words in (
        ("start", settings.start, ("scratch", "weights")),
        ("teacher", settings.teacher, ("none", "weights")),
    ):
        if name == "supernet":
            found.append(project.directory / SUPERNET_FILE)
        elif name not in words and not (key == "teacher" and _library_teacher(project)):
            found.append(_file(project, key, name))
    return list(dict.fromkeys(found))


def refuse_missing_channels(project: Project, channels: Channels) -> None:
    """Raise UsageError where a network is to start from the supernet, which lacks its channels, or a switch of them."""
    if project.recipe.retrain.start != "supernet":
        return
    for name, count in channels.items():
        if count > (there := project.network.full[name]):
            raise UsageError(
                f"retrain.start: the supernet has {there} channels of {name}, not {count}; start from scratch, or "
                "train a wider supernet"
            )
    if project.network.switches and channels not in project.network.switches.values():
        raise UsageError(
            f"retrain.start: no switch has these channels; there are {', '.join(project.network.switches)}, and BN of "
            "other channels was never trained; start from scratch"
        )


def _refuse_nameless_weights(project: Project) -> None:
    """Raise UsageError where a network is to start, or learn, from weights that the recipe does not name."""
    for key in ("start", "teacher"):
        if getattr(project.recipe.retrain, key) == "weights" and project.recipe.model.weights is None:
            raise UsageError(f"retrain.{key}: weights are those of model.weights, which the recipe does not name")


def _extracted(project: Project, supernet: Supernet, channels: Channels) -> nn.Module:
    """Return a sub-network with its own BN statistics: a switch's BN, or what is measured now."""
    if supernet.switches:  # one of which has these channels: others were refused
        return supernet.extract(channels, next(name for name, own in supernet.switches.items() if own == channels))
    plain, settings, ranks = supernet.extract(channels), project.recipe.calibrate, project.ranks
    calibrate(plain, calibration_batches(project.images.training, settings.images, settings.batch, ranks), ranks)
    return plain


def title(project: Project) -> str:
    """Return what a training starts from, as its recipe says it."""
    settings, base = project.recipe.retrain, project.recipe.base
    return base.start if base and _comes_first(project) else settings.start


def _comes_first(project: Project) -> bool:
    """Tell whether it is the base network that is trained, from which the supernet starts."""
    return project.recipe.retrain.section == BaseSettings.section


def _key(project: Project, key: str) -> str:
    """Return a setting of the training as messages name it."""
    return f"{project.recipe.retrain.section}.{key}"


def _file(project: Project, key: str, name: str) -> Path:
    """Return the path of a file that a setting names. Raises ArtifactError if there is none."""
    path = project.directory / Path(os.path.expandvars(name)).expanduser()
    if not path.is_file():
        if path.name == BASE_FILE and project.recipe.base and not _comes_first(project):
            raise ArtifactError(
                f"{_key(project, key)}: no file {path}, which train-base makes; `weights` stands for it"
            )
        known = {"start": "scratch, supernet, weights", "teacher": "none, supernet, weights, DEFAULT"}[key]
        raise ArtifactError(f"{_key(project, key)}: no file {path}; write {known}, or a file relative to the recipe")
    return path


def _with_counts(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors with BN's counts of batches, which some files leave out."""
    counted = checkpoint.distinct(network.state_dict())
    return {**{name: counted[name] for name in counted.keys() - _without_counts(network)}, **tensors}


def _without_counts(network: nn.Module) -> set[str]:
    """Return the names of a network's tensors but BN's counts of batches."""
    return {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
