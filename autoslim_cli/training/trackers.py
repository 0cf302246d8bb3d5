"""Hand a training's metrics to the tools that people watch trainings with, beside the file that is always written."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoslim_cli.errors import UsageError, install

Log = Callable[[Mapping[str, float], int], None]
"""Take some values, by name, as they are after a step."""


@dataclass(frozen=True)
class Watched:
    """A training as trackers see it.

    `settings` are what it was made from, by section. `done` steps lie behind it: later ones that a tracker was told of
    were lost, and come again. `runs` are the names that trackers know it by, which they enter as they begin: a training
    that goes on does so in the same runs.
    """

    directory: Path
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    done: int = 0
    runs: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Return what people see it as, among trainings of other recipes."""
        return f"{self.directory.resolve().name}/{self.name}"


@contextmanager
def _tensorboard(training: Watched, run: str | None) -> Iterator[tuple[str, Log]]:
    """Write event files under `runs/<training>` of the recipe's directory, or with a number where others have that."""
    from torch.utils.tensorboard import SummaryWriter

    runs = training.directory / "runs"
    run = run or next(name for name in _numbered(training.name) if not (runs / name).exists())
    writer: Any = SummaryWriter(str(runs / run), purge_step=training.done + 1)

    def log(values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)
        writer.flush()  # a kill loses none of it

    try:
        yield run, log
    finally:
        writer.close()


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


@contextmanager
def _wandb(training: Watched, run: str | None) -> Iterator[tuple[str, Log]]:
    """Log to a run of Weights & Biases; its own environment variables say where, and under which project.

    It passes over steps that its run has already.
    """
    import wandb

    settings = dict(training.settings)
    with wandb.init(name=training.title, dir=str(training.directory), config=settings, id=run, resume="allow") as begun:
        yield begun.id, lambda values, step: begun.log(dict(values), step=step)


@contextmanager
def _mlflow(training: Watched, run: str | None) -> Iterator[tuple[str, Log]]:
    """Log to a run of MLflow; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where.

    It would keep two values of a step: those that its run has already are passed over.
    """
    import mlflow

    with mlflow.start_run(run_id=run, run_name=training.title) as begun:
        name = begun.info.run_id
        history = mlflow.MlflowClient().get_metric_history
        last = {key: max(value.step for value in history(name, key)) for key in begun.data.metrics}
        if not run:
            mlflow.log_dict(dict(training.settings), "made_from.json")

        def log(values: Mapping[str, float], step: int) -> None:
            mlflow.log_metrics({key: value for key, value in values.items() if step > last.get(key, -1)}, step=step)

        yield name, log


TRACKERS: dict[str, Callable[[Watched, str | None], AbstractContextManager[tuple[str, Log]]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
"""What begins a run, or goes on with one, and yields its name and what logs to it."""
ADVICE = {
    "tensorboard": "",
    "wandb": "`wandb login`, or WANDB_MODE=offline, or ",
    "mlflow": "MLFLOW_TRACKING_URI says where, as sqlite:///mlflow.db (which needs the extra mlflow) or the "
    "address of a server; set it, or ",
}
"""What to do where one cannot begin, beside leaving it out."""


@contextmanager
def tracked(names: Sequence[str], training: Watched, say: Callable[[str], None]) -> Iterator[Log]:
    """Open trackers by name, and close them when the training is over or fails; yield what hands values to all.

    One that fails later is left alone from then on, and said: no training is lost to it. Raises UsageError naming the
    package that a tracker lacks, or why it cannot begin and what to do.
    """
    with ExitStack() as open_ones:
        logs: dict[str, Log] = {}
        if names:
            open_ones.enter_context(redirect_stdout(sys.stderr))  # MLflow prints addresses; stdout is for results
        for name in names:
            try:
                begun = TRACKERS[name](training, training.runs.get(name))
                training.runs[name], logs[name] = open_ones.enter_context(begun)
            except ImportError:
                raise UsageError(f"track: {name} is not installed; {install(name)}") from None
            except Exception as error:  # whatever it raises: no login, no server, a store that it no longer takes
                raise UsageError(
                    f"track: {name} cannot begin: {_first_line(error)}; {ADVICE[name]}leave it out of track"
                ) from None

        def log(values: Mapping[str, float], step: int) -> None:
            for name, one in list(logs.items()):
                try:
                    one(values, step)
                except Exception as error:  # a server that is gone
                    say(f"track: {name} takes nothing any more: {_first_line(error)}")
                    del logs[name]

        yield log


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a row of metrics, by name: those of a mapping within as `loss/largest`."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif name != "step":
            found[f"{prefix}{name}"] = float(value)
    return found
