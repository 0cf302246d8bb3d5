"""Complete what a person begins to type in a shell: names of recipes and of files. Imports no torch."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from autoslim_cli.files import names

CONFIGS = (names.CONFIGS,)
CHECKPOINTS = ("*.safetensors",)
TABLES = (names.TABLES,)


def recipes(incomplete: str) -> list[str]:
    """Return the recipes that a text may become: names of those here and of shipped ones, and directories."""
    from autoslim_cli.recipe.catalogue import known
    from autoslim_cli.recipe.loading import RECIPE_FILE

    typed = _directory(incomplete)
    directories = (typed + path.parent.name for path in Path(typed).glob(f"*/{RECIPE_FILE}"))
    return _beginning(incomplete, [*known(), *directories])


def shipped_recipes(incomplete: str) -> list[str]:
    """Return the shipped recipes that a text may become."""
    from autoslim_cli.recipe.catalogue import shipped

    return _beginning(incomplete, shipped())


def files(*patterns: str) -> Callable[[str], list[str]]:
    """Return what completes the names of files: those of the directory that a text names, or of all recipes here."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(incomplete, _files(incomplete, patterns))

    return complete


def files_and_recipes(*patterns: str) -> Callable[[str], list[str]]:
    """Return what completes the names of files and of recipes."""

    def complete(incomplete: str) -> list[str]:
        return [*files(*patterns)(incomplete), *recipes(incomplete)]

    return complete


def _files(incomplete: str, patterns: tuple[str, ...]) -> Iterator[str]:
    """Yield the files of some patterns in the directory that a text names, and in those of recipes."""
    typed = _directory(incomplete)
    for pattern in patterns:
        yield from (typed + path.name for path in Path(typed).glob(pattern))
        yield from map(str, Path().glob(f"recipes/*/{pattern}"))


def _directory(incomplete: str) -> str:
    """Return the directory that a text names so far, as it was typed."""
    return incomplete[: incomplete.rfind("/") + 1]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin as a text does; a name of several lines would be several to a shell."""
    return sorted({name for name in names if name.startswith(incomplete) and "\n" not in name})
