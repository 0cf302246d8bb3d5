"""Write the commands that messages name: pasted into a shell, they work on the recipe in use."""

import shlex
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "RECIPE"
"""What stands for a recipe that nobody knows: a command that names none would take the demo."""


def command(*words: str | Path) -> str:
    """Return a command of autoslim as a shell takes it."""
    return f"autoslim {shlex.join(map(str, words))}"


def recipe_option(directory: Path | None) -> list[str]:
    """Return how a command names a recipe's directory; the one that a person is in needs no name."""
    return [] if directory == Path() else ["-r", str(directory or UNKNOWN)]


@dataclass(frozen=True)
class Commands:
    """Write commands on a recipe: its directory as a person named it, and what they have overridden of it."""

    directory: Path | None
    overrides: tuple[str, ...] = ()

    @classmethod
    def of_file(cls, path: Path) -> "Commands":
        """Return the commands on the recipe that a file lies in; it need not be there."""
        from autoslim_cli.recipe import catalogue  # it reads recipes: --help need not wait for what does

        return cls(catalogue.here(str(path)) if path.is_dir() else catalogue.recipe_of(path))

    def __call__(self, *words: str | Path) -> str:
        """Return a command that names the recipe: `autoslim search --flops 50% -r DIR KEY=VALUE`."""
        return command(*words, *recipe_option(self.directory), *self.overrides)

    def on_file(self, *words: str | Path) -> str:
        """Return a command on a file that lies in the recipe, and needs no other name for it."""
        return command(*words, *self.overrides)
