"""Feed every reader of files with damaged ones: what is wrong in a file must end in one line, and soon.

python benchmarks/fuzz.py [--minutes 1] [--seed 0] [--input 12] [--keep DIR] [--json]

A corpus of sound files is made on the spot; bytes, JSON values, the facts and tensors of checkpoints, and the factory
that a file names are then mutated. Prints how many inputs each reader had, how many it took as sound, and `tracebacks`
(anything but autoslim's own errors; running out of 3 GiB is one, and a score or weight taken as sound that cannot be is
another), `hangs` (10 s) and `executions` (a process started, a connection opened): the last three should be 0. `--keep`
writes the inputs that did harm.
"""

import argparse
import copy
import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

import torch
import yaml
from torch import nn

from autoslim_cli.cost.configs import config_of, read_channels
from autoslim_cli.errors import AutoslimError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.channel_config import Found, Holdout, save_model, write_config
from autoslim_cli.files.lock import locked
from autoslim_cli.files.provenance import current_facts
from autoslim_cli.files.weights import load_weights
from autoslim_cli.latency.grid import layer_shapes
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.predictor import predictor
from autoslim_cli.latency.suite import MANIFEST, Suite, SuiteLayer, write_manifest
from autoslim_cli.latency.suite_times import TIMES, table_of_suite
from autoslim_cli.latency.table import Device, LatencyTable, LayerTimes, read_table, write_table
from autoslim_cli.progress import Reporter, Talk
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.report.charts import figures
from autoslim_cli.report.page import page
from autoslim_cli.searching.log import FORMAT, LOG_FILE, SearchLog, read_log, read_steps
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.slimming.slimmable import SlimmableNetwork
from autoslim_cli.stages.compare import compare
from autoslim_cli.stages.evaluate import load_model
from autoslim_cli.stages.inspect import info
from autoslim_cli.stages.project import Project, open_project, origin
from autoslim_cli.stages.report import gathered
from autoslim_cli.training.job import Job
from autoslim_cli.training.metrics import read_metrics
from autoslim_cli.training.score import Score
from autoslim_cli.training.state import State

HANG_S = 10
MEMORY = 3 * 2**30
REFUSED = ("bomb.pt", ".made.lock")
"""What is made to be refused."""

RECIPE = """
format: autoslim.recipe/1
model: {name: autoslim/cifar_resnet, args: {depth: 8, in_channels: 1, width: 8}, input: [1, 8, 8], classes: 10}
data: {name: digits, holdout: 150, limit: 600, augment: {crop: pad, padding: 1, flip: true}}
space: {groups: 6, divisor: 2, min: {conv1: 4}}
supernet: {width: 1.5, min_width: 0.25}
train: {epochs: 1, batch: 64}
retrain: {epochs: 1, batch: 64, schedule: step, milestones: [0.5]}
device: cpu
"""
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -0.5, 1e308, float("nan"), float("inf"), "", " ", "0", "nan"),
    *([], {}, [[]], [None], {"": None}, "\x00", "\ud800", "a" * 70_000, "../../etc/passwd", "sha256:", "conv1", "fc"),
    *([1] * 3000, [0, 0, 0], [1e9, 1e9, 1e9], {"a": {"b": {"c": []}}}, "1e999", "~", "!!python/object:os.system"),
)
"""Values that code may not expect."""
SUPERNET_OF = ("data", "space", "supernet")
"""The sections of a recipe that a supernet records, for its readers."""
PAYLOAD = "import os\n\nos.system('true')\n\n\ndef network(**_):\n    os.system('true')\n"
CODE: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("./payload.py:network", {}), ("os:system", {}), ("os:system", {"command": "true"}), ("payload:network", {})),
    *(("subprocess:run", {"args": ["true"]}), ("torch.hub:load", {"repo_or_dir": ".", "model": "x"})),
    *(("torchvision/resnet18", {"weights": "DEFAULT"}), ("torchvision.models:resnet18", {"weights": "DEFAULT"})),
    *(("autoslim/cifar_resnet:os.system", {}), ("autoslim_cli.files.atomic:write_text", {"path": "x", "text": "x"})),
)
"""Factories and arguments that a file must not have called."""


@dataclass
class Reader:
    """Files to mutate, and what reads them: paths of the mutated file go to `read`."""

    name: str
    files: list[Path]
    read: Callable[[Path], object]


@dataclass
class Counted:
    """What came of a reader's inputs."""

    inputs: int = 0
    sound: int = 0
    tracebacks: int = 0
    hangs: int = 0
    executions: int = 0
    harm: dict[str, str] = field(default_factory=dict)


class HangError(BaseException):
    """A reader took too long."""


