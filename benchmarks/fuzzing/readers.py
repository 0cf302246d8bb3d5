"""What reads each kind of file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from autoslim_cli.cost.configs import read_channels
from autoslim_cli.files import checkpoint
from autoslim_cli.files.lock import locked
from autoslim_cli.files.provenance import current_facts
from autoslim_cli.files.weights import load_weights
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.predictor import predictor
from autoslim_cli.latency.suite import MANIFEST
from autoslim_cli.latency.suite_times import TIMES, table_of_suite
from autoslim_cli.latency.table import read_table
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.report.charts import figures
from autoslim_cli.report.page import page
from autoslim_cli.searching.log import LOG_FILE, SearchLog, read_log, read_steps
from autoslim_cli.slimming.slimmable import SlimmableNetwork
from autoslim_cli.stages.compare import compare
from autoslim_cli.stages.evaluate import load_model
from autoslim_cli.stages.inspect import info
from autoslim_cli.stages.project import Project, origin
from autoslim_cli.stages.report import gathered
from autoslim_cli.training.metrics import read_metrics
from fuzzing.corpus import SUPERNET_OF, job_of, training_state


@dataclass
class Reader:
    """Files to mutate, and what reads them: paths of the mutated file go to `read`."""

    name: str
    files: list[Path]
    read: Callable[[Path], object]


def readers_of(project: Project) -> list[Reader]:
    """Return what reads each kind of file."""
    directory, network, costs = project.directory, project.network, project.costs
    space, parts, suite = network.space, pieces(network.reading), directory / "suite"
    arch, model, log_file = directory / "arch-30pct.json", directory / "model-30pct.safetensors", directory / LOG_FILE
    supernet, state, bomb = (directory / name for name in ("supernet.safetensors", "supernet.resume.pt", "bomb.pt"))
    plain, logged = network.fresh(space.uniform(0.5)), log_file.read_text().splitlines()
    made_from = origin(project, *SUPERNET_OF)

    def read_state(path: Path) -> None:
        state = training_state(plain)
        state.restore(job_of(path))
        refuse_broken(plain)
        state.step(None, 4)

    def read_search(path: Path) -> None:
        read_steps(path)
        again = SearchLog(path, json.loads(logged[0]), writing=False)
        again.replay(json.loads(logged[1])["run"], read_log(path))
        assert all(score.possible for score in (*again.scored.values(), *again.tried.values())), (
            "a score that cannot be"
        )

    def read_times(path: Path) -> None:
        table = read_table(path)
        predictor(table, parts, *space.ends, str(path))(space.largest)

    def read_suite(path: Path) -> None:
        directory = path.parent / "one"
        directory.mkdir(exist_ok=True)
        is_manifest = b'"layers"' in path.read_bytes()
        (directory / MANIFEST).write_bytes((path if is_manifest else suite / MANIFEST).read_bytes())
        (directory / TIMES).write_bytes((suite / TIMES if is_manifest else path).read_bytes())
        table_of_suite(directory, network.model, space)

    def read_recipe(path: Path) -> None:
        place = path.parent / "recipe"
        place.mkdir(exist_ok=True)
        (place / "recipe.yaml").write_bytes(path.read_bytes())
        load_recipe(place, ["train.epochs=2", "space.min.conv1=6"])

    def read_lock(path: Path) -> None:
        (path.parent / ".made.lock").write_bytes(path.read_bytes())
        with locked(path.parent / "made"):
            pass

    def read_report(path: Path) -> None:
        place = path.parent / "reported"
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        is_log = b"autoslim.search" in path.read_bytes()[:200]
        names = {".json": f"arch-{path.name}", ".jsonl": LOG_FILE if is_log else "supernet.metrics.jsonl"}
        (place / names.get(path.suffix, path.name)).write_bytes(path.read_bytes())
        facts = gathered(Project(**{**vars(project), "directory": place}))
        page(facts, figures(facts))

    def read_supernet(path: Path) -> None:
        current_facts(path, checkpoint.SUPERNET, made_from, network.full, lambda _: None)
        refuse_broken(network.load_supernet(path, project.recipe, project.images.digest, project.commands).kept)

    names = network.reading.module.state_dict().keys()
    return [
        Reader("recipe", [directory / "recipe.yaml"], read_recipe),
        Reader("config", [arch], lambda path: read_channels(path, network, costs, bounded=True)),
        Reader("checkpoint", [model], lambda path: refuse_broken(load_model(path, directory)[0])),
        Reader("supernet", [supernet], read_supernet),
        Reader("weights", [model, state, bomb], lambda path: load_weights(path, "model.weights", names)),
        Reader("log", [log_file], read_search),
        Reader("metrics", [directory / "supernet.metrics.jsonl"], read_metrics),
        Reader("latency table", [directory / "latency-cpu.json"], read_times),
        Reader("suite", [suite / MANIFEST, suite / TIMES], read_suite),
        Reader("training state", [state, bomb], read_state),
        Reader("lock", [directory / ".made.lock"], read_lock),
        Reader("slimmable", [supernet], lambda path: refuse_broken(SlimmableNetwork.load(path).supernet.kept)),
        Reader("info", [arch, model, supernet], lambda path: info(str(path), None)),
        Reader("compare", [arch, model, supernet], lambda path: compare([path])),
        Reader("report", [arch, model, supernet, log_file, directory / "supernet.metrics.jsonl"], read_report),
    ]


def refuse_broken(network: nn.Module) -> None:
    """Raise AssertionError if a network that a reader took as sound holds values that are not finite."""
    for name, tensor in network.state_dict().items():
        assert bool(torch.isfinite(tensor).all()), f"{name} is not finite"
