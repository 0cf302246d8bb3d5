"""Settings of a training do what they say: precision, clipping."""

import pytest
import safetensors.torch
import torch


@pytest.fixture
def retrained(autoslim_json, recipe):
    """Retrain the half-wide network with some settings; return its result and its weights."""

    def run(*settings):
        result = autoslim_json("retrain", "--width", "0.5", "-r", recipe, *settings)
        return result, safetensors.torch.load_file(result["path"])

    return run


def test_bf16_trains_fp32_weights_to_as_good_a_network(retrained):
    settings = ["retrain.epochs=6", "retrain.schedule=linear"]
    full, weights = retrained(*settings)
    half, other = retrained(*settings, "retrain.precision=bf16")
    assert {tensor.dtype for name, tensor in other.items() if "num_batches" not in name} == {torch.float32}
    assert not torch.equal(weights["conv1.weight"], other["conv1.weight"])  # it did compute in another precision
    assert half["top1"] > 0.3
    assert abs(half["top1"] - full["top1"]) < 0.2


def test_bf16_trains_a_supernet(autoslim_json, recipe):
    made = autoslim_json("train-supernet", "-r", recipe, "train.precision=bf16", "train.epochs=6")
    assert made["widths"]["base"]["top1"] > 0.3


def test_clipping_bounds_what_a_training_moves(retrained):
    """A gradient clipped to next to nothing moves no weight; BN statistics and one epoch more cannot tell otherwise."""
    still = ["retrain.weight_decay=0"]

    def moved(*settings):
        one, two = (retrained(*still, f"retrain.epochs={epochs}", *settings)[1] for epochs in (1, 2))
        return (one["conv1.weight"] - two["conv1.weight"]).norm().item()

    assert moved("retrain.clip=1e-6") < 1e-4
    assert moved() > 1e-2
