"""Write the commands that messages name: pasted into a shell, they work on the recipe in use."""

import re
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

        return cls(catalogue.recipe_of(path))

    def __call__(self, *words: str | Path) -> str:
        """Return a command that names the recipe: `autoslim search --flops 50% -r DIR KEY=VALUE`."""
        return command(*words, *recipe_option(self.directory), *self.overrides)

    def on_file(self, *words: str | Path) -> str:
        """Return a command on a file that lies in the recipe, and needs no other name for it."""
        return command(*words, *self.overrides)


def making(path: Path) -> str:
    """Return the command that makes a file, as far as its name tells, in the recipe that it lies in."""
    commands = Commands.of_file(path)
    kind, _, name = path.stem.partition("-")
    config, of = (path.with_name(f"arch-{name}.json") if name else Path("CONFIG")), name.partition("-")
    if kind == "supernet":
        return commands("train-supernet")
    if kind == "arch":
        flops = re.fullmatch(r"([\d.]+)(pct|[KMG])", name)
        return commands("search", "--flops", name.replace("pct", "%") if flops else "50%")
    if kind == "subnet":
        chosen = ("--widths", of[2]) if of[0] == "width" else ("--channels", config)
        return commands("calibrate-bn", *chosen)
    if of[0] in ("width", "uniform"):
        return commands("retrain", "--width" if of[0] == "width" else "--uniform-flops", of[2].replace("pct", "%"))
    return commands("retrain", config)
