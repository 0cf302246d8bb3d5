"""Define the commands around recipes."""

from pathlib import Path
from typing import Annotated

import typer

from autoslim_cli.cli.options import Json, Overrides
from autoslim_cli.cli.printing import print_json, print_table

app = typer.Typer(no_args_is_help=True, help="List, show, copy and check recipes.")

Name = Annotated[str, typer.Argument(help="A recipe directory, a name in recipes/, or a shipped recipe.")]


@app.command("list")
def list_recipes(as_json: Json = False) -> None:
    """List the shipped recipes and those in recipes/."""
    import yaml

    from autoslim_cli.recipe import catalogue

    here = {path.parent.name: path.parent for path in sorted(Path("recipes").glob("*/recipe.yaml"))}
    rows = []
    for name, directory in sorted({**catalogue.shipped(), **here}.items()):
        try:
            about = str(
                (yaml.safe_load((directory / "recipe.yaml").read_text(encoding="utf-8")) or {}).get("about", "")
            )
        except (yaml.YAMLError, AttributeError, UnicodeDecodeError, OSError):
            about = "(not a valid recipe: autoslim recipes validate says why)"
        rows.append({"name": name, "path": str(here[name]) if name in here else None, "about": about})
    if as_json:
        print_json({"recipes": rows})
        return
    print_table(["recipe", "about"], ((str(row["name"]), str(row["about"])) for row in rows))


@app.command()
def show(name: Name, overrides: Overrides = None, as_json: Json = False) -> None:
    """Print a recipe with every default filled in."""
    import yaml

    from autoslim_cli.recipe.loading import load_recipe

    values = load_recipe(_directory(name), overrides or ()).model_dump(mode="json")
    if as_json:
        print_json(values)
        return
    print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A shipped recipe.")],
    target: Annotated[Path | None, typer.Argument(help="The new directory.", show_default="recipes/NAME")] = None,
    as_json: Json = False,
) -> None:
    """Copy a shipped recipe, to make it yours."""
    from autoslim_cli.recipe import catalogue

    path = catalogue.copy(name, target or Path("recipes") / name)
    print_json({"path": str(path)}) if as_json else print(path)


@app.command()
def validate(name: Name, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check a recipe against the schema; exit 2 if it is wrong."""
    from autoslim_cli.recipe.loading import load_recipe

    directory = _directory(name)
    load_recipe(directory, overrides or ())
    print_json({"path": str(directory), "valid": True}) if as_json else print(f"{directory / 'recipe.yaml'} is valid")


@app.command()
def schema(as_json: Json = False) -> None:
    """Print the JSON schema of recipe.yaml (editors complete and check with it)."""
    import json

    from autoslim_cli.recipe.schema import Recipe

    value = Recipe.model_json_schema()
    print_json(value) if as_json else print(json.dumps(value, indent=1))


def _directory(name: str) -> Path:
    """Return a recipe's directory without copying a shipped one."""
    from autoslim_cli.recipe import catalogue

    shipped = catalogue.shipped()
    local = any((path / "recipe.yaml").is_file() for path in (Path(name), Path("recipes") / name))
    return shipped[name] if name in shipped and not local else catalogue.find(name, lambda _: None)
