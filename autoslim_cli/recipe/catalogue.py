"""Find recipes: a path, `recipes/NAME` here, or a shipped one that is copied here first."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from autoslim_cli.errors import UsageError
from autoslim_cli.near import near
from autoslim_cli.recipe.loading import RECIPE_FILE

DEFAULT_RECIPE = "digits"
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_root() -> Path:
    """Return the directory of the shipped recipes: inside the wheel, or the repository's `recipes/`."""
    inside = _PACKAGE / "recipes"
    return inside if inside.is_dir() else _PACKAGE.parent / "recipes"


def shipped() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    return {path.parent.name: path.parent for path in sorted(shipped_root().glob(f"*/{RECIPE_FILE}"))}


def here(name: str) -> Path | None:
    """Return the directory of a recipe that is a path, or `recipes/NAME`; None if it is neither."""
    places = (Path(name), Path("recipes") / name)
    return next((path for path in places if (path / RECIPE_FILE).is_file()), None)


def known() -> list[str]:
    """Return the names of the shipped recipes and of those in `recipes/`."""
    return sorted({*shipped(), *(path.parent.name for path in Path("recipes").glob(f"*/{RECIPE_FILE}"))})


def recipe_of(path: Path) -> Path | None:
    """Return the recipe directory that a file lies in, if it lies in one (or in its published/)."""
    inside = path.parent
    directories = (inside, inside / ".." if inside.name in ("", "..") else inside.parent)  # relative to anywhere
    return next((directory for directory in directories if (directory / RECIPE_FILE).is_file()), None)


def find(
    name: str | None,
    say: Callable[[str], None],
    *,
    check: Callable[[Path], object] = lambda _: None,
    may_copy: bool = True,
) -> Path:
    """Resolve `--recipe`: a path, else `recipes/NAME`, else a shipped recipe copied to `recipes/NAME`.

    Without a name: the current directory if it holds a recipe, else `digits`. `say` is told of that, and of a copy.
    `check` is given a shipped recipe before it is copied: where it raises, nothing is left.
    Raises UsageError naming the nearest known recipe.
    """
    if name is None:
        if Path(RECIPE_FILE).is_file():
            return Path()
        name = DEFAULT_RECIPE
        say(f"no --recipe is named and none is here: {name}, the demo on embedded digits, is taken")
    if (there := here(name)) is not None:
        return there
    if Path(name).is_file():
        inside = recipe_of(Path(name))
        where = f": {inside} is one" if inside else f", with {RECIPE_FILE} in it"
        raise UsageError(f"{name} is a file: a recipe is a directory{where}")
    if name not in shipped():
        names = known()
        meant = "".join(f"did you mean {other}? " for other in near(name, names))
        raise UsageError(f"no recipe {name!r}: {meant}known: {', '.join(names)}; or a directory with {RECIPE_FILE}")
    if not may_copy:
        raise UsageError(f"no recipe {name!r} here yet: `autoslim recipes copy {name}` makes it")
    check(shipped()[name])
    target = copy(name, Path("recipes") / name)
    say(f"copied the shipped recipe {name} to {target}")
    return target


def copy(name: str, target: Path) -> Path:
    """Copy a shipped recipe (its recipe.yaml, code and published configs, never artifacts) to `target`."""
    if name not in shipped():
        raise UsageError(f"no shipped recipe {name!r}: known are {', '.join(shipped())}")
    if any(place.exists() and not place.is_dir() for place in (target, *target.parents)):
        raise UsageError(f"{target} is not a directory and cannot become one; name another")
    if (target / RECIPE_FILE).exists():
        raise UsageError(f"{target / RECIPE_FILE} exists already; name another directory")
    source = shipped()[name]
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = (target if target.exists() else target.parent) / f".recipe.{os.getpid()}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for path in (source / RECIPE_FILE, *source.glob("*.py")):  # and the code that it names
        shutil.copyfile(path, beside / path.name)
    if (source / "published").is_dir():
        (beside / "published").mkdir()
        for config in (source / "published").iterdir():  # contents alone: whose modes they have is the umask's to say
            shutil.copyfile(config, beside / "published" / config.name)
    if target.exists():  # an existing directory without a recipe: fill it
        for entry in beside.iterdir():
            shutil.move(entry, target / entry.name)
        beside.rmdir()
    else:
        beside.rename(target)
    return target
