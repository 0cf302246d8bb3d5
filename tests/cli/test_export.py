"""What is exported computes what the network computed, and loads where autoslim is not installed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from artifacts import rewritten
from conftest import randomise_norms
from PIL import Image
from torch import nn

from autoslim_cli import load_model
from autoslim_cli.data.opening import open_source
from autoslim_cli.data.sets import all_images
from autoslim_cli.network.fold_bn import with_bn_folded
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import DataSettings, ModelSettings
from autoslim_cli.stages import export

pytestmark = pytest.mark.slow

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ALONE = """
import importlib.abc, json, sys
class NoAutoslim(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "autoslim_cli":
            raise ImportError("autoslim is not installed here")
        return None
sys.meta_path.insert(0, NoAutoslim())
exec(sys.stdin.read())
import numpy
print(json.dumps(numpy.asarray(logits.detach() if hasattr(logits, "detach") else logits).tolist()))
"""


def loaded_alone(lines):
    """Run the lines that load a file in a process that cannot import autoslim; return its logits."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE], check=False, capture_output=True, text=True, input="\n".join(lines)
    )
    assert done.returncode == 0, done.stderr
    return torch.tensor(json.loads(done.stdout.splitlines()[-1]))


def nodes_of(path):
    import onnx

    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_file_for_a_device_says_nothing_of_the_code_that_it_comes_from(worked, autoslim_json):
    model = worked / "model-60pct.safetensors"
    path = Path(autoslim_json("export", "--onnx", model)["path"])
    content = path.read_bytes()
    for word in (b".py", b"stack_trace", b"site-packages", b"autoslim_cli"):
        assert word not in content, word


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_a_retrained_network_loads_without_autoslim(worked, autoslim_json, form):
    (model,) = worked.glob("model-*.safetensors")
    network, config = load_model(model)
    with torch.inference_mode():
        wanted = network(torch.zeros(1, *config.model.input))
    result = autoslim_json("export", f"--{form}", model)
    assert result["input"] == [0, *config.model.input]
    assert result["trained"] is True
    assert 0 <= result["difference"] < 1e-4
    assert result["after"] == {"flops": config.cost.flops, "params": config.cost.params}
    assert result["before"]["flops"] > result["after"]["flops"]
    assert len(result["loads"]) == 3
    torch.testing.assert_close(loaded_alone(result["loads"]), wanted, rtol=1e-3, atol=1e-4)
    of_three = loaded_alone(autoslim_json("export", f"--{form}", model, "--batch", "3")["loads"])
    torch.testing.assert_close(of_three, wanted.expand(3, -1), rtol=1e-3, atol=1e-4)
    result = autoslim_json("export", f"--{form}", model)
    if form == "onnx":
        assert "BatchNormalization" in nodes_of(result["path"])
        session = pytest.importorskip("onnxruntime").InferenceSession(result["path"])
        for count in (1, 5):  # any number of images
            images = torch.randn(count, *config.model.input)
            (outputs,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
            with torch.inference_mode():
                torch.testing.assert_close(torch.from_numpy(outputs), network(images), rtol=1e-3, atol=1e-4)


def test_what_goes_in_and_what_comes_out_is_said_and_kept(worked, autoslim, autoslim_json):
    model = worked / "model-60pct.safetensors"
    rewritten(model, lambda facts: facts["learned_from"]["class_names"].__setitem__(3, "drei, süß"))
    known = {
        "size": [1, 8, 8],
        "layout": "NCHW",
        "channels": "grey",
        "range": [0.0, 1.0],
        "mean": [0.5],
        "std": [0.5],
        "resize": [8, 8],
    }
    names = ["0", "1", "2", "drei, süß", *"456789"]
    for form in ("onnx", "torch-export", "state-dict"):
        result = autoslim_json("export", f"--{form}", model)
        assert (result["preprocessing"], result["class_names"]) == (known, names)
    said = autoslim("export", "--onnx", model).stdout
    assert "input: NCHW 1x8x8 grey; pixels in [0, 1], less [0.5], divided by [0.5]; other sizes: resized to" in said
    assert "outputs: 10 classes, in the order 0, 1, 2, drei, süß, 4, 5, 6, ... 9" in said
    facts = onnxruntime.InferenceSession(model.with_suffix(".onnx")).get_modelmeta().custom_metadata_map
    read_back = {key: value if value in ("NCHW", "grey") else json.loads(value) for key, value in facts.items()}
    assert read_back == {**{f"input_{key}": value for key, value in known.items()}, "class_names": names}
    extra = {"autoslim.json": ""}
    torch.export.load(model.with_suffix(".pt2"), extra_files=extra)
    assert json.loads(extra["autoslim.json"]) == {"preprocessing": known, "class_names": names}


def test_what_is_not_known_is_not_said(worked, autoslim, autoslim_json):
    """A config learned from nothing; files of earlier versions say no classes, and of data of one's own even less."""
    (config, *_) = sorted(worked.glob("arch-*.json"))
    result = autoslim_json("export", "--onnx", config)
    facts = onnxruntime.InferenceSession(result["path"]).get_modelmeta().custom_metadata_map
    assert facts == {"input_size": "[1, 8, 8]", "input_layout": "NCHW"}
    assert result["class_names"] == []
    model = rewritten(worked / "model-60pct.safetensors", lambda facts: facts.pop("learned_from"))
    result = autoslim_json("export", "--onnx", model)
    assert (result["preprocessing"]["mean"], result["class_names"]) == ([0.5], [])
    rewritten(model, lambda facts: facts["made_from"]["recipe"]["data"].update(name="./data.py:Own"))
    said = autoslim("export", "--onnx", model).stdout
    assert "input: NCHW 1x8x8\n" in said
    assert "outputs: " not in said


def test_the_page_s_lines_give_what_evaluate_measures(worked, autoslim_json, tmp_path):
    """Images of another size and shape, in colour, as the page deploys them and as the command sees them."""
    recipe, size = tmp_path / "pictures", (3, 72, 80)
    shutil.copytree(worked, recipe)
    rng = torch.Generator().manual_seed(1)
    for part in ("train", "test"):
        for number in range(12):
            path = recipe / "images" / part / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(0, 256, (9, 13, 3), generator=rng, dtype=torch.uint8).numpy()
            Image.fromarray(pixels).resize((130, 90)).save(path)
    autoslim_json(
        *("retrain", "--width", "1", "-r", recipe, "data.name=image-folder", "data.path=images", "data.holdout=2"),
        *("data.limit=null", "data.workers=0", "model.classes=2", f"model.input={[*size]}", "model.args.in_channels=3"),
        *("retrain.epochs=2", "retrain.batch=4", "data.mean=[0.4,0.5,0.6]", "data.std=[0.2,0.3,0.2]"),
    )
    path = Path(autoslim_json("export", "--onnx", recipe / "model-width-1.safetensors")["path"])
    shown = (Path(__file__).parents[2] / "docs/how-to/export.md").read_text()
    (lines,) = re.findall(r"(?s)```python file: classify\.py\n(.*?)```", shown)
    names = {}
    lines = lines.replace("recipes/deployed/model-width-0.5.onnx", str(path))
    exec(lines.replace("digit.png", str(recipe / "images/test/a/0.png")), names)
    data = DataSettings(name="image-folder", path="images", holdout=2, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))
    model = ModelSettings(name="any", input=size, classes=2)
    source = open_source("test", data, model, 0, recipe, torch.device("cpu"))
    (images, _) = next(all_images(source, data, model, torch.device("cpu")).evaluation(1))
    assert names["images"].shape == tuple(images.shape)
    assert abs(names["images"] - images.numpy()).max() < 0.03  # a level or two of rounding
    assert names["class_names"] == ["a", "b"]


