"""Layouts, runs of channels, and the walk's rules on small networks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.table import Segment, features, ranges
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.supernet import Supernet


def test_runs_after_a_concat():
    layout = (Segment("a", 4), Segment(None, 3), Segment("b", 8, 4))
    held, used = {"a": 4, "b": 2}, {"a": 3, "b": 1}
    assert features(layout, held) == 15
    assert ranges(layout, held, used) == [(0, 3), (4, 11)]
    assert ranges(layout, held, held) == [(0, 15)]


def net(**layers):
    return type("Net", (nn.Module,), {"__init__": _init(layers.pop("layers")), "forward": layers["forward"]})()


def _init(layers):
    def init(self):
        nn.Module.__init__(self)
        for name, layer in layers.items():
            setattr(self, name, layer)

    return init


def units(network, shape=(3, 8, 8)):
    return {unit.name: unit for unit in read(network, shape).table.units}


def test_residual_sums_and_gates_share_a_unit():
    def forward(self, x):
        x = self.a(x)
        y = self.b(x) + x
        gate = torch.sigmoid(self.fc(y.mean([2, 3], keepdim=True).flatten(1))).unsqueeze(-1).unsqueeze(-1)
        return self.out((y * gate).mean([2, 3]))

    layers = {
        "a": nn.Conv2d(3, 8, 3, padding=1),
        "b": nn.Conv2d(8, 8, 1),
        "fc": nn.Linear(8, 8),
        "out": nn.Linear(8, 4),
    }
    found = units(net(layers=layers, forward=forward))
    assert found["a"].layers[:2] == ("a", "b")
    assert found["out"].pinned == "the network's output"


def test_an_unknown_operation_pins_what_it_touches_and_says_so():
    def forward(self, x):
        x = torch.cumsum(self.a(x), 1)
        return self.out(self.b(x).mean([2, 3]))

    layers = {"a": nn.Conv2d(3, 8, 3), "b": nn.Conv2d(8, 8, 1), "out": nn.Linear(8, 4)}
    found = units(net(layers=layers, forward=forward))
    assert found["a"].pinned == "cumsum at cumsum is not understood"
    assert found["b"].pinned is None


def test_a_size_written_into_the_code_pins():
    def forward(self, x):
        return self.out(self.a(x).reshape(-1, 8 * 36))

    found = units(net(layers={"a": nn.Conv2d(3, 8, 3), "out": nn.Linear(288, 4)}, forward=forward))
    assert "reshape" in found["a"].pinned


CUTS = {  # of eight channels: whether all are taken, though fewer there were
    "[:, :8]": lambda x: x[:, :8],
    "[:, 0:8:1, :, :]": lambda x: x[:, 0:8:1, :, :],
    "[:, :9]": lambda x: x[:, :9],
    "[:, :7]": lambda x: x[:, :7],
    "[:, 1:8]": lambda x: x[:, 1:8],
    "[:, :8:2]": lambda x: x[:, :8:2],
    "[:, :-1]": lambda x: x[:, :-1],
}


@pytest.mark.parametrize(("cut", "takes_all"), zip(CUTS.values(), (1, 1, 1, 0, 0, 0, 0), strict=True), ids=CUTS)
def test_a_cut_after_all_channels_caps(cut, takes_all):
    def forward(self, x):
        return self.out(self.b(cut(self.a(x))).mean([2, 3]))

    count = cut(torch.zeros(1, 8, 1, 1)).shape[1]
    layers = {"a": nn.Conv2d(3, 8, 3), "b": nn.Conv2d(count, 12, 1), "out": nn.Linear(12, 4)}
    found = units(net(layers=layers, forward=forward))
    assert (found["a"].pinned is None, found["a"].capped is not None) == (bool(takes_all), bool(takes_all))
    assert found["b"].capped is None
    if takes_all:
        assert "the first" in found["a"].capped


def test_what_stands_for_a_capped_unit_is_capped():
    """The sum makes the stem's channels those of two layers, end to end."""

    def forward(self, x):
        x = self.stem(x)[:, :8]
        return self.out((x + torch.cat([self.a(x), self.b(x)], 1)).mean([2, 3]))

    layers = {"stem": nn.Conv2d(3, 8, 3), "a": nn.Conv2d(8, 4, 1), "b": nn.Conv2d(8, 4, 1), "out": nn.Linear(8, 4)}
    found = units(net(layers=layers, forward=forward))
    assert all(unit.capped and not unit.pinned for name, unit in found.items() if name != "out")
    assert len(found) == 3


@pytest.mark.parametrize(
    "flat", [lambda x: x.contiguous().view(x.size(0), -1), lambda x: x.flatten(1), lambda x: x.reshape(x.shape[0], -1)]
)
def test_flattening_multiplies(flat):
    def forward(self, x):
        return self.out(flat(self.a(x)))

    reading = read(net(layers={"a": nn.Conv2d(3, 8, 3), "out": nn.Linear(288, 4)}, forward=forward), (3, 8, 8))
    assert reading.table.units[0].pinned is None
    assert reading.table.rows[-1].inputs == (Segment("a", 288, 36),)


