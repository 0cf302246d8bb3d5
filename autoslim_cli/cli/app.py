"""Assemble the commands, and turn every failure into one line and an exit code."""

import errno
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from autoslim_cli import __version__
from autoslim_cli.cli import describe, recipes, work
from autoslim_cli.errors import AutoslimError

INTERRUPTED = 130


class Commands(TyperGroup):
    """Print the commands in the order of the work; end every failure in one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command with the exit codes of README.md."""
        try:
            return super().invoke(ctx)
        except AutoslimError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", INTERRUPTED)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                _fail(f"no space left on the disk ({error.filename or error}); free some, then use --resume", 1)
            if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
                _fail(f"{error.filename}: cannot be written ({error.strerror}); use another directory", 1)
            raise


def _fail(message: str, code: int) -> NoReturn:
    """Print one line and exit."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"autoslim {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find how many channels each layer of a convolutional network should have under a FLOPs budget.",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


_COMMANDS: tuple[Callable[..., None], ...] = (
    *(work.train_supernet, work.calibrate_bn, work.search, work.retrain, work.run, work.evaluate),
    *(describe.units, describe.info),
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(recipes.app, name="recipes")
