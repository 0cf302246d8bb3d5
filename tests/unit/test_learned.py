"""What files keep of the images that a network learned from, and when two of these are the same."""

import unicodedata

import pytest

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.facts import LearnedFrom
from autoslim_cli.files.learned import (
    MOST_NAMES,
    difference_of_classes,
    kept_names,
    learned_from,
    refuse_unsuited,
    shortened,
)
from autoslim_cli.files.provenance import decisive_difference
from autoslim_cli.recipe.schema import Recipe


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [(["a", "b"], ["a", "b"], ""),
     (["a", "b"], [], ""),
     ([], ["a"], ""),
     (["a", "b"], ["b", "a"], "class 0 was 'a', is 'b', and the names are the same in another order"),
     (["a", "b", "c"], ["a", "c"], "class 1 was 'b', is 'c'"),
     (["a", "b"], ["a"], "class 1 was 'b', is none"),
     (["a"], ["a", "b"], "class 1 was none, is 'b'")],
)  # fmt: skip
def test_the_first_class_that_differs_is_named(then, now, said):
    assert difference_of_classes(then, now) == said


def test_names_are_kept_as_text_and_within_bounds():
    thousand = [f"n{number:08}" for number in range(1000)]
    assert kept_names(thousand) == thousand
    assert kept_names(["x"] * (MOST_NAMES + 1)) == []
    assert kept_names(["x" * 2**21]) == []
    assert kept_names(["caf\udce9"]) == ["caf\\udce9"]  # a directory whose name is no text
    assert kept_names([unicodedata.normalize("NFD", "café")]) == ["café"]
    assert (
        shortened(thousand)
        == "n00000000, n00000001, n00000002, n00000003, n00000004, n00000005, n00000006, ... n00000999"
    )
    assert shortened(["a", "b"]) == "a, b"


def section(mean, std, task="classification"):
    return {"data": {"name": "digits", "mean": mean, "std": std}, "task": {"name": task}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [((None, None), ([0.5], [0.5]), True),
     (([0.5], [0.5]), ([0.5, 0.5, 0.5], (0.5, 0.5, 0.5)), True),
     ((None, None), ([0.5], [0.25]), False),
     (([0.1, 0.2, 0.3], None), ([0.1, 0.2, 0.3], [0.5]), True),
     (([0.1, 0.2, 0.3], None), ([0.3, 0.2, 0.1], None), False)],
)  # fmt: skip
def test_a_normalisation_is_what_it_does_to_pixels(one, other, same):
    assert (Recipe.decisive(section(*one)) == Recipe.decisive(section(*other))) == same
    assert (decisive_difference({"recipe": section(*one)}, {"recipe": section(*other)}) == "") == same


def test_detectors_have_another_that_is_usual():
    left_out, usual, of_others = (
        Recipe.decisive(section(*values, task="detection")) for values in ((None, None), ([0.0], [1.0]), ([0.5], [0.5]))
    )
    assert left_out == usual
    assert left_out != of_others


@pytest.mark.parametrize("values", [3, "0.5", [[0.5]], ["a"], {"0": 1}])
def test_a_damaged_record_is_no_normalisation(values):
    assert learned_from({"made_from": {"recipe": section(values, None)}}) is None


def test_earlier_files_say_what_built_in_data_is_normalised_by():
    known = learned_from({"made_from": {"recipe": section(None, [0.25])}})
    assert known is not None
    assert (known.class_names, known.mean, known.std) == ([], [0.5], [0.25])
    own = section(None, None)
    own["data"]["name"] = "./data.py:pairs"
    assert learned_from({"made_from": {"recipe": own}}) is None


def test_nothing_said_is_nothing_known():
    assert learned_from({"learned_from": None}) is None
    assert learned_from({}) is None


BUILT_IN = {"made_from": {"recipe": section([0.4], None)}}  # as earlier versions wrote it
OWN_FLOATS = {"learned_from": {"class_names": ["a"]}, "made_from": {"recipe": section(None, None)}}


@pytest.mark.parametrize(
    ("facts", "now", "said"),
    [(BUILT_IN, LearnedFrom(mean=[0.4], std=[0.5]), None),
     (BUILT_IN, LearnedFrom(mean=[0.5], std=[0.5]), "images of data.mean=[0.4], but it is [0.5] now"),
     (BUILT_IN, LearnedFrom(), None),  # a data set of one's own gives what it gives
     (OWN_FLOATS, LearnedFrom(class_names=["a"], mean=[0.4], std=[0.5]), None),
     (OWN_FLOATS, LearnedFrom(class_names=["b"]), "class 0 was 'a', is 'b'"),
     ({"learned_from": {"mean": [0.5], "std": [0.5]}}, LearnedFrom(mean=[0.5], std=[0.2]), "restore data.std")],
)  # fmt: skip
def test_images_that_a_network_does_not_know_are_refused(tmp_path, facts, now, said):
    if said is None:
        refuse_unsuited(tmp_path, facts, now)
        return
    with pytest.raises(ArtifactError) as refused:
        refuse_unsuited(tmp_path, facts, now)
    assert said in str(refused.value)