def test_a_layer_called_twice_shares_its_units():
    def forward(self, x):
        return self.out(self.b(self.b(self.a(x))).mean([2, 3]))

    layers = {"a": nn.Conv2d(3, 8, 3, padding=1), "b": nn.Conv2d(8, 8, 3, padding=1), "out": nn.Linear(8, 4)}
    reading = read(net(layers=layers, forward=forward), (3, 8, 8))
    assert [unit.name for unit in reading.table.units] == ["a", "out"]
    assert reading.table.rows[1].positions == 128


def test_groups_give_a_granule():
    def forward(self, x):
        return self.out(self.b(self.a(x)).mean([2, 3]))

    layers = {"a": nn.Conv2d(3, 16, 3), "b": nn.Conv2d(16, 32, 3, groups=4), "out": nn.Linear(32, 4)}
    reading = read(net(layers=layers, forward=forward), (3, 8, 8))
    assert reading.table.units[0].granule == 4
    assert reading.table.rows[1].outputs == (Segment("a", 32, 2),)


def test_branching_on_values_is_refused():
    def forward(self, x):
        return self.out(x.mean([2, 3])) if x.sum() > 0 else x

    with pytest.raises(UsageError, match=r"torch\.fx cannot trace"):
        units(net(layers={"out": nn.Linear(3, 4)}, forward=forward))


def test_weights_that_never_run_are_refused():
    def forward(self, x):
        return self.out(x.mean([2, 3]))

    with pytest.raises(UsageError, match=r"never runs the weight spare\.weight"):
        units(net(layers={"out": nn.Linear(3, 4), "spare": nn.Linear(3, 4)}, forward=forward))


@pytest.mark.parametrize("mean", [lambda x: x.mean(axis=(2, 3)), lambda x: torch.mean(x, axis=[2, 3])])
def test_an_axis_is_a_dim(mean):
    def forward(self, x):
        return self.out(mean(self.a(x)))

    assert units(net(layers={"a": nn.Conv2d(3, 8, 3), "out": nn.Linear(8, 4)}, forward=forward))["a"].pinned is None


@pytest.mark.parametrize(
    ("operation", "words"),
    [(lambda self, x: nn.functional.conv2d(x, self.b.weight), "conv2d"),
     (lambda self, x: nn.functional.batch_norm(x, None, None, training=True), "batch_norm"),
     (lambda self, x: torch.matmul(x, x), "matmul"),
     (lambda self, x: self.cut(x), "code holds a size"),
     (lambda self, x: (x.shape[0],), "gives no tensor")],
)  # fmt: skip
def test_what_cannot_be_counted_or_rebuilt_is_refused_in_one_line(operation, words):
    def forward(self, x):
        x = operation(self, self.b(self.a(x)))
        return x if isinstance(x, tuple) else self.out(x.mean([2, 3]))

    class Cut(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x)[:, :8]

    layers = {"a": nn.Conv2d(3, 8, 3), "b": nn.Conv2d(8, 8, 1), "out": nn.Linear(8, 4), "cut": Cut(8)}
    if words != "code holds a size":
        del layers["cut"]
    with pytest.raises(UsageError, match=words) as error:
        units(net(layers=layers, forward=forward))
    assert "\n" not in str(error.value)


def test_what_is_computed_in_place_is_seen_under_the_old_name():
    def forward(self, x):
        y = self.a(x)
        y.add_(x.mean())
        self.relu(y)
        y += 1
        return self.out(y.mean([2, 3]))

    layers = {"a": nn.Conv2d(3, 8, 3), "relu": nn.ReLU(inplace=True), "out": nn.Linear(8, 4)}
    network = net(layers=layers, forward=forward)
    reading = read(network, (3, 8, 8))
    images = torch.randn(2, 3, 8, 8)
    supernet = Supernet(copy.deepcopy(network), reading, reading.table.base).eval()
    torch.testing.assert_close(supernet(images), network.eval()(images))
    torch.testing.assert_close(ForkedEvaluator(supernet).logits(images, reading.table.base), network(images))


def test_a_refusal_names_the_line_and_says_nothing_of_what_torch_fx_adds():
    def forward(self, x):
        return self.out(F.conv2d(self.a(x), self.weight).mean([2, 3]))

    network = net(layers={"a": nn.Conv2d(3, 8, 3), "out": nn.Linear(8, 4)}, forward=forward)
    network.weight = nn.Parameter(torch.ones(8, 8, 3, 3))
    with pytest.raises(UsageError, match=r"write it with nn\.Conv2d or nn\.Linear \([^()]*test_layouts\.py:\d+\)$"):
        units(network)


def test_an_input_of_the_wrong_shape_is_refused():
    def forward(self, x):
        return self.out(x.flatten(1))

    with pytest.raises(UsageError, match=r"does not run on an image of \[3, 8, 8\]"):
        units(net(layers={"out": nn.Linear(7, 4)}, forward=forward))
