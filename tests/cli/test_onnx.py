"""Networks written as ONNX files compute what they computed, and what cannot be written is refused."""

import pytest
import torch

from autoslim_cli import load_model
from autoslim_cli.stages import export

pytest.importorskip("onnxruntime")


def outputs(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["input"]
    assert [one.name for one in session.get_outputs()] == ["logits"]
    return torch.from_numpy(session.run(["logits"], {"input": images.numpy()})[0])


def test_a_retrained_network_is_written_with_its_weights(worked, autoslim_json):
    (model,) = worked.glob("model-*.safetensors")
    result = autoslim_json("export", "--onnx", model, "--batch", "3")
    assert result["path"] == str(model.with_suffix(".onnx"))
    assert result["trained"] is True
    network, config = load_model(model)
    images = torch.rand(3, *config.model.input)
    with torch.inference_mode():
        torch.testing.assert_close(outputs(result["path"], images), network(images), rtol=1e-3, atol=1e-4)


def test_a_found_config_is_written_untrained(worked, autoslim):
    config = sorted(worked.glob("arch-*.json"))[0]
    said = autoslim("export", "--onnx", config).stdout
    assert "random weights" in said
    assert config.with_suffix(".onnx").exists()


def test_a_file_that_computes_something_else_is_not_written(worked, refuse, monkeypatch):
    (model,) = worked.glob("model-*.safetensors")
    true = export.onnx_outputs
    monkeypatch.setattr(export, "onnx_outputs", lambda *args: [1.01 * values for values in true(*args)])
    assert "differ from PyTorch's by 1.0%" in refuse(1, "export", "--onnx", model)
    assert not model.with_suffix(".onnx").exists()


def test_what_is_no_network_is_refused(worked, refuse, tmp_path):
    (model,) = worked.glob("model-*.safetensors")
    assert "no such" in refuse(4, "export", "--onnx", tmp_path / "model-none.safetensors").lower()
    refuse(4, "export", "--onnx", worked / "supernet.safetensors")
    assert "name one" in refuse(2, "export")
    assert "name one" in refuse(2, "export", "--onnx", model, "--latency-suite", tmp_path / "suite")
    assert "leave --recipe" in refuse(2, "export", "--onnx", model, "-r", worked)
    assert "--networks is for" in refuse(2, "export", "--onnx", model, "--networks", "4")
