"""Weights as people have them: what everyday tools write is unwrapped, and what cannot be read is said in a line."""

import argparse
import collections
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.weights import load_weights
from autoslim_cli.models.built_in import FACTORIES

ESCAPES = [chr(code) for code in range(32)]


def network():
    return FACTORIES["cifar_resnet"](num_classes=5, depth=8)


def prefixed(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


class AttributeDict(dict):
    """As Lightning's: hyperparameters are objects of a class of its own."""


class AttributeList(list):
    """As OmegaConf's and others'."""


STATE = network().state_dict()
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}
ADAM = torch.optim.Adam(network().parameters())

EVERYDAY = {
    "plain": (STATE, []),
    "state_dict": ({"state_dict": STATE, "epoch": 3}, ["took state_dict"]),
    "model": ({"model": STATE, "optimizer": ADAM.state_dict(), "epoch": 3}, ["took model"]),
    "data parallel": (prefixed("module.", STATE), ["took 'module.' off the names"]),
    "both": ({"state_dict": prefixed("module.", STATE)}, ["took state_dict", "took 'module.' off the names"]),
    "compiled": (prefixed("_orig_mod.", STATE), ["took '_orig_mod.' off the names"]),
    "deeper": ({"state": {"net": prefixed("module.model.", STATE)}}, ["took state.net", "'module.model.'"]),
    "torchvision": (
        {"model": STATE, "model_ema": {**prefixed("module.", OTHER), "n_averaged": torch.tensor(3)}, "args": Path("x")},
        ["took model", "left model_ema, which fits, too"],
    ),
    "timm": (
        {
            **{"epoch": 3, "arch": "resnet", "state_dict": STATE, "state_dict_ema": OTHER, "version": 2},
            **{"args": argparse.Namespace(lr=0.1, data=Path("data")), "metric": np.float64(71.3)},
        },
        ["took state_dict", "left state_dict_ema, which fits, too"],
    ),
    "Lightning": (
        {
            "pytorch-lightning_version": "2.4.0",
            "state_dict": {**prefixed("net.", STATE), "criterion.weight": torch.ones(5)},
            "hyper_parameters": AttributeDict(lr=0.1, path=Path("x"), steps=collections.defaultdict(int, {1: 2})),
            "lists": AttributeList([1, AttributeList([2])]),
            "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}},
        },
        ["took state_dict", "took 'net.' off the names", "left out criterion.weight"],
    ),
    "a teacher beside it": (
        {**prefixed("student.", STATE), **prefixed("teacher.", OTHER)},
        ["took 'student.' off the names", "left out teacher."],
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", EVERYDAY)
def test_everyday_checkpoints_are_unwrapped(layout, tmp_path):
    values, said = EVERYDAY[layout]
    torch.save(values, tmp_path / "w.ckpt")
    found = load_weights(tmp_path / "w.ckpt", "model.weights", STATE)
    assert {name for name in STATE if torch.equal(found.tensors[name], STATE[name])} == set(STATE)
    assert len(found.done) == len(said)
    assert all(words in done for words, done in zip(said, found.done, strict=True))


def test_prefixes_in_safetensors(tmp_path):
    safetensors.torch.save_file(prefixed("model.", STATE), tmp_path / "w.safetensors")
    found = load_weights(tmp_path / "w.safetensors", "model.weights", STATE)
    assert found.tensors.keys() == STATE.keys()
    assert found.done == ("took 'model.' off the names",)


@pytest.mark.parametrize("whole", [lambda n: n, lambda n: {"model": nn.DataParallel(n), "epoch": 3}])
def test_a_pickled_network_s_tensors_are_read_without_running_its_code(whole, tmp_path, monkeypatch):
    one = network()
    torch.save(whole(one), tmp_path / "w.pt")
    monkeypatch.setattr(type(one), "__setstate__", lambda *_: pytest.fail("code was run"))
    found = load_weights(tmp_path / "w.pt", "model.weights", STATE)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in one.state_dict().items())
    assert any("a pickled" in done and "none of its code" in done for done in found.done)


class Payload:
    def __init__(self, function, *arguments):
        self.does = function, arguments

    def __reduce__(self):
        return self.does


@pytest.mark.parametrize(
    "payload",
    [
        lambda mark: Payload(os.system, f"touch {mark}"),
        lambda mark: Payload(exec, f"open({str(mark)!r}, 'w').close()"),
        lambda mark: Payload(Path.touch, Path(mark)),
        lambda mark: Payload(getattr, Payload(Path, str(mark)), "touch"),
    ],
)
def test_nothing_is_executed(payload, tmp_path):
    mark = tmp_path / "executed"
    torch.save({"state_dict": STATE, "args": payload(mark)}, tmp_path / "w.pt")
    with suppress(ArtifactError):  # some names are refused outright
        assert load_weights(tmp_path / "w.pt", "model.weights", STATE).tensors.keys() == STATE.keys()
    assert not mark.exists()


def laughs():
    """A pickled network of a few modules, each twice in the next."""
    module = nn.Module()
    for _ in range(40):
        outer = nn.Module()
        outer.a = outer.b = module
        module = outer
    return module


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epoch": 3}, "holds no tensors by name"),
        ([1, 2], "holds no tensors by name"),
        ({"a.b": torch.zeros(2), "c": torch.zeros(1)}, "it holds a.b, c, and the network has conv1.weight"),
        ({"one": STATE, "two": OTHER}, "holds several networks that fit, one and two"),
        ({**prefixed("left.", STATE), **prefixed("right.", OTHER)}, "several networks that fit, left. and right."),
        (laughs(), "holds no tensors by name"),
        (b"", "is neither weights nor a checkpoint"),
        (b"PK\x03\x04", "is neither weights nor a checkpoint"),
        (b"abc", "is neither weights nor a checkpoint"),
        (torch.jit.script(nn.Linear(2, 2)), "is a TorchScript archive"),
    ],
)
def test_what_holds_no_weights_is_said_in_a_line(values, said, tmp_path):
    path = tmp_path / "w.pt"
    if isinstance(values, bytes):
        path.write_bytes(values)
    elif isinstance(values, torch.jit.ScriptModule):
        torch.jit.save(values, path)
    else:
        torch.save(values, path)
    with pytest.raises(ArtifactError) as error:
        load_weights(path, "model.weights", STATE)
    words = str(error.value)
    assert words.startswith(f"model.weights: {path} ")
    assert said in words
    assert "remove" not in words
    assert not any(escape in words for escape in ESCAPES)
