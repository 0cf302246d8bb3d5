"""One sound file of each kind, made on the spot."""

import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from autoslim_cli.cost.configs import config_of
from autoslim_cli.files import checkpoint
from autoslim_cli.files.channel_config import Found, Holdout, save_model, write_config
from autoslim_cli.latency.grid import layer_shapes
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.suite import MANIFEST, Suite, SuiteLayer, write_manifest
from autoslim_cli.latency.suite_times import TIMES
from autoslim_cli.latency.table import Device, LatencyTable, LayerTimes, write_table
from autoslim_cli.progress import Reporter, Talk
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.searching.log import FORMAT, LOG_FILE, SearchLog
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.stages.project import Project, open_project, origin
from autoslim_cli.training.job import Job
from autoslim_cli.training.score import Score
from autoslim_cli.training.state import State

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
SUPERNET_OF = ("data", "space", "supernet")
"""The sections of a recipe that a supernet records, for its readers."""


def corpus(directory: Path) -> Project:
    """Make one sound file of each kind in a recipe's directory."""
    (directory / "recipe.yaml").write_text(RECIPE)
    project = open_project(load_recipe(directory), directory, Reporter(talk=Talk.NOTHING))
    network, costs, space = project.network, project.costs, project.network.space
    channels, supernet = space.uniform(0.5), directory / "supernet.safetensors"
    facts = {"model": network.architecture, "channels": network.full, "made_from": origin(project, *SUPERNET_OF)}
    checkpoint.save(supernet, checkpoint.SUPERNET, network.fresh_supernet().kept.state_dict(), facts)
    # 1. A found config, and a network that was retrained from it.
    searched = {"budget": "flops<=30%", "loss": 1.0, "top1": 0.5, "step": 3, "supernet": "sha256:0"}
    found = Found.model_validate({"holdout": Holdout(images=150, seed=0), **searched})
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
    training_state(plain).save(job_of(state), 3)
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
    for done in (1, 2, 3):
        state.step(None, done)
    return state


def job_of(state: Path) -> Job:
    """Return what a training state needs of its job."""
    settings = SimpleNamespace(keep_states=1)
    return cast("Job", SimpleNamespace(state=state, decisive={"recipe": {"seed": 0}}, settings=settings))


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
