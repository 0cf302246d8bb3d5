"""Define the commands around recipes."""

from pathlib import Path
from typing import Annotated

import typer

from autoslim_cli.cli import completion
from autoslim_cli.cli.examples import epilog
from autoslim_cli.cli.options import Json, Overrides, Verbose, reporter_of, say_next
from autoslim_cli.cli.printing import print_json, print_table
from autoslim_cli.recipe.commands import Commands, command

app = typer.Typer(no_args_is_help=True, epilog=epilog("recipes"), help="List, show, copy and check recipes.")

Name = Annotated[
    str,
    typer.Argument(
        help="A recipe directory, a name in recipes/, or a shipped recipe.", autocompletion=completion.recipes
    ),
]


@app.command("list", epilog=epilog("recipes list"))
def list_recipes(as_json: Json = False, verbose: Verbose = None) -> None:
    """List the shipped recipes and those in recipes/."""
    import yaml

    from autoslim_cli.errors import legible
    from autoslim_cli.recipe import catalogue
    from autoslim_cli.recipe.plain_yaml import read_yaml

    here = {path.parent.name: path.parent for path in sorted(Path("recipes").glob("*/recipe.yaml"))}
    rows = []
    for name, directory in sorted({**catalogue.shipped(), **here}.items()):
        try:
            about = legible(str(read_yaml((directory / "recipe.yaml").read_text(encoding="utf-8")).get("about", "")))
        except (yaml.YAMLError, AttributeError, ValueError, OSError):
            about = "(not a valid recipe: autoslim recipes validate says why)"
        rows.append({"name": name, "path": str(here[name]) if name in here else None, "about": about})
    if as_json:
        print_json({"recipes": rows})
        return
    print_table(["recipe", "about"], ((str(row["name"]), str(row["about"]).strip()) for row in rows), prose=True)
    say_next(reporter_of(verbose), command("recipes", "copy", "cifar10", "recipes/mine"), then="one to change")


@app.command(epilog=epilog("recipes show"))
def show(name: Name, overrides: Overrides = None, as_json: Json = False, verbose: Verbose = None) -> None:
    """Print a recipe with every default filled in."""
    from autoslim_cli.recipe.loading import load_recipe
    from autoslim_cli.recipe.plain_yaml import to_yaml

    values = load_recipe(_directory(name), overrides or ()).model_dump(mode="json")
    if as_json:
        print_json(values)
        return
    print(to_yaml(values), end="")
    say_next(reporter_of(verbose), command("units", "-r", name), then="what can be slimmed")


@app.command(epilog=epilog("recipes copy"))
def copy(
    name: Annotated[str, typer.Argument(help="A shipped recipe.", autocompletion=completion.shipped_recipes)],
    target: Annotated[Path | None, typer.Argument(help="The new directory.", show_default="recipes/NAME")] = None,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Copy a shipped recipe, to make it yours."""
    from autoslim_cli.recipe import catalogue

    path = catalogue.copy(name, target or Path("recipes") / name)
    if as_json:
        print_json({"path": str(path)})
        return
    print(path)
    say_next(reporter_of(verbose), Commands(path)("units"), then="what can be slimmed, once recipe.yaml is yours")


@app.command(epilog=epilog("recipes validate"))
def validate(name: Name, overrides: Overrides = None, as_json: Json = False, verbose: Verbose = None) -> None:
    """Check a recipe against the schema; exit 2 if it is wrong."""
    from autoslim_cli.recipe.loading import load_recipe

    directory = _directory(name)
    load_recipe(directory, overrides or ())
    if as_json:
        print_json({"path": str(directory), "valid": True})
        return
    print(f"{directory / 'recipe.yaml'} is valid")
    say_next(reporter_of(verbose), Commands(Path(name))("units"), then="what can be slimmed")


@app.command(epilog=epilog("recipes schema"))
def schema(as_json: Json = False) -> None:
    """Print the JSON schema of recipe.yaml (editors complete and check with it)."""
    import json

    from autoslim_cli.recipe.schema import Recipe

    value = Recipe.model_json_schema()
    print_json(value) if as_json else print(json.dumps(value, indent=1))


def _directory(name: str) -> Path:
    """Return a recipe's directory without copying a shipped one."""
    from autoslim_cli.recipe import catalogue

    return catalogue.here(name) or catalogue.shipped().get(name) or catalogue.find(name, lambda _: None)
