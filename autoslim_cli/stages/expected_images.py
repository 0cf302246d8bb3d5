"""Say where images are normalised otherwise than trained weights of a library expect."""

from autoslim_cli.models.library_weights import is_library_name, library_weights
from autoslim_cli.recipe.schema import ModelSettings, normalisation
from autoslim_cli.stages.project import Project, weights_key


def warn_of_weights(project: Project) -> None:
    """Warn, where weights to start from are a library's, if they expect images that are normalised otherwise."""
    model = project.recipe.model
    if model.weights and is_library_name(model.weights, project.directory):
        warn_of_normalisation(project, model, model.weights, weights_key(project))


def warn_of_normalisation(project: Project, model: ModelSettings, name: str, key: str) -> None:
    """Warn if images are normalised otherwise than a library's weights expect, and the recipe does not say how.

    `key` is the recipe's that names the weights. A recipe that says mean and deviation means them, and a data set of
    the user's own may normalise images itself.
    """
    data = project.recipe.data
    left_out = [f"data.{word}" for word, values in (("mean", data.mean), ("std", data.std)) if values is None]
    weights = library_weights(model, name, key)
    if data.is_own or not left_out or len(weights.mean) != project.recipe.model.input[0]:
        return
    expected = normalisation(weights.mean, weights.std, of_boxes=False)
    given = normalisation(data.mean, data.std, of_boxes=project.recipe.task.of_boxes)
    if expected != given:
        said = " ".join(f"data.{word}={[*values]}" for word, values in zip(("mean", "std"), expected, strict=True))
        project.reporter.warn(
            f"{key}: {name} of {model.name} learned from images of {said.replace(', ', ',')}, and the recipe leaves "
            f"{' and '.join(left_out)} out: results will be poorer than need be; add them to the recipe"
        )
