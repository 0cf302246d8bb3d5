"""Open a recipe's task: a built-in one, or the user's own."""

import functools
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoslim_cli.data.batch import shapes
from autoslim_cli.errors import AutoslimError, UsageError, is_out_of_memory
from autoslim_cli.files.metric import Metric
from autoslim_cli.own_code import code_digest, load_factory
from autoslim_cli.recipe.errors import explain
from autoslim_cli.recipe.schema import Recipe, TaskSettings, TrainSettings
from autoslim_cli.training.detection import detection
from autoslim_cli.training.task import Task
from autoslim_cli.training.tasks import classification, multi_label, segmentation, super_resolution


def task_of(recipe: Recipe, directory: Path, training: TrainSettings | None = None, loaded: Task | None = None) -> Task:
    """Return a recipe's task; `training` are the settings of a training, which may smooth labels.

    The user's own is the one that was `loaded`, if it was: its code may have changed since.

    Raises UsageError naming the recipe key for what does not fit together.
    """
    settings, classes = recipe.task, recipe.model.classes
    smoothing = training.label_smoothing if training else 0.0
    if smoothing and settings.name not in ("classification", "segmentation"):
        raise UsageError(f"label_smoothing: of classification and segmentation, not of {settings.name}; leave it out")
    if settings.is_own and loaded is not None:
        return loaded
    if settings.is_own:
        return _guarded(replace(_own(settings, directory), name=settings.name), "task.name: its")
    if settings.name != "super-resolution" and classes is None:
        raise UsageError(f"model.classes is missing: {settings.name} wants as many outputs as there are classes")
    if settings.of_boxes and not recipe.model.trace:
        raise UsageError(
            "model.trace is missing: of a detector a part is slimmed, as backbone, while the rest keeps its channels"
        )
    built: dict[str, Callable[[int], Task]] = {
        "classification": lambda classes: classification(classes, smoothing),
        "segmentation": lambda classes: segmentation(classes, settings.ignored, smoothing),
        "super-resolution": lambda _: super_resolution(settings.enlarges, settings.distill or "l2"),
        "multi-label": multi_label,
        "detection": lambda classes: detection(classes, recipe.model.trace, settings.metric or "ap"),
    }
    return _guarded(built[settings.name](classes or 0), f"task {settings.name}: its")


def task_digest(settings: TaskSettings, directory: Path) -> dict[str, str]:
    """Return `sha256:...` of the code of the user's own task, by its name among what an artifact is made from."""
    return {"task": code_digest(settings.name, directory)} if settings.is_own else {}


def _own(settings: TaskSettings, directory: Path) -> Task:
    """Return the user's own task."""
    factory = load_factory(settings.name, directory, "task.name")
    try:
        task = factory(**settings.args)
    except ValidationError as error:
        raise UsageError(f"task.args: {settings.name} cannot be built: {explain(error, Metric)}") from None
    except Exception as error:
        raise UsageError(f"task.args: {settings.name} cannot be built: {_said(error)}") from None
    if not isinstance(task, Task):
        raise UsageError(f"task.name: {settings.name} gave {type(task).__name__}, not an autoslim_cli.Task")
    return task


def _guarded(task: Task, whose: str) -> Task:
    """Return a task whose functions say in one line what they were given when they failed."""
    functions = {field.name: getattr(task, field.name) for field in fields(task)}
    guarded: dict[str, Any] = {
        name: _told(f"{whose} {name}", function) for name, function in functions.items() if callable(function)
    }
    return replace(task, **guarded)


def _told(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that says in one line what it was given when it failed."""

    @functools.wraps(function)
    def told(*given: Any) -> Any:
        try:
            return function(*given)
        except AutoslimError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            of = " and ".join(shapes(one) for one in given)
            raise UsageError(f"{what} failed on {of}: {_said(error)}") from None

    return told


def _said(error: Exception) -> str:
    """Return what an error is and says, in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]
