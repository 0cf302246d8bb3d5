"""Worker processes stay from pass to pass, whatever becomes of a pass."""

import itertools
import os
import pickle
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from autoslim_cli.data import workers as module
from autoslim_cli.data.folder import ImageFiles, Names
from autoslim_cli.data.own import OwnItems, OwnSource
from autoslim_cli.data.sources import FileSource
from autoslim_cli.data.workers import Workers
from autoslim_cli.errors import AutoslimError
from autoslim_cli.recipe.schema import DataSettings

# Two workers are asked for whatever the machine: torch warns of more than there are cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Squares(Dataset):
    """Items that say who made them."""

    def __getitem__(self, key):
        if key < 0:
            raise AutoslimError(f"{key} has no square\nof any kind")
        return key**2, os.getpid()


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    return Workers(Squares(), 2)


BATCHES = [[number, number + 1] for number in range(8)]
WANTED = [[number**2, (number + 1) ** 2] for number in range(8)]


def values(batches):
    return [squares.tolist() for squares, _ in batches]


def pids(batches):
    return {pid for _, who in batches for pid in who.tolist()}


def test_workers_stay(pool):
    first = pids(pool.load(BATCHES))
    assert pids(pool.load(BATCHES[:5])) == first
    assert os.getpid() not in first
    assert values(pool.load(BATCHES)) == WANTED


def test_a_pass_that_is_left_leaves_nothing_behind(pool):
    for _ in itertools.islice(pool.load(BATCHES), 2):
        pass
    assert values(pool.load(BATCHES[::-1])) == WANTED[::-1]


def test_a_pass_within_a_pass_has_processes_of_its_own(pool):
    outer = pool.load(BATCHES)
    found = [next(outer)]
    inner = list(pool.load(BATCHES[:3]))
    assert values(inner) == WANTED[:3]
    found += outer
    assert values(found) == WANTED
    assert not pids(inner) & pids(found)


def test_those_of_a_pass_within_a_pass_stay_as_well(pool):
    outer = pool.load(BATCHES)
    found = [next(outer)]
    first, second = (pids(pool.load(BATCHES[:3])) for _ in range(2))
    assert first == second
    assert not pids([*found, *outer]) & first


def test_an_error_is_one_line_and_ends_its_pass_alone(pool):
    with pytest.raises(AutoslimError) as error:
        list(pool.load([[1, 2], [-3, 4], [5, 6]]))
    assert str(error.value) == "-3 has no square of any kind"
    assert values(pool.load(BATCHES)) == WANTED


def test_what_workers_are_given_can_be_pickled_while_they_run(pool):
    source = pool.load(BATCHES)
    next(source)
    assert values(pickle.loads(pickle.dumps(pool)).load(BATCHES)) == WANTED


def test_sources_hold_no_circle_through_which_workers_would_not_be_told_to_end():
    files = ImageFiles(Path(), Names(["a.jpg"]), torch.zeros(1, dtype=torch.int64))
    gone = weakref.ref(FileSource(files, (3, 8, 8), 2).workers)
    assert gone() is None  # without the garbage collector
    items = OwnItems(DataSettings(name="./data.py:make", holdout=1, workers=2), "train", Path(), [], [])
    own = OwnSource(items, code="", chosen=torch.arange(1))
    gone = weakref.ref(own.workers)
    del own
    assert gone() is None


def test_the_main_process_may_load_alone():
    assert pids(Workers(Squares(), 0).load(BATCHES)) == {os.getpid()}


@pytest.mark.parametrize(("asked", "local", "count"), [(16, 1, 8), (16, 4, 2), (1, 4, 1), (4, 16, 1), (0, 4, 0)])
def test_the_processes_of_a_machine_share_its_cores(monkeypatch, asked, local, count):
    place = {"RANK": 0, "WORLD_SIZE": 2 * local, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": local, "MASTER_ADDR": "here"}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(module, "available_cores", lambda: 8)
    loader, _ = Workers(Squares(), asked)._new()
    assert loader.num_workers == count


def test_names_in_one_piece():
    plain = ["n01/a.jpg", "", "ü/é.png", "n02/b c.jpg", os.fsdecode(b"\xff\xfe.jpg")]
    names = Names(plain)
    assert list(names) == plain
    assert len(names) == 5
    assert (names[-2], list(names[1:4:2])) == ("n02/b c.jpg", ["", "n02/b c.jpg"])
    with pytest.raises(IndexError):
        names[5]
    some = ImageFiles(None, names, torch.arange(5)).select(torch.tensor([3, 0]))
    assert (list(some.names), some.labels.tolist(), list(some.masks)) == (["n02/b c.jpg", "n01/a.jpg"], [3, 0], [])
