"""Share tiny networks, recipes and a way to run the command line in this process."""

import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
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
    return write_recipe(tmp_path / "tiny")


def write_recipe(directory: Path) -> Path:
    directory.mkdir()
    (directory / "recipe.yaml").write_text(textwrap.dedent(TINY_RECIPE))
    return directory


NO_NORMS = """
from torch import nn


def make(num_classes, width=8):
    layers = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Dropout(0.0), nn.Linear(2 * width, num_classes))
"""


@pytest.fixture
def without_norms(recipe: Path) -> Path:
    """The tiny recipe, of a network without BN."""
    text = (recipe / "recipe.yaml").read_text()
    model = 'name: "autoslim/cifar_resnet", args: {depth: 8, in_channels: 1, width: 8}'
    (recipe / "recipe.yaml").write_text(text.replace(model, 'name: "./net.py:make"'))
    (recipe / "net.py").write_text(NO_NORMS)
    return recipe


@pytest.fixture(scope="session")
def _worked_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_recipe(tmp_path_factory.mktemp("worked") / "tiny")
    run_autoslim("train-supernet", "-r", directory)
    run_autoslim("search", "--flops", "60%,30%", "-r", directory)
    run_autoslim("retrain", directory / "arch-60pct.json")
    return directory


@pytest.fixture
def worked(_worked_once: Path, tmp_path: Path) -> Path:
    """A copy of a tiny recipe whose supernet is trained, searched for 60 % and 30 %, and retrained at 60 %."""
    return Path(shutil.copytree(_worked_once, tmp_path / "tiny"))


def run_autoslim(*arguments: str | Path, code: int = 0) -> Result:
    from autoslim_cli.cli.app import app

    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.exit_code}: {result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


@pytest.fixture
def autoslim() -> Callable[..., Result]:
    """Run `autoslim ...` in this process; the exit code must be the expected one."""
    return run_autoslim


@pytest.fixture
def autoslim_json() -> Callable[..., dict[str, Any]]:
    """Run a command with --json; stdout must be one JSON object and nothing else."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        value = json.loads(run_autoslim(*arguments, "--json").stdout)
        assert isinstance(value, dict)
        return value

    return run


@pytest.fixture
def refuse() -> Callable[..., str]:
    """Run a command that must fail with an exit code: one line on stderr, nothing on stdout. Returns the line."""

    def run(code: int, *arguments: str | Path) -> str:
        result = run_autoslim(*arguments, code=code)
        assert result.stdout == ""
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, result.stderr
        assert result.stderr.splitlines()[-1] == errors[0]
        return errors[0]

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


class Holding(fx.Interpreter):
    """Run a graph, letting go of tensors after their last use; note what is held as some nodes have just run."""

    def __init__(self, module: fx.GraphModule, heads: set[str]) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.heads, self.most = heads, 0

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.heads:
            held = [t for v in [*self.env.values(), value] for t in (v if isinstance(v, tuple) else (v,))]
            held = [t for t in held if isinstance(t, torch.Tensor)]
            sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
            self.most = max(self.most, sum(sizes.values()))
        return value
