"""Train the base network that the supernet starts from, without the images on which channels are scored later."""

from dataclasses import replace
from typing import Any

from autoslim_cli.errors import UsageError
from autoslim_cli.stages.project import Project
from autoslim_cli.stages.retrain import BASE, retrain


def train_base(project: Project, *, resume: bool = False, force: bool = False) -> dict[str, Any]:
    """Train the base network as the recipe's section `base` says, and write `model-base.safetensors`.

    Returns its figures on the test set. `resume` continues a stopped training, and keeps a network that is already
    there and current; another one is refused by UsageError, unless `force`, which keeps it aside, and gives up a
    stopped training that is not continued. Raises UsageError if the recipe has no such section.
    """
    return retrain(as_base(project), BASE, project.network.base, resume=resume, force=force, replaces=force)


def as_base(project: Project) -> Project:
    """Return the project whose `retrain` is how the base network is trained, from weights of its own if it has any."""
    recipe, settings = project.recipe, project.recipe.base
    if settings is None:
        raise UsageError(
            f"{recipe.model.name}: the recipe has no section base, which says how: add `base: {{epochs: 20}}`, and the "
            f"supernet starts from what it makes; `{project.commands('retrain', '--width', '1')}` trains it alone"
        )
    scratch = settings.start == "scratch"
    model = recipe.model.model_copy(update={"weights": None if scratch else settings.start})
    changed = {
        "model": model,
        "retrain": settings.model_copy(update={"start": "scratch" if scratch else "weights"}),
        "supernet": recipe.supernet.model_copy(update={"sort": False}),  # all channels stay
    }
    return replace(project, recipe=recipe.model_copy(update=changed), network=replace(project.network, model=model))
