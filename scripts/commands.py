"""Write docs/commands.md, the reference of all commands, from the commands themselves; `--check` only compares.

python scripts/commands.py [--check]
"""

import sys
from pathlib import Path
from typing import Any

import typer

from autoslim_cli.cli.app import app
from autoslim_cli.cli.examples import EXAMPLES

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

Written by `python scripts/commands.py` from what `autoslim COMMAND --help` says; do not edit it by hand. Results go to
stdout, progress and hints to stderr.
"""
SHARED = ("recipe", "resume", "as_json", "verbose")


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
    special = [described(option) for option in options if option.name not in SHARED]
    names = {"recipe": "-r", "verbose": "-v|-q"}
    shared = [f"[{names.get(option.name, option.opts[0])}]" for option in options if option.name in SHARED]
    lines = [f"**`{' '.join([f'autoslim {name}', *map(spelled, arguments), *shared])}`**", "", command.help, ""]
    examples = ["```sh", *EXAMPLES[name], "```"]
    return "\n".join([*lines, *special, *([""] if special else []), *examples, ""])


def described(option: Any) -> str:
    """Return one option's line."""
    names = ", ".join(f"`{text}`" for text in (*option.opts, *option.secondary_opts))
    value = f" {option.metavar}" if option.metavar else ("" if option.is_flag else f" {option.name.upper()}")
    return f"- {names}{value}: {option.help}"


def spelled(argument: Any) -> str:
    """Return an argument as the usage line writes it."""
    text: str = argument.metavar or argument.name.upper()
    return text if argument.required or text.startswith("[") else f"[{text}]"


def main() -> None:
    """Write the page, or say that it is stale."""
    new = f"{HEAD}\n{reference().rstrip()}\n"
    if "--check" in sys.argv:
        current = PAGE.is_file() and PAGE.read_text() == new
        sys.exit(None if current else "docs/commands.md is stale: python scripts/commands.py")
    PAGE.write_text(new)


if __name__ == "__main__":
    main()
