"""The whole job on real, embedded images, with the shipped default recipe at a third of its epochs."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_run_on_digits(autoslim, autoslim_json, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = autoslim_json("run", "--flops", "50%,25%", "train.epochs=14", "retrain.epochs=14")
    base, *rows = result["networks"]
    assert base["network"] == "base"
    assert [row["network"] for row in rows] == ["searched", "uniform"] * 2
    for row in rows:
        assert row["top1"] > 0.9, row
        assert autoslim_json("info", row["path"])["fvcore_flops"] == row["flops"]
    base = autoslim_json("info", rows[0]["path"])["base"]["flops"]
    assert rows[0]["flops"] <= base / 2 < base
    assert rows[2]["flops"] <= base / 4
    searched = json.loads((tmp_path / "recipes/digits/arch-25pct.json").read_text())
    assert searched["found"]["top1"] > 0.9
    assert rows[2]["holdout_top1_without_retraining"] > 0.85
    # The search chose: its channels are no uniform width.
    shares = {searched["channels"][u["name"]] / u["base"] for u in autoslim_json("units")["units"] if not u["pinned"]}
    assert max(shares) > 1.3 * min(shares)
