"""Code that a recipe names: a file may import those beside it, and they count as it does."""

import pickle
import shutil
import sys

import pytest
import torch

from autoslim_cli.data import workers as module
from autoslim_cli.data.opening import open_source
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.own_code import _OWN, code_digest, load_factory
from autoslim_cli.recipe.schema import DataSettings, ModelSettings

FILES = {
    "net.py": "from blocks import Block\nfrom parts.inner import WIDTH\n\nclass Net: ...\n\n"
    "def make(): return Block, WIDTH\n",
    "task.py": "from net import Block, Net\n\ndef make():\n    import parts.late\n    return Block, Net\n",
    "blocks.py": "from common import sizes\n\nclass Block:\n    size = sizes.SIZE\n",
    "common/__init__.py": "",
    "common/sizes.py": "from . import numbers\nSIZE = numbers.ONE\n",
    "common/numbers.py": "ONE = 1\n",
    "parts/inner.py": "WIDTH = 8\n",  # a package without __init__.py
    "parts/late.py": "",
    "torch/convert.py": "",
    "sched.py": "raise ValueError('the standard library has one of that name')\n",
    "unused.py": "raise ValueError('nobody imports it')\n",
}


@pytest.fixture
def directory(tmp_path):
    """A directory of files; what is imported from it is forgotten in the end."""
    yield written(tmp_path / "first")
    _OWN._make_way()


def written(directory):
    for name, text in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


def load(directory, file="net"):
    return load_factory(f"./{file}.py:make", directory, "model.name")()


def test_a_file_imports_what_lies_beside_it(directory):
    block, width = load(directory)
    assert (block.size, width) == (1, 8)
    assert sys.modules["torch"] is torch  # a folder of that name is none of its


def test_two_files_get_one_module_and_a_changed_one_anew(directory):
    block, _ = load(directory)
    assert load(directory, "task") == (block, sys.modules["net"].Net)
    assert load(directory)[0] is block
    (directory / "common" / "numbers.py").write_text("ONE = 1000\n")
    assert (load(directory)[0].size, block.size) == (1000, 1)
    assert load(directory, "task")[0].size == 1000


def test_a_file_is_run_once(directory):
    (directory / "net.py").write_text(
        "from runs import add\nadd()\n\ndef make():\n    import runs\n    return runs.runs\n"
    )
    (directory / "runs.py").write_text("runs = []\n\ndef add():\n    runs.append(1)\n")
    assert [load(directory) for _ in range(3)] == [[1]] * 3


def test_another_recipe_has_its_own(directory, tmp_path):
    (directory / "net.py").write_text("from parts.deep.inner import WIDTH\n\ndef make(): return WIDTH\n")
    (directory / "parts" / "deep").mkdir()
    for name, width in (("first", 1), ("second", 22), ("third", 333)):
        if name != "first":
            shutil.copytree(directory, tmp_path / name)
        (tmp_path / name / "parts" / "deep" / "inner.py").write_text(f"WIDTH = {width}\n")
    before = list(sys.path)
    assert [load(tmp_path / name) for name in ("first", "second", "third", "first")] == [1, 22, 333, 1]
    assert sys.path == [*before, str(directory)]


def test_one_recipe_s_files_may_lie_in_several_directories(directory):
    (directory / "models").mkdir()
    (directory / "models" / "other.py").write_text("def make():\n    from late import ONE\n    return ONE\n")
    (directory / "models" / "late.py").write_text("ONE = 7\n")
    other = load_factory("./models/other.py:make", directory, "model.name")
    assert load(directory)[0].size == 1
    assert other() == 7


@pytest.mark.parametrize("name", ["sched", "queue"])
def test_what_has_the_name_of_something_else_is_refused(directory, name):
    """Which of the two were imported would depend on what was imported before."""
    (directory / f"{name}.py").write_text("")
    (directory / "net.py").write_text(f"import {name}\n\ndef make(): ...\n")
    with pytest.raises(
        UsageError, match=f"{name} is imported from .*{name}.py, not from beside it: give {name}.py in "
    ):
        load(directory)


def test_a_module_of_that_name_from_elsewhere_is_refused(directory, monkeypatch, tmp_path):
    (tmp_path / "blocks.py").write_text("Block = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"blocks is imported from .*blocks\.py, not from beside it"):
        load(directory)
    (tmp_path / "here" / "common").mkdir(parents=True)
    (tmp_path / "here" / "common" / "net.py").write_text("def make(): ...\n")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "here")
    load_factory("./blocks.py:Block", directory, "model.name")
    with pytest.raises(UsageError, match=r"common lies in .*here, and beside a file of the recipe"):
        load_factory("common.net:make", directory, "model.name")


