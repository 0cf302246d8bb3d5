"""Write the commands that make files, as far as their names tell: each makes the very file, or is a general one."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoslim_cli.errors import ArtifactError, AutoslimError
from autoslim_cli.files import checkpoint, kinds, names
from autoslim_cli.files.atomic import file_name
from autoslim_cli.files.measures import option
from autoslim_cli.recipe.commands import Commands
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.recipe.schema import BASE_FILE, Recipe

CONFIG = "CONFIG"
"""What stands for a channel config that no name tells."""

_WORDS = (names.SUPERNET, names.WEIGHTS)
"""The starts that names tell by a word; of others they tell a file."""

Words = list[str | Path]


def making_config(path: Path) -> str:
    """Return the command that writes a channel config, in the recipe that it lies in."""
    place = _Place.of(path)
    return place.commands("search", *(place.bounds(asked) if (asked := place.searched(path)) else ["--flops", "50%"]))


def making_network(path: Path) -> str:
    """Return the command that makes a plain network, in the recipe that its file lies in; a supernet is trained.

    Of a file that is another thing, from which networks are made, it is what makes one of it.
    """
    place, name = _Place.of(path), names.network_name(path)
    if (kind := kinds.what_is(path)) == kinds.CONFIG or place.searched(path):
        return place.commands("retrain", path)
    if kind == kinds.SUPERNET:
        return place.commands(*place.cutting())
    if path.name == names.SUPERNET_FILE:
        return place.commands("train-supernet", *(["--force"] if path.exists() else []))
    if path.name == names.subnet_file(name):
        return place.commands(*place.cutting(name if place.makes(path) else ""))
    if path.name == BASE_FILE and place.recipe and place.recipe.base and place.makes(path):
        return place.commands("train-base", *(["--force"] if path.exists() else []))
    if name and path.name == names.model_file(name) and place.makes(path):
        return place.commands(*place.retraining(name))
    return place.commands("retrain", CONFIG)


def config_of_network(path: Path) -> Path | None:
    """Return the channel config beside a plain network that its name tells, if it is there."""
    place, name = _Place.of(path), names.network_name(path)
    called = (said.config for said in (names.Said(config=name), *names.readings(name)))
    return next(filter(None, (place.config(config, names.model_file) for config in called)), None)


@dataclass(frozen=True)
class _Place:
    """Where a file lies: its directory, the commands on the recipe there, and the recipe, if it can be read."""

    directory: Path
    commands: Commands
    recipe: Recipe | None

    @classmethod
    def of(cls, path: Path) -> "_Place":
        commands, recipe = Commands.of_file(path), None
        if commands.directory is not None:
            with suppress(AutoslimError):
                recipe = load_recipe(commands.directory)
        return cls(path.parent, commands, recipe)

    def makes(self, path: Path) -> bool:
        """Tell whether commands write a file here: not into `published/`, and not what was kept aside."""
        return self.commands.directory in (None, self.directory) and not names.is_aside(path)

    def searched(self, path: Path) -> names.Asked | None:
        """Return the budget of a channel config that a search here would write under this name."""
        asked = names.budget_of(label := names.config_name(path))
        return asked if path.name == names.config_file(label) and self.makes(path) else None

    def bounds(self, asked: names.Asked) -> Words:
        """Return the options that ask for a budget."""
        words: Words = [word for measure, text in asked.bounds.items() for word in (option(measure), text)]
        if asked.device:
            words += ["--latency-table", self.directory / names.table_file(asked.device)]
        return words

    def config(self, name: str, file: Callable[[str], str]) -> Path | None:
        """Return a channel config that is here, or in `published/`, whose network has the file of this name."""
        found = [
            path
            for directory in (self.directory, self.directory / "published")
            for path in sorted(directory.glob("*.json"), key=lambda path: path.name != names.config_file(name))
            if file(names.config_name(path)) == file(name) and kinds.what_is(path) == kinds.CONFIG
        ]
        return found[0] if found else None

    def _config(self, name: str, file: Callable[[str], str]) -> Path | None:
        """Return a channel config that is here, or that a search would write."""
        searched = self.directory / names.config_file(name)
        return self.config(name, file) or (searched if self.searched(searched) else None)

    def cutting(self, name: str = "") -> Words:
        """Return what cuts the sub-network of a name out of the supernet; without one it is any."""
        width, widths = names.width_of(name), self.recipe.supernet.widths if self.recipe else ()
        if widths:  # switchable BN: there are no others
            return ["extract", "--width", f"{widths[0] if width is None else width:g}"]
        if width is not None or not name:
            return ["calibrate-bn", "--widths", "0.5,1" if width is None else f"{width:g}"]
        return ["calibrate-bn", "--channels", self._config(name, names.subnet_file) or CONFIG]

    def retraining(self, name: str) -> Words:
        """Return what trains the network of a name: `--name` gives it to any that the name does not tell."""
        if config := self.config(name, names.model_file):
            return ["retrain", config, *self._from_scratch()]
        for said in names.readings(name):
            if words := self._retraining(said):
                return words
        return ["retrain", CONFIG, "--name", name]

    def _retraining(self, said: names.Said) -> Words | None:
        """Return what trains the network that a name says; None where it says of files that are not here."""
        if (start := self._from(said.start)) is None:
            return None
        if said.config:
            config = self._config(said.config, names.model_file)
            if config is None:
                return None
            if not said.joint:
                return ["retrain", config, *start]
            return ["retrain", "--joint", *self._together(said.config, config), *start]
        if said.width is not None:
            return ["retrain", "--width", f"{said.width:g}", *start]
        assert said.uniform
        if list(said.uniform.bounds) == ["flops"]:
            return ["retrain", "--uniform-flops", said.uniform.bounds["flops"], *start]
        if said.start in ("", *_WORDS):  # nothing but a run trains one width for other bounds
            return ["run", *self.bounds(said.uniform), *start]
        return None

    def _together(self, name: str, config: Path) -> Words:
        """Return the configs of the networks that are trained jointly with one, as another's file says."""
        for path in sorted(self.directory.glob(names.MODELS)):
            if not any(said.joint for said in names.readings(names.network_name(path))):
                continue
            with suppress(ArtifactError):
                joint = checkpoint.read_any(path)["made_from"].get("joint")
                others = list(map(str, joint)) if isinstance(joint, list) else []
                configs = [self.config(other, names.model_file) for other in others]
                if name in map(file_name, others) and None not in configs:
                    return [one for one in configs if one]
        return [config, CONFIG]

    def _from(self, label: str) -> Words | None:
        """Return what makes a training start from what a name says, None if that is a file that is not here."""
        if not label:
            return self._from_scratch()
        if label in _WORDS:
            return ["--from", label]
        if self.recipe and _says(self.recipe.retrain.start, label):
            return []
        for path in sorted(self.directory.glob("*"), key=lambda path: path.name != names.model_file(label)):
            if _says(path.name, label) and kinds.what_is(path) in (kinds.WEIGHTS, *kinds.CHECKPOINTS):
                return ["--from", path]
        return None

    def _from_scratch(self) -> Words:
        """Return what makes a training start from scratch: nothing, where the recipe does not say otherwise."""
        return ["--from", names.SCRATCH] if self.recipe and self.recipe.retrain.start != names.SCRATCH else []


def _says(start: str, label: str) -> bool:
    """Tell whether names say so of what a training starts from."""
    return file_name(names.start_label(start)) == label
