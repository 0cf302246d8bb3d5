"""Code that a recipe names: a file may import those beside it, and they count as it does."""

import pickle
import queue
import shutil
import sys

import pytest
import torch

from autoslim_cli.data import workers as module
from autoslim_cli.data.opening import open_source
from autoslim_cli.errors import UsageError
from autoslim_cli.own_code import load_factory, source_of
from autoslim_cli.recipe.schema import DataSettings, ModelSettings

FILES = {
    "net.py": "from blocks import Block\nfrom parts.inner import WIDTH\n\ndef make():\n    return Block, WIDTH\n",
    "task.py": "import blocks, queue\n\ndef make():\n    import parts.late\n    return blocks.Block, queue.Queue\n",
    "blocks.py": "from common import sizes\n\nclass Block:\n    size = sizes.SIZE\n",
    "common/__init__.py": "",
    "common/sizes.py": "from . import numbers\nSIZE = numbers.ONE\n",
    "common/numbers.py": "ONE = 1\n",
    "parts/inner.py": "WIDTH = 8\n",  # a package without __init__.py
    "parts/late.py": "",
    "queue.py": "raise ValueError('the standard library has one of that name')\n",
    "unused.py": "raise ValueError('nobody imports it')\n",
}


@pytest.fixture
def directory(tmp_path):
    before = dict(sys.modules), list(sys.path)
    yield written(tmp_path / "first")
    assert sys.path == before[1]
    for name in set(sys.modules) - set(before[0]):
        if not name.startswith("torch"):
            del sys.modules[name]
    sys.modules.update(before[0])


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


def test_two_files_get_one_module_and_a_changed_one_anew(directory):
    block, _ = load(directory)
    (directory / "task.py").write_text(FILES["task.py"].replace("    import parts.late\n", ""))
    assert load(directory, "task") == (block, queue.Queue)
    (directory / "common" / "numbers.py").write_text("ONE = 1000\n")
    assert (load(directory)[0].size, block.size) == (1000, 1)


def test_another_recipe_has_its_own(directory, tmp_path):
    other = shutil.copytree(directory, tmp_path / "other")
    (other / "common" / "numbers.py").write_text("ONE = 2000\n")
    assert [load(place)[0].size for place in (directory, other, directory)] == [1, 2000, 1]


def test_a_module_of_that_name_from_elsewhere_stays_what_it_was(directory, monkeypatch, tmp_path):
    (tmp_path / "blocks.py").write_text("Block = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    elsewhere = __import__("blocks")
    first, second = load(directory)[0], load(directory)[0]
    assert (first.size, first is second) == (1, True)
    assert sys.modules["blocks"] is elsewhere


def test_a_file_does_not_take_the_place_of_a_module(directory):
    (directory / "torch.py").write_text("def make():\n    return 1\n")
    assert load(directory, "torch") == 1
    assert sys.modules["torch"] is torch


def test_what_is_named_from_within_a_package_says_how(directory):
    (directory / "net.py").write_text("from .blocks import Block\n")
    with pytest.raises(UsageError, match="without a dot"):
        load(directory)


def test_the_code_of_a_file_is_that_of_what_it_imports(directory):
    def of(file):
        return source_of(f"./{file}.py:make", directory)

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
    (directory / "common" / "task.py").write_text("import blocks\nfrom common import sizes\n\ndef make(): ...\n")
    monkeypatch.chdir(directory)
    load_factory("common.task:make", directory, "task.name")
    before = source_of("common.task:make", directory)
    (directory / "blocks.py").write_text("")  # another package
    assert source_of("common.task:make", directory) == before
    (directory / "common" / "numbers.py").write_text("ONE = 3\n")
    assert source_of("common.task:make", directory) != before


DATA = """
from helpers import values

class Items:
    def __init__(self, count):
        self.values, self.shift = values(count), lambda value: value + 1

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.shift(self.values[index]), 0

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
    assert torch.equal(next(again.fitted([torch.arange(2)]))[0], torch.ones(2, 1, 2, 2))
    assert again.digest == source.digest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_workers_that_share_nothing_with_their_parent(source, monkeypatch, how):
    monkeypatch.setattr(module, "HOW", how)
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    batches = [torch.tensor([0, 1]), torch.tensor([2, 3])]
    assert [images.tolist() for images, _ in source.fitted(batches)] == [torch.ones(2, 1, 2, 2).tolist()] * 2
