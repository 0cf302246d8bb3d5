"""Refuse, or say, where what a supernet starts from has seen the holdout: what a search scores there flatters."""

from contextlib import suppress

from pydantic import ValidationError

from autoslim_cli.files.checkpoint import read_any
from autoslim_cli.files.kinds import NETWORK, what_is
from autoslim_cli.files.learned import refuse_other_images
from autoslim_cli.files.provenance import difference
from autoslim_cli.models.library_weights import is_library_name
from autoslim_cli.recipe.schema import Recipe, RetrainSettings
from autoslim_cli.stages.project import Project


def refuse_seen_holdout(project: Project) -> None:
    """Raise ArtifactError if the recipe's base network learned from images that the holdout holds now.

    Of one that was trained otherwise than the recipe says, it is told how. Other networks of autoslim's that learned
    from all training images are warned of; what is not autoslim's says nothing of its images.
    """
    recipe, name = project.recipe, str(project.recipe.model.weights)
    path = project.directory / name
    if is_library_name(name, project.directory) or what_is(path) != NETWORK:
        return
    facts = read_any(path)
    origin = facts["made_from"]
    then = origin.get("recipe", {})
    if recipe.base and "base" in then:
        refuse_other_images(path, facts, recipe, project.images.digest, project.commands("train-base", "--force"))
        before, now = (Recipe.decisive(one) for one in ({"base": then["base"]}, recipe.sections("base")))
        if why := difference(before, now):
            project.reporter.say(f"{path} was trained with other settings, and is taken as it is: {why}")
    elif origin.get("contents", {}).get("images") == project.images.digest:
        with suppress(ValidationError):  # of what was cut out of a supernet, or a later version's
            if not RetrainSettings.model_validate(then.get("retrain")).spares_holdout:
                project.reporter.warn(
                    f"model.weights: {path} learned from the holdout's images, too, so what a search scores on them "
                    "flatters; a recipe's section `base` trains a base network without them"
                )
