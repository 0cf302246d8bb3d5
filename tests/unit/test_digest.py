"""The digest of a network that was read: what changes it, and what does not."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import randomise_norms

from autoslim_cli.models.zoo import build
from autoslim_cli.network.digest import digest
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import ModelSettings, SpaceSettings
from autoslim_cli.slimming.constraints import constrained

NET = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    GAIN = 2.0


    class Scaled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x * amount(GAIN))


    def amount(gain):
        return gain / 2


    @torch.fx.wrap
    def jumbled(x):
        # a comment
        y = x.roll(1, 2)
        return y


    class Drop(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def forward(self, x):
            return F.dropout(x, self.rate, self.training) if self.training else x


    class Net(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(8, momentum=0.1)
            self.act = nn.ReLU()
            self.own = Scaled(8, 8, 1)
            self.slope = nn.LeakyReLU(0.1)
            self.drop = nn.Dropout(0.2)
            self.path = Drop(0.1)
            self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1))
            self.kinds = {"b", "a", "c"}
            self.fc = nn.Linear(8, num_classes)

        def forward(self, x):
            x = self.act(self.norm(self.stem(x - self.mean)))
            x = jumbled(self.slope(self.own(x)))
            x = F.leaky_relu(self.path(x), 0.3) + 0.5
            x = F.avg_pool2d(x, 2)
            return self.fc(self.drop(x.mean([2, 3])))


    def net(num_classes):
        return Net(num_classes)
"""


def digest_of(directory, *edits, name="net.py", space=None, side=16):
    text = textwrap.dedent(NET)
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text)
    settings = ModelSettings(name=f"./{name}:net", input=(3, side, side), classes=4)
    return digest(constrained(read(build(settings, directory), settings.input), space or SpaceSettings()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nn.ReLU()", "nn.SiLU()"),
        ("stride=2", "stride=1"),
        ("padding=1", "padding=1, padding_mode='reflect'"),
        ("momentum=0.1", "momentum=0.2"),
        ("momentum=0.1", "eps=1e-3"),
        ("nn.LeakyReLU(0.1)", "nn.LeakyReLU(0.2)"),
        ("nn.Dropout(0.2)", "nn.Dropout(0.3)"),
        ("Drop(0.1)", "Drop(0.2)"),  # a rate that only training reads
        ("F.leaky_relu(self.path(x), 0.3)", "F.leaky_relu(self.path(x), 0.4)"),
        ("F.leaky_relu(self.path(x), 0.3)", "F.elu(self.path(x), 0.3)"),
        ("+ 0.5", "- 0.5"),
        ("[0.1, 0.2, 0.3]", "[0.1, 0.2, 0.4]"),  # a constant is no weight
        ("self.slope(self.own(x))", "self.own(self.slope(x))"),
        ("nn.Conv2d(3, 8, 3, stride=2, padding=1)", "nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)"),
        ("x * amount(GAIN)", "x / amount(GAIN)"),  # what a layer of one's own computes by
        ("gain / 2", "gain / 3"),
        ("GAIN = 2.0", "GAIN = 3.0"),
        ("x.roll(1, 2)", "x.roll(1, 3)"),
    ],
)
def test_an_edited_network_has_another_digest(tmp_path, old, new):
    assert digest_of(tmp_path / "one") != digest_of(tmp_path / "other", (old, new))


def test_what_computes_the_same_keeps_its_digest(tmp_path):
    torch.manual_seed(1)
    before = digest_of(tmp_path / "one")
    torch.manual_seed(2)
    comment, place = ("# a comment", "# another comment,\n    # of two lines"), ("GAIN = 2.0", "\n\n\nGAIN = 2.0")
    variable = ("    y = x.roll(1, 2)\n    return y", "    z = x.roll(1, 2)\n    return z")
    assert digest_of(tmp_path / "other", comment, place, variable, name="renamed.py") == before
    assert digest_of(tmp_path / "third", ("nn.ReLU()", "nn.ReLU(inplace=True)")) == before


def test_what_the_recipe_says_of_the_network_counts(tmp_path):
    before = digest_of(tmp_path / "one")
    assert digest_of(tmp_path / "one", side=32) != before
    assert digest_of(tmp_path / "one", space=SpaceSettings(pin=["stem"])) != before


def test_weights_and_statistics_do_not_count():
    settings = ModelSettings(name="torchvision/mobilenet_v2", input=(3, 64, 64), classes=10)
    network = build(settings)
    reading = read(network, settings.input)
    before = digest(reading)
    randomise_norms(network)
    with torch.no_grad():
        network.classifier[1].weight.zero_()
    assert digest(reading) == before
    network.features[0][1].momentum = 0.5
    assert digest(reading) != before


def test_the_digest_is_the_same_in_every_process(tmp_path):
    expected = digest_of(tmp_path / "one")
    code = (
        "import sys; from pathlib import Path; from autoslim_cli.models.zoo import build; "
        "from autoslim_cli.network.digest import digest; from autoslim_cli.network.trace import read; "
        "from autoslim_cli.recipe.schema import ModelSettings; "
        "settings = ModelSettings(name='./net.py:net', input=(3, 16, 16), classes=4); "
        "print(digest(read(build(settings, Path(sys.argv[1])), settings.input)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "one")]
    other = {**os.environ, "PYTHONHASHSEED": "1"}  # this process has one at random
    result = subprocess.run(command, env=other, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected
