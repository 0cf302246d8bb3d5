"""Refuse, or say, where what a supernet starts from has seen the holdout: what a search scores there flatters."""

from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.checkpoint import read_any
from autoslim_cli.files.kinds import NETWORK, what_is
from autoslim_cli.files.learned import difference_of_holdouts, refuse_other_images, refuse_unsuited
from autoslim_cli.files.provenance import difference, refuse_another_network
from autoslim_cli.recipe.schema import Recipe, RetrainSettings
from autoslim_cli.stages.project import Project, images_now, weights_key

_SECTIONS = ("base", "data")
"""What the training of a base network is said to differ in."""


def refuse_unfit_base(project: Project, *, same_holdout: bool = True) -> None:
    """Raise ArtifactError if the base network is not one that the recipe's section `base` makes, holdout and all.

    Of one that was trained with other settings it is told which. Where nothing is scored on the holdout (not
    `same_holdout`), it may have been another one.
    """
    recipe, network, images = project.recipe, project.network, project.images
    path, again = project.directory / str(recipe.model.weights), project.commands("train-base", "--force")
    facts = read_any(path) if what_is(path) == NETWORK else {}
    then = facts.get("made_from", {}).get("recipe", {})
    if "base" not in then:
        raise ArtifactError(
            f"{path} was not made as the recipe's section base says; `{again}` does it, and keeps this one"
        )
    refuse_unsuited(path, facts, images_now(project))
    refuse_another_network(path, facts, recipe.model.name, network.digest, again)
    refuse_other_images(path, facts, recipe, images.digest, again, same_holdout=same_holdout)
    before, now = (Recipe.decisive(one) for one in ({k: then.get(k) for k in _SECTIONS}, recipe.sections(*_SECTIONS)))
    if why := difference(before, now):
        project.reporter.say(f"{path} was trained with other settings, and is taken as it is: {why}")


SEARCHED = "so what a search scores on them flatters; a recipe's section `base` trains a base network without them"
KEPT = "so which epoch is best is judged on images that the network knows"
"""What comes of a holdout that was seen."""


def warn_of_seen_holdout(project: Project, path: Path, key: str | None = None, so: str = SEARCHED) -> None:
    """Warn of a network of autoslim's that has learned from images of the holdout; of others nothing is known.

    `key` is the recipe's that names it: by default that of the weights to start from. `so`: what comes of it.
    """
    if what_is(path) != NETWORK:
        return
    facts = read_any(path)
    origin = facts["made_from"]
    data = origin.get("recipe", {}).get("data", {})
    if origin.get("contents", {}).get("images") != project.images.digest:
        now = project.recipe.data
        if data.get("name") == now.name and data.get("limit") != now.limit:  # other images, of the same data perhaps
            project.reporter.warn(
                f"{key or weights_key(project)}: {path} learned from images chosen by another data.limit, and may have "
                f"seen those of the holdout, {so}"
            )
        return
    if not _spared(origin.get("recipe", {})) or difference_of_holdouts(facts, project.recipe):
        project.reporter.warn(f"{key or weights_key(project)}: {path} learned from images of the holdout, {so}")


def _spared(recipe: dict[str, object]) -> bool:
    """Tell whether a training spared the holdout of its own recipe: that of a supernet, which is cut, does."""
    if "base" in recipe or "retrain" not in recipe:
        return True
    with suppress(ValidationError):  # of a version that knows other settings
        return RetrainSettings.model_validate(recipe["retrain"]).spares_holdout
    return False