def test_batch_normalisation_is_folded_on_request(worked, autoslim_json):
    (model,) = worked.glob("model-*.safetensors")
    network, config = load_model(model)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    result = autoslim_json("export", "--onnx", model, "--fold-bn", "--batch", "3")
    assert result["input"] == [3, *config.model.input]
    assert result["folded"] == len(norms)
    assert "BatchNormalization" not in nodes_of(result["path"])
    # A scale and a shift of each channel become one bias.
    channels = sum(norm.num_features for norm in norms)
    assert result["after"] == {"flops": config.cost.flops, "params": config.cost.params - channels}


def test_a_state_dict_holds_plain_tensors(worked, autoslim_json, refuse):
    (model,) = worked.glob("model-*.safetensors")
    result = autoslim_json("export", "--state-dict", model)
    assert result["largest_difference"] == 0.0
    assert result["path"].endswith(".state.pt")
    padded = "logits = [list(shape) + [0] * (4 - len(shape)) for shape in shapes.values()]"
    shapes = loaded_alone([*result["loads"], padded])
    network, _ = load_model(model)
    state = network.state_dict()
    assert shapes.tolist() == [[*tensor.shape, *[0] * (4 - tensor.dim())] for tensor in state.values()]
    assert "--batch is for" in refuse(2, "export", "--state-dict", model, "--batch", "2")


