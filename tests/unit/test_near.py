"""Names that are unknown: the near ones are proposed, and where none is near, what there is."""

import pytest

from autoslim_cli.errors import UsageError
from autoslim_cli.near import hint, listed, near
from autoslim_cli.own_code import load_factory
from autoslim_cli.recipe.loading import load_recipe


@pytest.mark.parametrize(
    ("name", "most", "expected"),
    [
        ("epoch", 1, ["epochs"]),
        ("Epochs", 1, ["epochs"]),
        ("batche", 2, ["batch", "batches"]),
        ("warm-up", 2, ["warmup"]),
        ("quux", 1, []),
        ("", 1, []),
    ],
)
def test_near_is_a_slip_or_two_away(name, most, expected):
    assert sorted(near(name, ["epochs", "batch", "batches", "lr", "warmup"], most)) == expected


def test_where_nothing_is_near_there_is_a_list_that_ends():
    many = [f"layer{number}" for number in range(50)]
    assert hint("zzz", many) == "there are layer0, layer1, layer2, layer3, layer4, layer5, layer6, layer7 and 42 more"
    assert hint("zzz", ["one"]) == "there is one"
    assert hint("zzz", []) == "there is none"
    assert hint("layer51", ["layer5", "stem"]) == "did you mean layer5?"
    assert listed(["a", "b"], most=2) == "a, b"


def test_of_several_unknown_keys_those_that_are_near_nothing_name_what_there_is(recipe):
    path = recipe / "recipe.yaml"
    path.write_text(path.read_text().replace("schedule: step", "quux: 1, schedule: step, batsh: 3"))
    with pytest.raises(UsageError) as error:
        load_recipe(recipe)
    assert "retrain.quux (there are epochs, " in str(error.value)
    assert "retrain.batsh (did you mean batch?)" in str(error.value)


def test_a_factory_that_a_file_does_not_have(tmp_path):
    (tmp_path / "net.py").write_text("def small():\n    pass\n\ndef large():\n    pass\n\n_HIDDEN = print\n")
    for name, words in (("smal", "did you mean small?"), ("quux", "there are small, large")):
        with pytest.raises(UsageError) as error:
            load_factory(f"./net.py:{name}", tmp_path, "model.name")
        assert str(error.value).endswith(f"has no factory {name!r}; {words}")


def test_what_is_no_network_is_not_taken_for_one_of_torchvision(refuse):
    assert "did you mean torchvision/resnet50?" in refuse(2, "info", "resnet-50")
    assert "did you mean" not in refuse(2, "info", "no/such/thing")
    assert "did you mean" not in refuse(2, "units", "-r", "quux")
