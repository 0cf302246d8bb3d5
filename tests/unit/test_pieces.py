"""Pieces of networks that slice, chunk, ask for sizes and hold odd tensors: what is measured, and what is alive."""

import pytest
import torch
import torch.nn.functional as F
from conftest import Holding
from torch import fx, nn

from autoslim_cli.cost.activation_memory import ActivationMemory
from autoslim_cli.errors import UsageError
from autoslim_cli.latency.building import build_piece
from autoslim_cli.latency.grid import channels_at, layer_shapes
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.rehearsal import _channels
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.space import Space

SHAPE = (3, 32, 32)


class Network(nn.Module):
    """A stem, a test's own middle over some convolutions, and a classifier."""

    def __init__(self, middle, **layers):
        super().__init__()
        self.middle, self.stem = middle, nn.Conv2d(3, 16, 3, padding=1)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(self.middle(self, self.stem(x), x).mean((2, 3)))


def conv(inputs=16, outputs=16, **settings):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **settings)


def sliced(self, x, _):
    return self.b(x[:, :, ::2, ::2]) + F.max_pool2d(x, 2)


def halves(self, x, _):
    one, other = self.b(x).chunk(2, 1)
    third = self.c(other)
    return self.d(torch.cat([one, other, third, self.e(third)], 1))


def asked_early(self, x, images):
    count = images.size(0)
    return self.c(self.b(x)).view(count, -1, 32, 32)


def asked_late(self, x, _):
    small = self.b(F.max_pool2d(x, 4))
    height, width = x.shape[2:]
    return F.interpolate(self.c(small), size=(height, width))


def flat(self, x, _):
    return self.b(x).flatten(2).unsqueeze(3)


VIEWS = {
    "sliced": lambda: Network(sliced, b=conv()),
    "halves": lambda: Network(halves, b=conv(), c=conv(8, 8), d=conv(32, 16), e=conv(8, 8)),
    "asked early": lambda: Network(asked_early, b=conv(), c=conv()),
    "asked late": lambda: Network(asked_late, b=conv(), c=conv()),
    "flat": lambda: Network(flat, b=conv()),
}


class Several(nn.Module):
    """Gives what its first layers make, too: alone, by a view, or in a tuple that nothing else takes."""

    def __init__(self, give):
        super().__init__()
        self.give = give
        self.a, self.b, self.c = conv(3, 64), conv(64, 8, stride=4), conv(8, 128)

    def forward(self, x):
        early = self.a(x)
        return self.give(early, self.c(self.b(early)))


SEVERAL = {
    "levels": lambda: Several(lambda early, late: {"early": early, "late": [late]}),
    "a view": lambda: Several(lambda early, late: (late, early[:, :8])),
    "halves": lambda: Several(lambda early, late: (early.chunk(2, 1), late)),
    "one": lambda: Several(lambda _, late: late),
}


@pytest.mark.parametrize("name", VIEWS | SEVERAL)
@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_activation_memory_is_what_a_run_holds(name, ratio):
    reading = read((VIEWS | SEVERAL)[name](), SHAPE)
    found = pieces(reading)
    channels = _channels(reading.table, ratio)
    module = fx.GraphModule(fresh(reading.module, reading.table, channels).eval(), reading.graph)
    # Who asks for a size may hold a tensor no longer: the size is read before the tensor is let go.
    for node in [n for n in module.graph.nodes if n.target == "size" or n.target is getattr]:
        node.all_input_nodes[0].append(node)
    run = Holding(fx.GraphModule(module, module.graph), {piece.nodes[0].name for piece in found})
    with torch.no_grad():
        run.run(torch.rand(1, *SHAPE))
    assert ActivationMemory.of(reading, found)(channels) == run.most


NAMED = {"a name of torch.fx's own": lambda: Network(lambda self, x, _: self.meta(x), meta=conv())}


