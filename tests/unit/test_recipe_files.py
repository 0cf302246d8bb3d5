"""Recipes as files: YAML as people write it, numbers with exponents, the way there and back, and whose a file is."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoslim_cli.recipe.catalogue import recipe_of
from autoslim_cli.recipe.plain_yaml import read_yaml, to_yaml
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, TaskSettings
from autoslim_cli.recipe.schema.bounds import _finite

PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**18), 10**18),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12),
        st.from_regex(r"[-+]?[0-9]{1,3}(\.[0-9]{0,2})?[eE][-+]?[0-9]{1,2}", fullmatch=True),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "1.0e-3", "+1e-3", ".1e-2", "0.001"])
def test_a_number_with_an_exponent_is_one(text):
    assert read_yaml(f"eps: {text}") == {"eps": 0.001}


@pytest.mark.parametrize("text", ["e3", "1e", "1e3x", "v1e3", "'1e3'", "1e-3 s"])
def test_what_only_looks_like_one_is_text(text):
    assert read_yaml(f"name: {text}") == {"name": text.strip("'")}


@given(PLAIN)
def test_what_is_written_is_read_as_the_same(value):
    again = read_yaml(to_yaml(value))
    assert again == value
    assert json.dumps(again) == json.dumps(value)  # 1 is not 1.0, and text is no number


@pytest.mark.parametrize(
    ("settings", "more"), [(ModelSettings, {"input": (3, 8, 8)}), (DataSettings, {"holdout": 8}), (TaskSettings, {})]
)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_arguments_that_no_file_can_hold_are_refused(settings, more, value):
    others = {"name": "a.b:c", **more}
    assert settings(**others, args={"deep": [{"eps": 1e-3}]}).args == {"deep": [{"eps": 1e-3}]}
    with pytest.raises(ValidationError, match="take a finite number"):
        settings(**others, args={"deep": [{"eps": value}]})


def test_arguments_may_be_nested_as_deep_as_json_is_read():
    deep = {"eps": 1e-3}
    for _ in range(2000):
        deep = {"in": deep}
    assert _finite(deep) is deep


def test_a_config_among_the_published_ones_finds_its_recipe_from_anywhere(recipe, monkeypatch):
    published = recipe / "published"
    published.mkdir()
    for name in ("arch.json", "published/arch.json", "tiny/published/arch.json"):
        monkeypatch.chdir((published, recipe, recipe.parent)[name.count("/")])
        assert recipe_of(Path(name)).resolve() == recipe
    (published / "deeper").mkdir()
    monkeypatch.chdir(published / "deeper")
    assert recipe_of(Path("../arch.json")).resolve() == recipe
    assert recipe_of(Path("arch.json")) is None