def refuse_scores(scores: Iterable[Score]) -> None:
    """Raise AssertionError if a reader took a score as sound that cannot be."""
    assert all(score.possible for score in scores), "a score that cannot be"


def corpus(directory: Path) -> Project:
    """Make one sound file of each kind in a recipe's directory."""
    (directory / "recipe.yaml").write_text(RECIPE)
    project = open_project(load_recipe(directory), directory, Reporter(talk=Talk.NOTHING))
    network, costs, space = project.network, project.costs, project.network.space
    channels, supernet = space.uniform(0.5), directory / "supernet.safetensors"
    facts = {"model": network.architecture, "channels": network.full, "made_from": origin(project, *SUPERNET_OF)}
    checkpoint.save(supernet, checkpoint.SUPERNET, network.fresh_supernet().kept.state_dict(), facts)
    # 1. A found config, and a network that was retrained from it.
    holdout = Holdout(images=150, seed=0)
    found = Found(budget="flops<=30%", holdout=holdout, loss=1.0, top1=0.5, step=3, supernet="sha256:0")
    config = config_of(network, costs, channels, found=found)
    arch, model = directory / "arch-30pct.json", directory / "model-30pct.safetensors"
    write_config(arch, config)
    plain = network.fresh(channels)
    made_from = origin(project, "data", "retrain", parents=[arch])
    save_model(model, plain, config, {"made_from": made_from, "test": {"loss": 1.0, "top1": 0.5}})
    # 2. A log of a search of three steps.
    log_file = directory / LOG_FILE
    log = SearchLog(log_file, {"format": FORMAT, "recipe": {"seed": 0}, "largest": {"channels": space.largest}})
    log.start({"budgets": ["flops<=30%"], "strategy": "exact"})
    for number, (name, count) in enumerate(space.largest.items(), 1):
        candidate = Candidate.of({name: max(count - 2, 1)})
        log.add_scores(space.largest, {candidate: Score(1.0, 0.5)}, -1, seconds=0.1, multiply_adds=10)
        step = {"step": number, "kind": "slim", "unit": name, "before": count, "after": count - 2}
        log.add_decision({**step, **costs(space.largest), "loss": 1.0, "top1": 0.5})
    log.add_decision({"answer": "flops<=30%", **costs(channels), "loss": 1.0, "top1": 0.5})
    log.add_measured("sha256:0", (1, 2), 3.5)
    rows = [{"step": step, "epoch": 1, "rate": 0.1, "loss": {"largest": 1.5 / step}} for step in range(1, 5)]
    (directory / "supernet.metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # 3. A latency table, a suite, a training state, weights by themselves.
    parts = pieces(network.reading)
    grids = [(shape, [sorted({axis[0], axis[-1]}) for axis in shape.counts]) for shape in layer_shapes(parts, space)]
    layers = [_layer_times(shape.piece.shape, shape.piece.name, counts) for shape, counts in grids]
    table = LatencyTable(
        model=network.model, device=Device(name="a chip", kind="cpu", threads=1), layers=layers, complete=True
    )
    write_table(directory / "latency-cpu.json", table)
    suite, files = directory / "suite", [f"layers/{number}.onnx" for number in range(len(layers))]
    suite.mkdir()
    whole = [
        SuiteLayer(shape=layer.shape, example=layer.example, counts=[[1]] * len(layer.counts), files=[file])
        for layer, file in zip(layers, files, strict=True)
    ]
    write_manifest(suite, Suite(model=network.model, layers=whole, networks=[]))
    times = {"suite": json.loads((suite / MANIFEST).read_text())["id"], "device": {"name": "a chip"}}
    (suite / TIMES).write_text(json.dumps({**times, "ms": dict.fromkeys(files, 0.5)}))
    state = directory / "supernet.resume.pt"
    training_state(plain).save(_job(state), 3)
    bomb = directory / "bomb.pt"
    bomb.write_bytes(pickle.dumps(_Bomb()))
    (directory / ".made.lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    return project


def training_state(network: nn.Module) -> State:
    """Return a network's state after three steps of training."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    state = State(network, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=False))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(3):
        state.step(None)
    return state


def refuse_broken(network: nn.Module) -> None:
    """Raise AssertionError if a network that a reader took as sound holds values that are not finite."""
    for name, tensor in network.state_dict().items():
        assert bool(torch.isfinite(tensor).all()), f"{name} is not finite"


def _job(state: Path) -> Job:
    """Return what a training state needs of its job."""
    settings = SimpleNamespace(keep_states=1)
    return cast("Job", SimpleNamespace(state=state, decisive={"recipe": {"seed": 0}}, settings=settings))


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
        state.restore(_job(path))
        refuse_broken(plain)
        state.step(None)

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
        refuse_broken(network.load_supernet(path, project.recipe, project.images.digest).kept)

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


def _layer_times(shape: str, example: str, counts: list[list[int]]) -> LayerTimes:
    """Return times of one microsecond at every point of a grid."""
    points = 1
    for axis in counts:
        points *= len(axis)
    return LayerTimes(shape=shape, example=example, counts=counts, ms=[1e-3] * points)


class _Bomb:
    """What starts a process if it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def mutated(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """Return a damaged copy of a file: its values, or its bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        structured = {".json": _json, ".yaml": _yaml, ".jsonl": _lines, ".safetensors": _header, ".pt": _state}
        change = structured.get(suffix, _bytes) if rng.random() < 0.7 else _bytes
        try:
            content = change(content, rng)
        except Exception:  # damaged already, so that it is only bytes
            content = _bytes(content, rng)
    return content


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, drop, repeat, insert or cut bytes."""
    data = bytearray(content)
    at = rng.randrange(len(data) + 1)
    length = rng.choice((1, 1, 2, 8, 64, 1024))
    kind = rng.randrange(6)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at : at + length]
    elif kind == 2:
        data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
    elif kind == 3:
        data[at:at] = rng.randbytes(length)
    elif kind == 4:
        del data[at:]
    else:
        word = rng.choice((b"\xff" * 8, b"\0" * 8, b"{" * 5000, b"[" * 100_000, b'"', b"\n", b"\xef\xbb\xbf", b"NaN"))
        data[at : at + len(word) if rng.random() < 0.5 else at] = word
    return bytes(data)


def _value(value: Any, rng: random.Random) -> Any:
    """Return a copy of a value with one part of it replaced, removed, added or moved."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    todo, entered = [value], set[int]()
    while todo:
        one = todo.pop()
        if id(one) in entered:  # YAML may refer to itself
            continue
        entered.add(id(one))
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        places += [(one, key) for key in keys]
        todo += [one[key] for key in keys]
    if not places or rng.random() < 0.02:
        return rng.choice(HOSTILE)
    container, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.6:
        container[key] = rng.choice(HOSTILE)
    elif kind < 0.75:
        del container[key]
    elif kind < 0.85 and isinstance(container, dict):
        container[rng.choice(("", "x", "extra", str(key) + "s", "\x00"))] = rng.choice(HOSTILE)
    elif kind < 0.95:
        other, name = rng.choice(places)
        container[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else other[name % max(len(other), 1)])
    elif isinstance(container[key], int | float) and not isinstance(container[key], bool):
        container[key] = container[key] * rng.choice((-1, 0.5, 2, 1e6)) + rng.choice((0, 1))
    return value


def _json(content: bytes, rng: random.Random) -> bytes:
    """Change a value of a JSON file."""
    return json.dumps(_changed(json.loads(content), rng)).encode()


def _changed(values: Any, rng: random.Random) -> Any:
    """Change a value; now and then the factory of the model that is named."""
    model = values.get("model", values.get("config", {}).get("model")) if isinstance(values, dict) else None
    if not isinstance(model, dict) or rng.random() < 0.8:
        return _value(values, rng)
    model["name"], model["args"] = rng.choice(CODE)
    return values


def _yaml(content: bytes, rng: random.Random) -> bytes:
    """Change a value of a YAML file; or let it refer to itself."""
    if rng.random() < 0.1:
        return content + rng.choice(
            (
                *(b"\nx: &a [*a]\n", b"\nabout: &a [1,1]\nx: [*a,*a]\n", b"\n? [1]\n: 2\n", b"\n1: 2\n"),
                b"\nabout: ["
                + b",".join(b"&a%d [%s]" % (n, b",".join([b"*a%d" % (n - 1) if n else b"1"] * 9)) for n in range(9))
                + b"]",
                b"\nseed: 1" + b":1" * 50_000,
            )
        )
    return yaml.safe_dump(_value(yaml.safe_load(content), rng)).encode()


def _lines(content: bytes, rng: random.Random) -> bytes:
    """Change a value of a line, or the order of lines."""
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    if rng.random() < 0.2:
        rng.shuffle(lines)
    else:
        lines[at] = _json(lines[at], rng)
    return b"\n".join(lines)


def _header(content: bytes, rng: random.Random) -> bytes:
    """Change the facts of a checkpoint, what its header says of its tensors, or a value of one."""
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    kind = rng.random()
    if kind < 0.15:
        value = struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"), -1.0)))
        at = rng.randrange(0, len(rest) - 3, 4)
        rest = rest[:at] + value + rest[at + 4 :]
    elif kind < 0.8:
        facts = _changed(json.loads(header["__metadata__"]["autoslim"]), rng)
        header["__metadata__"]["autoslim"] = json.dumps(facts)
    else:
        header = _value(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def _state(content: bytes, rng: random.Random) -> bytes:
    """Change a value of a training state, or of one of its tensors."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    buffer = io.BytesIO()
    if rng.random() < 0.2:
        moments = [moment for entry in state["optimizer"]["state"].values() for moment in entry.values()]
        rng.choice([*state["network"].values(), *moments]).view(-1)[0] = rng.choice((-1, 10**6))
        rng.choice([*filter(torch.is_floating_point, state["network"].values()), *moments]).fill_(float("nan"))
    else:
        state = _value(state, rng)
    torch.save(state, buffer)
    return buffer.getvalue()


EXECUTED: list[str] = []
READING = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what a file must never bring about."""
    if READING and event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
        EXECUTED.append(f"{event} {arguments!r}"[:200])


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def tried(reader: Reader, path: Path, counted: Counted) -> tuple[str, str]:
    """Let a reader read one input; return what it did wrong, nothing if it did not, and what it said."""
    global READING  # noqa: PLW0603  audit hooks take no arguments of ours
    problem = said = ""
    EXECUTED.clear()
    signal.alarm(HANG_S)
    READING = True
    try:
        reader.read(path)
        counted.sound += 1
    except AutoslimError as error:
        problem, said = "more than one line" if "\n" in str(error) else "", str(error)
        counted.tracebacks += bool(problem)
    except HangError:
        counted.hangs += 1
        problem = "hang"
    except (Exception, RecursionError) as error:
        counted.tracebacks += 1
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "autoslim_cli" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"
        problem = f"{type(error).__name__} at {where}"
        said = " ".join(str(error).split())
    finally:
        READING = False
        signal.alarm(0)
    if EXECUTED:
        counted.executions += 1
        problem = f"executed {EXECUTED[0]}"
    return problem, said[:200]


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, over all readers")
    parser.add_argument("--seed", type=int, default=0, help="which damage is done")
    parser.add_argument("--input", type=int, help="only the input of this number, as what did harm is named")
    parser.add_argument("--readers", help="which readers, by comma; by default all")
    parser.add_argument("--keep", type=Path, help="a directory for inputs that did harm")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Mutate and read until the time is over; print what came of it."""
    arguments = options()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        readers = [
            one
            for one in readers_of(corpus(directory))
            if not arguments.readers or one.name in arguments.readers.split(",")
        ]
        originals = {file: file.read_bytes() for reader in readers for file in reader.files}
        inputs = directory / "inputs"
        inputs.mkdir()
        for place in (directory, inputs):
            (place / "payload.py").write_text(PAYLOAD)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        sys.addaudithook(_watch)
        counts = {reader.name: Counted() for reader in readers}
        for reader in readers:
            for file in reader.files:
                as_made = Counted()
                problem = tried(reader, file, as_made)
                if not as_made.sound and file.name not in REFUSED:
                    sys.exit(f"{reader.name} does not read {file.name} as it was made: {problem}")
        began, number = time.monotonic(), arguments.input or 0
        while time.monotonic() - began < 60 * arguments.minutes:
            reader, rng = readers[number % len(readers)], random.Random(f"{arguments.seed}-{number}")
            file = rng.choice(reader.files)
            path = inputs / f"input{file.suffix}"
            path.write_bytes(mutated(originals[file], file.suffix, rng))
            counted = counts[reader.name]
            counted.inputs += 1
            problem, said = tried(reader, path, counted)
            if problem and problem not in counted.harm:
                counted.harm[problem] = f"seed {arguments.seed}, input {number}: {said}"
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"{reader.name.replace(' ', '-')}-{number}{file.suffix}").write_bytes(
                        path.read_bytes()
                    )
            number += 1
            if arguments.input is not None:
                break
    total = {key: sum(getattr(one, key) for one in counts.values()) for key in ("inputs", "sound", *BAD)}
    result = {
        **total,
        "seconds": round(time.monotonic() - began, 1),
        "readers": {k: vars(v) for k, v in counts.items()},
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        for reader_name, one in counts.items():
            print(
                f"{reader_name:16}{one.inputs:>8} inputs {one.sound:>8} sound", *(f"{getattr(one, k)} {k}" for k in BAD)
            )
            for problem, where in one.harm.items():
                print(f"    {problem} ({where})")
    sys.exit(1 if any(total[key] for key in BAD) else 0)


BAD = ("tracebacks", "hangs", "executions")

if __name__ == "__main__":
    main()