@pytest.mark.parametrize("name", VIEWS | NAMED)
def test_pieces_run_alone(name):
    reading = read((VIEWS | NAMED)[name](), SHAPE)
    channels = _channels(reading.table, 0.5)
    for piece in pieces(reading):
        module, inputs = build_piece(reading, piece, channels, 1)
        outputs = module(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert [tuple(o.shape) for o in outputs] == [reading.shape(node, channels, 1) for node in piece.outputs]


def test_a_size_alone_is_no_axis():
    (resized,) = [p for p in pieces(read(VIEWS["asked late"](), SHAPE)) if p.nodes[0].name == "interpolate"]
    assert [len(resized.inputs), len(resized.sizes)] == [1, 1]
    assert resized.units == (("c",),)


def test_a_unit_twice_in_one_layout_is_one_axis():
    def doubled(self, x, _):
        return self.b(torch.cat([F.relu(x), F.relu(-x)], 1))

    found = pieces(read(Network(doubled, b=conv(32, 16)), SHAPE))
    (piece,) = [piece for piece in found if piece.name == "b"]
    assert piece.units == (("stem",), ("b",))


def test_padding_is_part_of_a_shape():
    def two(self, x, _):
        return self.c(self.b(x))

    found = {p.name: p for p in pieces(read(Network(two, b=conv(padding_mode="circular"), c=conv()), SHAPE))}
    assert found["b"].shape != found["c"].shape
    assert found["b"].shape.replace(", padding_mode=circular", "") == found["c"].shape


class Activated(nn.BatchNorm2d):
    """A norm that ends in an activation, as timm's."""

    def __init__(self, channels, act):
        super().__init__(channels)
        self.act = act

    def forward(self, x):
        return self.act(super().forward(x))


def test_what_a_layer_holds_inside_is_part_of_its_shape():
    def four(self, x, _):
        for name in "abcd":
            x = getattr(self, name)(x)
        return x

    acts = {"a": nn.SiLU(), "b": nn.SiLU(inplace=True), "c": nn.Identity(), "d": nn.Hardtanh(0, 6)}
    network = Network(four, **{name: nn.Sequential(conv(), Activated(16, act)) for name, act in acts.items()})
    shape = {piece.name[0]: piece.shape for piece in pieces(read(network, SHAPE))}
    assert shape["a"] == shape["b"]  # in place or not
    assert len({shape[name] for name in "acd"}) == 3


class Repeated(nn.BatchNorm2d):
    """A layer that takes as long as an attribute of its own says."""

    def __init__(self, times):
        super().__init__(16)
        self.times = times

    def forward(self, x):
        for _ in range(self.times):
            x = super().forward(x)
        return x


def test_what_a_layer_of_anothers_class_says_of_itself_is_part_of_its_shape():
    def three(self, x, _):
        return self.c(self.b(self.a(x)))

    times = {"a": 1, "b": 9, "c": 9}
    network = Network(three, **{name: nn.Sequential(conv(), Repeated(number)) for name, number in times.items()})
    shape = {piece.name[0]: piece.shape for piece in pieces(read(network, SHAPE))}
    assert "times=9" in shape["b"]
    assert shape["b"] == shape["c"] != shape["a"]


def test_counts_are_those_that_were_measured():
    """Twins whose channels come in other steps, and layouts that several units share."""

    def twins(self, x, _):
        x = self.c(self.grouped(self.b(x)))
        return self.d(torch.cat([x, self.e(x)], 1))

    layers = {"b": conv(), "grouped": conv(groups=2), "c": conv(), "d": conv(26, 16), "e": conv(16, 10)}
    reading = read(Network(twins, **layers), SHAPE)
    space = Space.of(reading.table, width=1.5, min_width=0.25, groups=7, divisor=1)
    shapes = layer_shapes(pieces(reading), space)
    assert any(len(layout) > 1 for shape in shapes for axis in shape.piece.axes for layout in axis)
    for shape in shapes:
        for axis, counts in enumerate(shape.counts):
            for count in counts:
                point = [own[0] if place != axis else count for place, own in enumerate(shape.counts)]
                assert shape.piece.counts(channels_at(shape.piece, point, space))[axis] == count
    for piece in pieces(reading):
        (counts,) = [shape.counts for shape in shapes if shape.piece.shape == piece.shape]
        for ends, own in zip(zip(*map(piece.counts, space.ends), strict=True), counts, strict=True):
            assert own[0] <= ends[0] <= ends[1] <= own[-1]


def test_tensors_of_the_code_and_places_are_measured():
    def odd(self, x, _):
        x, places = F.max_pool2d(self.b(x) * torch.tensor(0.5) + self.shift, 2, return_indices=True)
        return F.max_unpool2d(self.b2(x), places, 2)

    network = Network(odd, b=conv(), b2=conv())
    network.shift = torch.tensor(0.1)
    reading = read(network, SHAPE)
    for piece in pieces(reading):
        module, inputs = build_piece(reading, piece, reading.table.base, 1)
        module(*inputs)


def hidden(self, x, _):
    y = self.b(x)
    y.data.clamp_(0)
    return y


def remembering(self, x, _):
    self.count.add_(1)
    return self.b(x)


def counting():
    network = Network(remembering, b=conv())
    network.register_buffer("count", torch.zeros(1))
    return network


def dead(self, x, _):
    self.aux(x)
    return self.b(x)


REFUSED = {
    "data": (lambda: Network(hidden, b=conv()), "in place"),
    "buffer": (counting, "changes count in place"),
    "dead": (lambda: Network(dead, b=conv(), aux=conv()), r"never runs the weight aux\.weight"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(name):
    build, words = REFUSED[name]
    with pytest.raises(UsageError, match=words) as error:
        read(build(), SHAPE)
    assert "\n" not in str(error.value)
