"""Recipes, channel configs, budgets, atomic writes."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoslim_cli.cost.budget import Budget, parse, parse_many, short
from autoslim_cli.cost.closed_form import flops
from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files import atomic
from autoslim_cli.files.channel_config import read_config
from autoslim_cli.models.zoo import build
from autoslim_cli.network.trace import read
from autoslim_cli.recipe import catalogue
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.slimming.constraints import constrained, space_of


@pytest.mark.parametrize("name", sorted(catalogue.shipped()))
def test_every_shipped_recipe_is_valid(name):
    """Its network is there and read, has the FLOPs that the recipe says, and leaves something to search."""
    directory = catalogue.shipped()[name]
    recipe = load_recipe(directory)
    model = recipe.model
    reading = constrained(read(build(model, directory), *model.shapes, part=model.trace), recipe.space)
    space = space_of(reading.table, recipe.supernet, recipe.space)
    counted = flops(reading.table, reading.table.base)
    said = re.search(r"\(([\d.]+[MG]) FLOPs", recipe.about)
    if said:  # to as many digits as it says
        digits = len(said[1].rstrip("MG").replace(".", "").lstrip("0"))
        assert float(f"{counted:.{digits}g}") == parse("flops", said[1], 1).limit
    assert said
    assert len([unit for unit in space.units.values() if len(unit.counts) > 1]) >= 4  # Conv-4 has no more
    half = parse("flops", "50%", counted).limit
    assert flops(reading.table, space.smallest) < half < flops(reading.table, space.largest)
    # What is in it is used rightly: as many means as colours, a holdout of whole scorings, epochs that are epochs.
    data, search = recipe.data, recipe.search
    assert {len(values) for values in (data.mean, data.std) if values} <= {model.input[0]}
    assert (search.images or data.holdout) % min(search.batch, search.images or data.holdout) == 0
    if "resnet50" in name:
        assert [share * recipe.retrain.epochs for share in recipe.retrain.milestones] == [30, 60, 90]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=2", ["unknown key train.epoch", "did you mean epochs"]),
        ("trian.epochs=2", ["unknown key trian", "did you mean train"]),
        ("train.quux=2", ["unknown key train.quux; known here: epochs, "]),
        ("train.milestones.x=2", ["train.milestones"]),
        ("data.augment.flop=true", ["data.augment.flop", "flip"]),
        ("train.epochs=none", ["train.epochs", "'none'"]),
        ("train.epochs=0", ["train.epochs", "0"]),
        ("supernet.min_width=2", ["min_width 2.0 must be below width 1.5"]),
        ("epochs", ["key=value"]),
        ("seed.x=2", ["seed"]),
    ],
)
def test_a_wrong_key_or_value_is_named(recipe, override, words):
    with pytest.raises(UsageError) as error:
        load_recipe(recipe, ["seed=1", override])
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"'{override}'")


def test_a_wrong_recipe_is_not_blamed_on_an_override(recipe):
    path = recipe / "recipe.yaml"
    path.write_text(path.read_text() + "\nepocs: 3\n")
    with pytest.raises(UsageError, match=r"recipe\.yaml: unknown key epocs"):
        load_recipe(recipe, ["train.epochs=2"])


def test_all_unknown_keys_are_named_before_missing_ones(recipe):
    path = recipe / "recipe.yaml"
    path.write_text(path.read_text().replace("epochs: 3, batch: 64", "epoch: 3, batsh: 64"))
    with pytest.raises(UsageError) as error:
        load_recipe(recipe, ["trian.epochs=2"])
    line = str(error.value)
    unknown = [line.index(f"{key} (did you mean {near}?)") for key, near in (
        ("train.epoch", "epochs"), ("train.batsh", "batch"), ("retrain.epoch", "epochs"), ("trian", "train"),
    )]  # fmt: skip
    assert unknown == sorted(unknown)
    assert line.index("missing: train.epochs, retrain.epochs") > unknown[-1]
    assert "\n" not in line


def test_overrides_are_read_as_yaml(recipe):
    read = load_recipe(recipe, ["train.lr=1e-2", "data.path=some/where", "model.args.depth=14", "data.limit=null"])
    assert (read.train.lr, read.data.path, read.model.args["depth"], read.data.limit) == (0.01, "some/where", 14, None)


@pytest.mark.parametrize("text", ["", "[1]", "model: [", "just words"])
def test_a_file_that_is_no_recipe(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        load_recipe(tmp_path)


def test_find_copies_a_shipped_recipe_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    assert str(catalogue.find(None, said.append)) == "recipes/digits"
    assert (tmp_path / "recipes/digits/recipe.yaml").is_file()
    assert said == [
        "no --recipe is named and none is here: digits, the demo on embedded digits, is taken",
        "copied the shipped recipe digits to recipes/digits",
    ]
    catalogue.find("digits", said.append)
    assert len(said) == 2
    monkeypatch.chdir(tmp_path / "recipes/digits")
    assert str(catalogue.find(None, said.append)) == "."
    with pytest.raises(UsageError, match="did you mean cifar10"):
        catalogue.find("cifar-10", said.append)


@pytest.mark.parametrize(
    ("text", "limit", "label"),
    [("300M", 300_000_000, "300M"), ("1.5g", 1_500_000_000, "1.5G"), ("250K", 250_000, "250K"),
     ("12345678", 12345678, "12345678"), ("50%", 500, "50pct"), ("12.5 %", 125, "12.5pct")],
)  # fmt: skip
def test_budgets_as_people_write_them(text, limit, label):
    bound = parse("flops", text, 1000)
    assert (bound.limit, Budget((bound,)).label) == (limit, label)


@pytest.mark.parametrize("text", ["", "M", "300X", "-3M", "0", "3,5", "%", "1e6"])
def test_what_is_no_budget(text):
    with pytest.raises(UsageError, match="budget"):
        parse("flops", text, 1000)


def test_budgets_come_largest_first_and_once():
    budgets = parse_many({"flops": "20%,50%,500,1K"}, {"flops": 1000})
    assert [budget.bounds[0].limit for budget in budgets] == [1000, 500, 200]


@given(st.integers(1, 10**13))
def test_short_counts_stay_close(count):
    number, unit = short(count), 1.0
    for letter, size in (("K", 1e3), ("M", 1e6), ("G", 1e9)):
        if number.endswith(letter):
            number, unit = number[:-1], size
    assert float(number) * unit == pytest.approx(count, rel=1e-3)


@pytest.mark.parametrize(
    ("content", "kind"),
    [("{", ArtifactError), ("[]", ArtifactError), ('{"format": "other"}', ArtifactError),
     ('{"format": "autoslim.channels/1", "model": {"name": "x"}, "channels": {}}', UsageError),
     ('{"format": "autoslim.channels/1", "model": {"name": "x", "input": [3, 8, 8], "classes": 2}, "chanels": {}}',
      UsageError)],
)  # fmt: skip
def test_a_damaged_or_foreign_config(tmp_path, content, kind):
    path = tmp_path / "arch-1M.json"
    path.write_text(content)
    with pytest.raises(kind, match="arch-1M"):
        read_config(path)


def test_a_config_by_hand_needs_three_keys(tmp_path):
    path = tmp_path / "arch.json"
    model = {"name": "torchvision/resnet18", "input": [3, 32, 32], "classes": 10}
    path.write_text(json.dumps({"format": "autoslim.channels/1", "model": model, "channels": {"conv1": 8}}))
    assert read_config(path).channels == {"conv1": 8}


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    atomic.write_text(path, "old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_a_second_name_is_given_once(tmp_path):
    """Whoever was killed after giving it gives it again: to rename one name of a file to another does nothing."""
    path, other = tmp_path / "state", tmp_path / "state-1"
    path.write_text("weights")
    for _ in range(2):
        atomic.copy_file(path, other)
        assert other.read_text() == "weights"
        assert sorted(tmp_path.iterdir()) == [path, other]
