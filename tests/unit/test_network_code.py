"""What the code of networks does that no layer shows: it is counted, or refused in a line."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoslim_cli.cost.closed_form import flops
from autoslim_cli.cost.fvcore_count import agree
from autoslim_cli.errors import UsageError
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.rehearsal import uneven
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import TrainSettings
from autoslim_cli.slimming.trained_weights import changed_by_widening
from autoslim_cli.training.optimiser import optimizer_of

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, code, **layers):
        super().__init__()
        self.code = code
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.code(self, x)


def wide(channels=16, **layers):
    return {"a": nn.Conv2d(3, channels, 3, padding=1), **layers, "out": nn.Linear(channels, 4)}


def tied():
    layers = wide(b=nn.Conv2d(16, 16, 3, padding=1), c=nn.Conv2d(16, 16, 3, padding=1))
    layers["c"].weight = layers["b"].weight
    return layers


def kept():
    layers = wide(b=nn.Conv2d(16, 16, 3, padding=1))
    return {**layers, "w": layers["b"].weight}


@torch.fx.wrap
def rows(x):
    return x.view(x.size(0), -1)


def halves(self, x):
    """The second layer has twice the channels of the first."""
    x = self.a(x)
    one, other = self.b(x).split(x.size(1), 1)
    return self.out((one + other).mean([2, 3]))


REFUSED = {
    "a view in the usual order": (
        {"a": nn.Conv2d(3, 4, 3, padding=1), "out": nn.Linear(256, 4)},
        lambda self, x: self.out(self.a(x).view(x.size(0), -1)),
        r"^view views a tensor in the usual order .*test_network_code\.py:\d+\).*write \.reshape",
    ),
    "a view in a function": (
        {"a": nn.Conv2d(3, 4, 3, padding=1), "out": nn.Linear(256, 4)},
        lambda self, x: self.out(rows(self.a(x))),
        r"^rows views a tensor in the usual order",
    ),
    "a layer's count as a number": (
        wide(norm=nn.BatchNorm2d(16)),
        lambda self, x: self.out((F.normalize(self.norm(self.a(x))) * self.norm.num_features**0.5).mean([2, 3])),
        r"^mul depends on how many channels a layer has .*read it from a tensor's shape$",
    ),
    "a way that depends on a count": (
        wide(),
        lambda self, x: self.out((self.a(x) if self.a.out_channels < 17 else self.a(x).relu()).mean([2, 3])),
        r"depends on how many channels a layer has|takes another way",
    ),
    "one unit's size for another's": (
        {"a": nn.Conv2d(3, 16, 1), "b": nn.Conv2d(16, 32, 1), "out": nn.Linear(16, 4)},
        halves,
        "works at the base network's channels alone",
    ),
    "one parameter of two layers": (
        tied(),
        lambda self, x: self.out(self.c(self.b(self.a(x))).mean([2, 3])),
        r"b\.weight and c\.weight are one parameter in two places",
    ),
    "a parameter of a layer and of the code": (
        kept(),
        lambda self, x: self.out(self.b(self.a(x)).mean([2, 3]) + self.w.sum()),
        r"b\.weight and w are one parameter in two places|w and b\.weight are",
    ),
    "BN of a job": (
        wide(norm=nn.SyncBatchNorm(16)),
        lambda self, x: self.out(self.norm(self.a(x)).mean([2, 3])),
        r"norm is a SyncBatchNorm, .*build the network with torch\.nn\.BatchNorm2d",
    ),
    "running averages of single images": (
        wide(norm=nn.InstanceNorm2d(16, track_running_stats=True)),
        lambda self, x: self.out(self.norm(self.a(x)).mean([2, 3])),
        "norm is a InstanceNorm2d that keeps running statistics",
    ),
}


@pytest.mark.parametrize(("layers", "code", "said"), REFUSED.values(), ids=REFUSED)
def test_what_would_train_another_network_is_refused_in_a_line(layers, code, said):
    with pytest.raises(UsageError, match=said) as raised:
        read(Net(code, **layers), SHAPE)
    assert "\n" not in str(raised.value)


def joined(self, x):
    """Two images for each one, one behind the other."""
    both = self.b(torch.cat([self.a(x), self.a2(x)], 0))
    one, other = both.mean([2, 3]).chunk(2, 0)
    return self.out(one + other)


def rows_as_images(self, x):
    """Every position an image of its own to a linear layer."""
    x = self.a(x)
    rows = self.b(x.permute(0, 2, 3, 1).reshape(-1, x.size(1)))
    return self.out(rows.reshape(x.size(0), -1, rows.size(1)).mean(1))


def groups_as_images(self, x):
    """The same convolution for each of four groups."""
    x = self.a(x)
    n, c, h, w = x.shape
    return self.out(self.b(x.reshape(n * 4, c // 4, h, w)).mean([2, 3]).reshape(n, 4, -1).sum(1))


COUNTED = {
    "images that are joined": (
        joined,
        {"a2": nn.Conv2d(3, 8, 1), "b": nn.Conv2d(8, 12, 3)},
        64 * 3 * 8 * 9 + 64 * 3 * 8 + 2 * 36 * 8 * 12 * 9 + 12 * 4,
    ),
    "positions as images": (rows_as_images, {"b": nn.Linear(8, 12)}, 64 * 3 * 8 * 9 + 64 * 8 * 12 + 12 * 4),
    "groups as images": (
        groups_as_images,
        {"b": nn.Conv2d(2, 12, 3)},
        64 * 3 * 8 * 9 + 4 * 36 * 2 * 12 * 9 + 12 * 4,
    ),
}


class Read(nn.Module):
    """A network that asks what its buffer holds, computes what it does not use, and shares a gain."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.register_buffer("limit", torch.tensor(3.0))
        self.one, self.two = Gain(), Gain()
        self.two.gain = self.one.gain

    def forward(self, x):
        x = self.one(self.a(x)).clamp(0, float(self.limit))
        x * self.a.out_channels  # nobody reads it
        return self.out(self.two(self.b(x)).mean([2, 3]))


