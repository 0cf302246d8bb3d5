"""How much is measured at a time, and on how many images."""

import pytest

from autoslim_cli.stages import train_supernet
from autoslim_cli.training import measure


def test_epochs_are_scored_on_a_part_of_the_holdout(autoslim, recipe, monkeypatch):
    scored = []

    def evaluate(network, batches, task, ranks):
        batches = list(batches)
        scored.append([len(labels) for _, labels in batches])
        return measure.evaluate(network, batches, task, ranks)

    monkeypatch.setattr(train_supernet, "evaluate", evaluate)
    autoslim("train-supernet", "-r", recipe, "train.epochs=2", "evaluate.images=40", "evaluate.batch=16")
    widths, part, whole = 3, [16, 16, 8], [16] * 9 + [6]
    assert scored == [part] * widths * 2 + [whole] * widths


def test_a_supernet_is_told_what_cuts_networks_out_of_it(refuse, worked):
    said = refuse(2, "evaluate", worked / "supernet.safetensors")
    assert f"a supernet; `autoslim calibrate-bn --widths 0.5,1 -r {worked}` cuts networks out of it" in said


@pytest.mark.parametrize("command", [("evaluate", "model-60pct.safetensors"), ("search", "--flops", "60%", "-r", ".")])
def test_images_normalised_otherwise_are_refused(refuse, worked, command):
    """What a network gave for such images was measured without a word."""
    name, *more, path = command
    said = refuse(4, name, *more, worked / path, "data.mean=[0]")
    assert "trained on images of data.mean=" in said
    assert "but it is [0.0] now" in said


def test_the_batch_of_an_evaluation_does_not_change_what_is_measured(autoslim_json, worked):
    model = worked / "model-60pct.safetensors"
    whole, parts = (autoslim_json("evaluate", model, f"evaluate.batch={batch}") for batch in (512, 7))
    assert whole["top1"] == parts["top1"]
    assert whole["loss"] == pytest.approx(parts["loss"], rel=1e-5)
