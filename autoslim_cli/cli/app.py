"""Assemble the commands, and turn every failure into one line and an exit code."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from autoslim_cli import __version__
from autoslim_cli.cli import describe, device, recipes, searching, subnetworks, training
from autoslim_cli.cli.examples import epilog
from autoslim_cli.cli.printing import giving_stdout_back
from autoslim_cli.cli.processes import fail_together, shared_work
from autoslim_cli.errors import AutoslimError, UsageError, is_out_of_memory, legible
from autoslim_cli.interruption import asked_to_end, interrupted_alike

INTERRUPTED = 130
_MEMORY = (
    "out of memory; lower what the command works with: train.batch, retrain.batch, base.batch, calibrate.batch, "
    "evaluate.batch, search.memory, or model.input and supernet.width for all of them"
)
_WORKER = "DataLoader worker"
_ASSERT = "device-side assert triggered"
_GONE = "the current directory was removed: change to one that is there"
_WrongWords: type[Any] = typer.BadParameter.__mro__[1]
"""The parser's own error, of which typer exports this one kind: an unknown option, a missing argument."""


class OneLineErrors(TyperGroup):
    """Print the commands in the order of the work; end every failure in one line on stderr."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse what stands before the command."""
        with _one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run a command with the exit codes that docs/guide.md lists."""
        with interrupted_alike(), _one_line(), shared_work(), giving_stdout_back():
            if _directory_is_gone():  # libraries end the process there, or worse
                raise UsageError(_GONE)
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    """Turn failures that a user can meet into one line and an exit code; a bug keeps its traceback."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # so that a full disk shows now
    except AutoslimError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt as interrupt:
        failure = _on_its_way(interrupt)
        _fail(str(failure or "interrupted"), failure.exit_code if failure else INTERRUPTED)
    except _WrongWords as error:
        command = error.ctx.command_path if error.ctx else "autoslim"
        _fail(f"{error.format_message().rstrip('.')}; see `{command} --help`", UsageError.exit_code)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or error.strerror
            _fail(f"no space left on the disk ({where}); free some, then repeat the command (--resume goes on)", 1)
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            _fail(f"{error.filename}: {error.strerror}; check who owns it, or use another directory", 1)
        if isinstance(error, FileNotFoundError) and _directory_is_gone():
            _fail(_GONE, 1)
        if error.errno == errno.ENAMETOOLONG:
            _fail(f"{error.filename}: longer than a name may be; choose a shorter one", UsageError.exit_code)
        if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP):
            _fail(f"{error.filename}: {error.strerror}; move away what is there, or name another", 1)
        raise
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            _fail(_MEMORY, 1)
        if str(error).startswith(_WORKER):
            _fail(
                f"a process that loads images has gone: it may have run out of memory; lower data.workers ({error})", 1
            )
        if _ASSERT in str(error):
            _fail(
                "the GPU stopped at a value out of range, such as a label that the network has no output for; the same "
                "command with device=cpu says which",
                1,
            )
        raise


def _on_its_way(interrupt: KeyboardInterrupt) -> AutoslimError | None:
    """Return the failure that a signal came upon: where a process dies, torchrun ends those that find that out."""
    error: BaseException | None = interrupt
    while error is not None and not isinstance(error, AutoslimError):
        error = error.__context__
    return error


def _directory_is_gone() -> bool:
    """Tell whether the current directory was removed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _fail(message: str, code: int) -> NoReturn:
    """Print one line and exit; of the processes of a job, the first that fails prints it."""
    with asked_to_end(lambda _: None):  # it ends already
        fail_together(f"error: {legible(message)}", code)
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"autoslim {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=OneLineErrors,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=epilog(""),
    help="Find how many channels each layer of a convolutional network should have under a FLOPs or latency budget.",
)


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "From a recipe to a network": (
        *(training.train_base, training.train_supernet),
        *(subnetworks.calibrate_bn, subnetworks.extract),
        searching.search,
        training.retrain,
        searching.run,
        training.evaluate,
    ),
    "Devices": (device.profile, device.export),
    "What is there": (describe.units, describe.info, describe.compare, describe.report),
}
for _group, _commands in _COMMANDS.items():
    for _command in _commands:
        _name = _command.__name__.replace("_", "-")
        app.command(_name, epilog=epilog(_name), rich_help_panel=_group)(_command)
app.add_typer(recipes.app, name="recipes", rich_help_panel="What is there")
