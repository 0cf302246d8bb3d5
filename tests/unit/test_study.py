"""The pure parts of benchmarks/study: how scores rank networks, and how sure that is."""

import random

import pytest
from outside import outside
from scipy.stats import kendalltau

NAMES = ("plan", "found", "ranked", "written", "ranking")


@pytest.fixture(scope="module")
def study():
    with outside("benchmarks/study", names=NAMES) as modules:
        modules.ranking.RESAMPLED = 200  # enough to tell, and quick
        yield modules


def bounds(text):
    """Return the correlation and the ends of its interval."""
    value, _, interval = text.partition(" ")
    low, _, high = interval.strip("()").partition(" to ")
    return float(value), float(low), float(high)


def test_an_interval_is_narrow_where_the_order_is_clear_and_wide_where_there_is_none(study):
    rng = random.Random(0)
    quality = [rng.random() for _ in range(30)]
    noise = [rng.random() for _ in range(30)]
    value, low, high = bounds(study.ranking.interval(kendalltau, quality, [2 * q for q in quality]))
    assert value == low == high == 1
    value, low, high = bounds(study.ranking.interval(kendalltau, quality, noise))
    assert low < 0 < high, "nothing tells the order"
    assert low < value < high
    few = bounds(study.ranking.interval(kendalltau, quality[:6], noise[:6]))
    assert few[2] - few[1] > high - low, "fewer networks say less"


def test_good_networks_are_ranked_apart_and_beside_what_another_training_says(study, monkeypatch, capsys):
    names = ["uniform", "default", "lazy", "stride 0.05", "random, best of 100", *(f"random {n}" for n in range(6))]
    trained = [
        {"share": 25, "network": name, "channels": {"a": place}, "test_top1": place + training}
        for place, name in enumerate(names)
        for training in (0, 100)
    ]
    scored = [
        # Right among the random ones, and the wrong way round among the good ones.
        {
            "other": "12 epochs",
            "channels": {"a": place},
            "supernet": {"loss": 1.0 / (place + 1) if place > 4 else place, "top1": 0.5},
        }
        for place in range(len(names))
    ]
    monkeypatch.setattr(study.ranking, "rows_of", lambda seed, name: scored)
    study.ranking.report_ranked(trained, [0])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "%" in line]
    by_loss = {row[1]: bounds(row[3])[0] for row in rows if row[2] == "12 epochs, loss"}
    assert by_loss["random alone, 6"] == 1
    assert by_loss["good, 5"] == -1
    ceilings = {row[1]: bounds(row[3])[0] for row in rows if row[2].startswith("another training")}
    assert {row[3] for row in rows if row[2] == "12 epochs, top1"} == {"none"}, "all scores are alike"
    assert ceilings == {"all, 11": 1, "random alone, 6": 1, "good, 5": 1}
