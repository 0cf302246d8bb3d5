"""Hand a training's metrics to the tools that people watch trainings with, beside the file that is always written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from autoslim_cli.errors import UsageError

Log = Callable[[Mapping[str, float], int], None]
"""Take some values, by name, as they are after a step."""
Settings = Mapping[str, Any]
"""What a training was made from, by section."""


@contextmanager
def _tensorboard(directory: Path, name: str, _settings: Settings) -> Iterator[Log]:
    """Write event files under `runs/<training>` of the recipe's directory."""
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(directory / "runs" / name))

    def log(values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _wandb(directory: Path, name: str, settings: Settings) -> Iterator[Log]:
    """Log to a run of Weights & Biases; its own environment variables say where, and under which project."""
    import wandb

    with wandb.init(name=f"{directory.resolve().name}/{name}", dir=str(directory), config=dict(settings)) as run:
        yield lambda values, step: run.log(dict(values), step=step)


@contextmanager
def _mlflow(directory: Path, name: str, settings: Settings) -> Iterator[Log]:
    """Log to a run of MLflow; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where."""
    import mlflow

    with mlflow.start_run(run_name=f"{directory.resolve().name}/{name}"):
        mlflow.log_dict(dict(settings), "made_from.json")
        yield lambda values, step: mlflow.log_metrics(dict(values), step=step)


TRACKERS: dict[str, Callable[[Path, str, Settings], AbstractContextManager[Log]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


@contextmanager
def tracked(
    names: Sequence[str], directory: Path, training: str, settings: Settings, say: Callable[[str], None]
) -> Iterator[Log]:
    """Open trackers by name, and close them when the training is over or fails; yield what hands values to all.

    One that fails later is left alone from then on, and said: no training is lost to it. Raises UsageError naming the
    package that a tracker lacks, or why it cannot begin.
    """
    with ExitStack() as open_ones:
        logs: dict[str, Log] = {}
        for name in names:
            try:
                logs[name] = open_ones.enter_context(TRACKERS[name](directory, training, settings))
            except ImportError:
                raise UsageError(f"track: {name} is not installed: pip install 'autoslim[{name}]'") from None
            except Exception as error:  # whatever it raises: no login, no server, a store that it no longer takes
                raise UsageError(f"track: {name} cannot begin: {_first_line(error)}") from None

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