def test_a_found_config_is_written_untrained(worked, autoslim):
    config = sorted(worked.glob("arch-*.json"))[0]
    said = autoslim("export", "--onnx", config).stdout
    assert "random weights" in said
    assert "import numpy, onnxruntime" in said
    assert config.with_suffix(".onnx").exists()


def test_a_file_that_computes_something_else_is_not_written(worked, refuse, monkeypatch):
    (model,) = worked.glob("model-*.safetensors")
    true = export.onnx_outputs
    monkeypatch.setattr(export, "onnx_outputs", lambda *args: [1.01 * values for values in true(*args)])
    assert "differ from the network's by 1.0%" in refuse(1, "export", "--onnx", model)
    assert not model.with_suffix(".onnx").exists()


def test_what_a_format_cannot_hold_is_one_line(worked, refuse, monkeypatch):
    (model,) = worked.glob("model-*.safetensors")

    def cannot(*_):
        raise ValueError("no such operation\nand so on")

    monkeypatch.setitem(export._WRITTEN, "torch-export", cannot)
    said = refuse(1, "export", "--torch-export", model)
    assert "cannot be written as torch-export (ValueError: no such operation)" in said


class Mixed(nn.Module):
    """BN after a linear layer, a transposed and a grouped convolution; two that cannot be folded."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.grouped_norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.up_norm = nn.BatchNorm2d(6)
        self.shared = nn.Conv2d(6, 6, 1)
        self.shared_norm = nn.BatchNorm2d(6)
        self.first = nn.BatchNorm2d(3)
        self.linear = nn.Linear(6, 5)
        self.linear_norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 4)

    def forward(self, images):
        maps = self.norm(self.conv(self.first(images))).relu()
        maps = self.up_norm(self.up(self.grouped_norm(self.grouped(maps)).relu()))
        before = self.shared(maps)
        maps = self.shared_norm(before) + before  # the convolution's output is used twice
        return self.head(self.linear_norm(self.linear(maps.mean((2, 3)))))


def test_folding_keeps_the_function():
    network = Mixed().eval()
    randomise_norms(network)
    folded, count = with_bn_folded(read(network, (3, 8, 8)))
    assert count == 4
    assert isinstance(folded.shared_norm, nn.BatchNorm2d)
    assert isinstance(folded.first, nn.BatchNorm2d)
    images = torch.rand(5, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-5)


def test_what_is_no_network_is_refused(worked, refuse, tmp_path):
    (model,) = worked.glob("model-*.safetensors")
    assert "no such" in refuse(4, "export", "--onnx", tmp_path / "model-none.safetensors").lower()
    refuse(4, "export", "--onnx", worked / "supernet.safetensors")
    assert "name one" in refuse(2, "export")
    assert "name one" in refuse(2, "export", "--onnx", model, "--latency-suite", tmp_path / "suite")
    assert "name one" in refuse(2, "export", "--onnx", model, "--state-dict", model)
    assert "leave --recipe" in refuse(2, "export", "--onnx", model, "-r", worked)
    assert "--networks is for" in refuse(2, "export", "--onnx", model, "--networks", "4")
    assert "--fold-bn is for" in refuse(2, "export", "--latency-suite", tmp_path / "suite", "--fold-bn", "-r", worked)


def test_outputs_beside_which_nothing_stands_have_names():
    x = torch.zeros(1)
    assert export._names(x) == ["logits"]
    assert export._names((x, None, 3)) == ["0"]
    assert export._names({"out": (x, x), "aux": None}) == ["out.0", "out.1"]
