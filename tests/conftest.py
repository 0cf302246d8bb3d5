"""Share tiny networks, recipes and a way to run the command line in this process."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

TINY_RECIPE = """
    format: autoslim.recipe/1
    model: {name: "autoslim/cifar_resnet", args: {depth: 8, in_channels: 1, width: 8}, input: [1, 8, 8], classes: 10}
    data: {name: digits, holdout: 150, limit: 600, augment: {crop: pad, padding: 1, flip: true}}
    space: {groups: 6, divisor: 2}
    supernet: {width: 1.5, min_width: 0.25}
    train: {epochs: 3, batch: 64, lr: 0.1, warmup: 0.1}
    calibrate: {images: 256, batch: 128}
    search: {batch: 75}
    retrain: {epochs: 3, batch: 64, lr: 0.1, schedule: step, milestones: [0.5]}
    device: cpu
"""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe directory that trains in seconds."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    (directory / "recipe.yaml").write_text(textwrap.dedent(TINY_RECIPE))
    return directory


@pytest.fixture
def autoslim() -> Callable[..., Result]:
    """Run `autoslim ...` in this process; the exit code must be the expected one."""
    from autoslim_cli.cli.app import app

    def run(*arguments: str | Path, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, f"{result.exit_code}: {result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result

    return run


@pytest.fixture
def autoslim_json(autoslim: Callable[..., Result]) -> Callable[..., dict[str, Any]]:
    """Run a command with --json; stdout must be one JSON object and nothing else."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        value = json.loads(autoslim(*arguments, "--json").stdout)
        assert isinstance(value, dict)
        return value

    return run


def randomise_norms(network: nn.Module) -> None:
    """Give BN layers statistics and affine values that differ per channel: a wrong slice then shows."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                if module.weight is not None:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.1)
