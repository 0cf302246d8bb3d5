"""Write the command reference of README.md from the commands themselves; `--check` only compares.

python scripts/readme.py [--check]
"""

import sys
from pathlib import Path
from typing import Any

import typer

from autoslim_cli.cli.app import app

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- commands: written by scripts/readme.py -->", "<!-- end of commands -->"


SHARED = ("recipe", "resume", "as_json")


def reference() -> str:
    """Return the shared options once, then one section per command: its usage, its sentence, its own options."""
    root: Any = typer.main.get_command(app)
    commands = dict(root.commands)
    nested = commands.pop("recipes")
    commands |= {f"recipes {name}": command for name, command in nested.commands.items()}
    known = {p.name: p for command in commands.values() for p in command.params}
    shared = ["Shared by the commands that name them:", "", *(described(known[name]) for name in SHARED)]
    values = f"- `KEY=VALUE`: {known['overrides'].help}"
    return "\n".join([*shared, values, "", *(section(name, command) for name, command in commands.items())])


def section(name: str, command: Any) -> str:
    """Describe one command."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and "--help" not in p.opts]
    own = [described(option) for option in options if option.name not in SHARED]
    shared = [
        f"[{option.opts[-1] if option.name == 'recipe' else option.opts[0]}]"
        for option in options
        if option.name in SHARED
    ]
    lines = [f"**`{' '.join([f'autoslim {name}', *map(spelled, arguments), *shared])}`**", "", command.help]
    return "\n".join([*lines, *([""] if own else []), *own, ""])


def described(option: Any) -> str:
    """Return one option's line."""
    names = ", ".join(f"`{text}`" for text in option.opts)
    value = f" {option.metavar}" if option.metavar else ("" if option.is_flag else f" {option.name.upper()}")
    return f"- {names}{value}: {option.help}"


def spelled(argument: Any) -> str:
    """Return an argument as the usage line writes it."""
    text: str = argument.metavar or argument.name.upper()
    return text if argument.required or text.startswith("[") else f"[{text}]"


def main() -> None:
    """Write the section, or say that it is stale."""
    text = README.read_text()
    before, rest = text.split(START)
    after = rest.split(END)[1]
    new = f"{before}{START}\n\n{reference()}\n{END}{after}"
    if "--check" in sys.argv:
        sys.exit(None if new == text else "README.md: the command reference is stale: python scripts/readme.py")
    README.write_text(new)


if __name__ == "__main__":
    main()