class Gain(nn.Module):
    """One gain for all channels."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.gain


def test_what_does_not_depend_on_channels_is_read():
    network = Read()
    reading = read(network, SHAPE)
    assert [unit.name for unit in reading.table.free] == ["a", "b"]
    channels = uneven(reading.table)
    rebuilt = fresh(network, reading.table, channels)
    agree(rebuilt, reading, channels)
    assert rebuilt.one.gain is rebuilt.two.gain
    groups = optimizer_of(rebuilt, TrainSettings(epochs=1)).param_groups
    assert sum(parameter is rebuilt.one.gain for group in groups for parameter in group["params"]) == 1


def test_what_a_batch_has_once_counts_once():
    """A gate by the mean over the images, or over positions of an odd image, was counted by half."""

    def code(self, x):
        x = self.a(x)
        gate = self.b(x.mean([2, 3]).mean(0, keepdim=True))
        return self.out((x * gate[:, :, None, None]).mean([2, 3]))

    network = Net(code, a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Linear(8, 8), out=nn.Linear(8, 4))
    reading = read(network, SHAPE)
    assert agree(network, reading, reading.table.base) == 64 * 3 * 8 * 9 + 8 * 8 + 8 * 4


class Prompted(nn.Module):
    """A linear layer computes with a parameter of two rows."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(6, 8), nn.Linear(8, 4)
        self.prompt = nn.Parameter(torch.ones(2, 6))

    def forward(self, x):
        return self.out(self.a(x).mean([2, 3]) + self.b(self.prompt).mean(0))


def test_what_does_not_come_of_the_images_counts_once():
    network = Prompted()
    reading = read(network, SHAPE)
    assert agree(network, reading, reading.table.base) == 64 * 3 * 8 * 9 + 2 * 6 * 8 + 8 * 4


@pytest.mark.parametrize(("code", "layers", "wanted"), COUNTED.values(), ids=COUNTED)
def test_what_is_folded_into_the_batch_counts(code, layers, wanted):
    """The layer table counted a batch of as many images as there are, and fvcore what is computed."""
    network = Net(code, a=nn.Conv2d(3, 8, 3, padding=1), **layers, out=nn.Linear(12, 4))
    reading = read(network, SHAPE)
    assert flops(reading.table, reading.table.base) == wanted
    for channels in (reading.table.base, uneven(reading.table)):
        agree(fresh(network, reading.table, channels), reading, channels)


def test_places_of_largest_values_are_no_channels():
    def code(self, x):
        x, _ = self.pool(self.a(x))
        return self.out(x.mean([2, 3]))

    table = read(Net(code, **wide(pool=nn.MaxPool2d(2, return_indices=True))), SHAPE).table
    assert table.units[0].pinned == "MaxPool2d at pool is not understood"


def test_some_of_the_parts_of_a_chunk():
    def code(self, x):
        parts = self.a(x).chunk(4, 1)[1:]
        return self.out((parts[0] + parts[2]).mean([2, 3]))

    network = Net(code, a=nn.Conv2d(3, 16, 3), out=nn.Linear(4, 4))
    reading = read(network, SHAPE)
    assert reading.table.units[0].pinned is None
    for channels in (reading.table.base, uneven(reading.table)):
        agree(fresh(network, reading.table, channels), reading, channels)


def test_a_norm_over_channels_changes_in_a_wider_network():
    def code(self, x):
        return self.out(F.normalize(self.a(x)).mean([2, 3]))

    assert changed_by_widening(read(Net(code, **wide()), SHAPE)) == ["normalize works over all channels"]
