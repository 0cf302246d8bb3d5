"""What the code of networks does that no layer shows: it is counted, or refused in a line."""

import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import autoslim_cli
from autoslim_cli.cost.closed_form import flops
from autoslim_cli.cost.fvcore_count import agree
from autoslim_cli.errors import UsageError
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.rehearsal import uneven
from autoslim_cli.network.table import LayerTable, Unit
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import TrainSettings
from autoslim_cli.slimming.trained_weights import changed_by_widening, widened
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


def test_a_softmax_layer_changes_in_a_wider_network():
    def code(self, x):
        return self.out(self.act(self.a(x)).mean([2, 3]))

    network = Net(code, **wide(act=nn.Softmax(dim=1)))
    assert changed_by_widening(read(network, SHAPE)) == ["act works over all channels"]


def test_a_capped_unit_never_changes_by_widening():
    def code(self, x):
        return self.out(self.b(self.norm(self.a(x)[:, :16])).mean([2, 3]))

    network = Net(code, a=nn.Conv2d(3, 16, 3), norm=nn.GroupNorm(1, 16), b=nn.Conv2d(16, 8, 1), out=nn.Linear(8, 4))
    reading = read(network, SHAPE)
    assert changed_by_widening(reading) == []
    images = torch.randn(2, *SHAPE)
    wider = widened(network, reading, {"a": 16, "b": 12, "out": 4})
    torch.testing.assert_close(wider(images), network(images), rtol=1e-5, atol=1e-6)


def test_new_channels_of_a_grouped_transposed_convolution_learn():
    """They were zero, as was what reads them: no gradient ever moved either."""

    def code(self, x):
        return self.out(torch.relu(self.norm(self.up(torch.relu(self.a(x))))).mean([2, 3]))

    up = nn.ConvTranspose2d(16, 16, 2, 2, groups=16, bias=False)
    network = Net(code, **wide(up=up, norm=nn.BatchNorm2d(16)))
    reading, images = read(network, SHAPE), torch.randn(8, *SHAPE)
    wider = widened(network, reading, {"a": 24, "out": 4})
    torch.testing.assert_close(wider.eval()(images), network.eval()(images), rtol=1e-5, atol=1e-6)
    wider.train()(images).square().sum().backward()
    assert wider.out.weight.grad[:, 16:].abs().sum() > 0


def scaled_by(name, cut):
    """A number that the code reads from a layer scales what it gives."""

    def code(self, x):
        for layer in (self.a, self.b, self.c, self.d):
            x = torch.relu(layer(x))
            x = x[:, :16] if cut else x
        return self.out(x.mean([2, 3]) * (1.0 / getattr(self, name).out_channels))

    return code


@pytest.mark.parametrize("cut", [False, True], ids=["free", "capped"])
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_a_count_that_the_code_reads_is_found_of_every_unit(name, cut):
    """At the ratios of some units, rounded, or cut to the base network's, nothing changed."""
    layers = {one: nn.Conv2d(16, 16, 1) for one in "bcd"}
    network = Net(scaled_by(name, cut), **wide(**layers))
    with pytest.raises(UsageError, match="depends on how many channels a layer has"):
        read(network, SHAPE)


@given(st.lists(st.tuples(st.integers(1, 70), st.sampled_from([1, 1, 8]), st.sampled_from([None, "because"]))))
def test_a_rehearsal_leaves_no_unit_as_it_is(shapes):
    table = LayerTable((), tuple(Unit(f"u{n}", (), b * g, g, capped=c) for n, (b, g, c) in enumerate(shapes)))
    for turned in (False, True):
        for unit in table.units:
            count = uneven(table, turned=turned)[unit.name]
            assert count != unit.base or (unit.capped and unit.base == unit.granule)
            assert count > 0 == count % unit.granule
            assert count < unit.base or not unit.capped or count == unit.granule


@pytest.mark.parametrize(
    ("pool", "over"),
    [
        (nn.AvgPool3d((3, 1, 1), 1, (1, 0, 0)), lambda pool, x: pool(x).mean([2, 3])),
        (nn.AvgPool1d(3, 1, 1), lambda pool, x: pool(x.mean([2, 3]))),
    ],
    ids=["3d", "1d"],
)
def test_pooling_over_channels_pins(pool, over):
    """PyTorch takes channels for positions where a tensor has a dimension less."""
    network = Net(lambda self, x: self.out(over(self.pool, self.a(x))), **wide(pool=pool))
    assert read(network, SHAPE).table.units[0].pinned == f"{type(pool).__name__} at pool is not understood"


def plain_tensor(self, x):
    return self.out(self.a(x - self.mean).mean([2, 3]))


def written_out(self, x):
    return self.out(self.a(x - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)).mean([2, 3]))


@pytest.mark.parametrize("code", [plain_tensor, written_out])
def test_a_tensor_that_is_no_buffer_is_one_line(code):
    with pytest.raises(UsageError, match=r"neither a parameter nor a buffer .*register_buffer"):
        read(Net(code, **wide(mean=torch.full((1, 3, 1, 1), 0.5))), SHAPE)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"a": nn.LazyConv2d(16, 3)}, "a is a LazyConv2d, which has no weights yet"),
        ({"lock": threading.Lock()}, r"Net cannot be copied \(cannot pickle .*lock.* let it hold nothing that"),
        ({"a": nn.utils.weight_norm(nn.Conv2d(3, 16, 3))}, "weight_norm"),
    ],
    ids=["lazy", "lock", "weight norm"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_what_cannot_be_copied_is_one_line(layers, words):
    network = Net(lambda self, x: self.out(self.a(x).mean([2, 3])), **{**wide(), **layers})
    with pytest.raises(UsageError, match=words):
        read(network, SHAPE)
    with pytest.raises(UsageError, match=words):
        autoslim_cli.units(network, torch.zeros(1, *SHAPE))