def test_a_file_does_not_take_the_place_of_a_module(directory):
    (directory / "torch.py").write_text("def make():\n    return 1\n")
    assert load(directory, "torch") == load(directory, "torch") == 1
    assert sys.modules["torch"] is torch


def test_a_file_that_fails_is_read_again_once_it_is_mended(directory):
    for name in ("blocks", "net"):
        (directory / f"{name}.py").write_text("1 / 0\n")
        with pytest.raises(UsageError, match="ZeroDivisionError"):
            load(directory)
        (directory / f"{name}.py").write_text(FILES[f"{name}.py"])
        assert load(directory)[0].size == 1


def test_what_is_named_from_within_a_package_says_how(directory):
    (directory / "net.py").write_text("from .blocks import Block\n")
    with pytest.raises(UsageError, match="without a dot"):
        load(directory)


def test_the_code_of_a_file_is_that_of_what_it_imports(directory):
    def of(file):
        return code_digest(f"./{file}.py:make", directory)

    net, task = of("net"), of("task")
    (directory / "unused.py").write_text("")
    (directory / "parts" / "late.py").write_text("ONE = 1\n")
    assert of("net") == net
    assert of("task") != task  # imported within a function
    (directory / "common" / "numbers.py").write_text("ONE = 3\n")
    assert of("net") != net
    (directory / "common" / "numbers.py").write_text(FILES["common/numbers.py"])
    assert of("net") == net


def test_the_code_of_a_module_is_that_of_its_package(directory, monkeypatch):
    (directory / "common" / "task.py").write_text("import blocks\n\ndef make(): ...\n")
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(directory)
    load_factory("common.task:make", directory, "task.name")
    before = code_digest("common.task:make", directory)
    (directory / "blocks.py").write_text("")  # another package
    assert code_digest("common.task:make", directory) == before
    (directory / "common" / "__init__.py").write_text("ONE = 3\n")
    assert code_digest("common.task:make", directory) != before
    for name in [name for name in sys.modules if name.partition(".")[0] in ("common", "blocks")]:
        del sys.modules[name]


def test_of_an_installed_package_the_file_alone_counts(directory):
    assert load_factory("torch.utils.data:TensorDataset", directory, "data.name") is torch.utils.data.TensorDataset
    assert code_digest("torch.utils.data:TensorDataset", directory) != code_digest("torch.utils:data", directory)


DATA = """
import torch
from helpers import values

class Items:
    def __init__(self, count):
        self.values, self.shift = values(count), lambda value: value + 1
        self.order = torch.randperm(count)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.shift(self.values[index]), self.order[index]

def make(part):
    return Items(6)
"""


@pytest.fixture
def source(directory):
    (directory / "data.py").write_text(DATA)
    (directory / "helpers.py").write_text(
        "import torch\n\ndef values(count):\n    return torch.zeros(count, 1, 2, 2)\n"
    )
    settings = DataSettings(name="./data.py:make", holdout=1, workers=2)
    return open_source("train", settings, ModelSettings(name="x", input=(1, 2, 2)), 0, directory, torch.device("cpu"))


def test_a_data_set_that_cannot_be_sent_is_made_anew_by_another_process(source):
    again = pickle.loads(pickle.dumps(source))
    for one, another in zip(next(again.fitted([torch.arange(2)])), next(source.fitted([torch.arange(2)])), strict=True):
        assert torch.equal(one, another)  # what was drawn once, too
    assert again.digest == source.digest


def test_a_factory_that_fails_in_another_process_says_so(source, directory):
    sent = pickle.dumps(source)
    (directory / "helpers.py").write_text("1 / 0\n")
    with pytest.raises(AutoslimError, match="ZeroDivisionError"):
        pickle.loads(sent)[0, None]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_workers_that_share_nothing_with_their_parent(source, monkeypatch, how):
    monkeypatch.setattr(module, "HOW", how)
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    batches = list(source.fitted([torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])]))
    assert all(torch.equal(images, torch.ones(2, 1, 2, 2)) for images, _ in batches)
    assert torch.cat([order for _, order in batches]).tolist() == source.items.plain.order.tolist()
