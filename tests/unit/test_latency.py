"""Latency and activation memory: predicted and measured, and what a search makes of steps that save nothing."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import Holding
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear
from torch import fx

from autoslim_cli.cost.activation_memory import ActivationMemory
from autoslim_cli.cost.budget import Bound, Budget, parse
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.files.measures import MEASURES
from autoslim_cli.latency import timing
from autoslim_cli.latency.building import build_piece
from autoslim_cli.latency.correction import LEAST_FACTOR, MOST_TAKEN, _bounded, check, fit
from autoslim_cli.latency.engines import DTYPES, Run, load
from autoslim_cli.latency.grid import Timing, channels_at, layer_shapes, refined
from autoslim_cli.latency.interpolation import Grid
from autoslim_cli.latency.onnx_file import onnx_bytes
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.predictor import LEAST_SHARE, Latency, share_cold
from autoslim_cli.latency.summary import verdict
from autoslim_cli.latency.table import Check, Correction, Device, Measured
from autoslim_cli.latency.timing import time_cold, time_interleaved
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.rehearsal import _channels
from autoslim_cli.network.table import Unit
from autoslim_cli.network.tensors import TensorSize
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import SearchSettings
from autoslim_cli.searching import STRATEGIES, Answer, Problem, Step
from autoslim_cli.slimming.space import Space, UnitSpace
from autoslim_cli.training.score import Score

NETWORKS = ["mobilenet_v2", "resnet18", "shufflenet_v2_x0_5", "mobilenet_v3_small", "squeezenet1_1"]


def network(name):
    return read(torchvision.models.get_model(name, weights=None, num_classes=10).eval(), (3, 64, 64))


@pytest.mark.parametrize("name", [*NETWORKS, "densenet121", "convnext_tiny"])
def test_pieces_hold_every_operation_and_run_alone(name):
    reading = network(name)
    found = pieces(reading)
    held = [node for piece in found for node in piece.nodes]
    tensors = [
        n for n in reading.graph.nodes if n in reading.shapes and n.op not in ("placeholder", "get_attr", "output")
    ]
    assert sorted(held, key=str) == sorted(tensors, key=str)
    channels = _channels(reading.table, 0.5)
    for piece in {piece.shape: piece for piece in found}.values():
        module, inputs = build_piece(reading, piece, channels, 1)
        with torch.no_grad():
            outputs = module(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert [tuple(o.shape) for o in outputs] == [reading.shape(node, channels, 1) for node in piece.outputs]


def test_pieces_of_one_shape_differ_by_counts_alone():
    found = pieces(network("mobilenet_v2"))
    alike = [piece for piece in found if piece.name in ("features.8.conv.1.0", "features.9.conv.1.0")]
    assert len({piece.shape for piece in alike}) == 1
    assert len({piece.shape for piece in found}) < len(found) / 2
    strides = [piece for piece in found if piece.name in ("features.6.conv.1.0", "features.7.conv.1.0")]
    assert len({piece.shape for piece in strides}) == 2


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "squeezenet1_1"])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5])
def test_activation_memory_is_what_a_run_holds(name, ratio):
    reading = network(name)
    found = pieces(reading)
    channels = _channels(reading.table, ratio)
    module = fx.GraphModule(fresh(reading.module, reading.table, channels).eval(), reading.graph)
    run = Holding(module, {piece.nodes[0].name for piece in found})
    with torch.no_grad():
        run.run(torch.rand(1, 3, 64, 64))
    assert ActivationMemory.of(reading, found)(channels) == run.most


@given(st.integers(2, 5), st.integers(2, 5), st.data())
def test_grids_are_exact_where_latency_is_bilinear(rows, columns, data):
    axes = [sorted(data.draw(st.sets(st.integers(1, 99), min_size=n, max_size=n))) for n in (rows, columns)]

    def ms(a, b):
        return 1 + 2 * a + 3 * b + 0.5 * a * b

    grid = Grid(tuple(map(tuple, axes)), tuple(ms(a, b) for a, b in itertools.product(*axes)))
    a, b = (data.draw(st.integers(axis[0], axis[-1])) for axis in axes)
    assert grid.at((a, b)) == pytest.approx(ms(a, b))
    assert grid.at((axes[0][-1] + 50, axes[1][0])) == pytest.approx(ms(axes[0][-1], axes[1][0]))  # no guess beyond


def test_grids_are_refined_where_interpolation_errs():
    reading = network("mobilenet_v2")
    space = Space.of(reading.table, width=1.5, min_width=0.15, groups=24, divisor=8)
    (wide,) = [piece.shape for piece in pieces(reading) if piece.name == "features.18.0"]
    (shape,) = [shape for shape in layer_shapes(pieces(reading), space) if shape.piece.shape == wide]
    assert len(shape.counts) == 2

    def ms(a, b):
        return 0.1 * a * b * (2 if b > 900 else 1)

    def cliff(points):  # a kernel whose weights no longer fit into a cache beyond 900 output channels
        return [Timing(ms(*shape.piece.counts(channels)), 0.01) for channels in points]

    grid = refined(shape, space, cliff).interpolated()
    for a, b in itertools.product(*shape.counts):
        beside = 800 < b < 1000
        assert beside or grid.at((a, b)) == pytest.approx(ms(a, b), rel=0.05)
    assert len(grid.ms) < 0.7 * len(shape.counts[0]) * len(shape.counts[1])
    assert len(grid.counts[0]) == 5 < len(grid.counts[1])  # even along one axis, not along the other
    flat = refined(shape, space, lambda points: [Timing(1.0, 0.01)] * len(points))
    assert len(flat.timings) == 25


def test_channels_at_the_points_of_a_grid():
    reading = network("densenet121")
    space = Space.of(reading.table, width=1.5, min_width=0.15, groups=6, divisor=4)
    for shape in layer_shapes(pieces(reading), space):
        counts = tuple(axis[len(axis) // 2] for axis in shape.counts)
        got = shape.piece.counts(channels_at(shape.piece, counts, space))
        assert got == pytest.approx(counts, rel=0.1, abs=8)


def measured(latency, factors, constant, number, noise=0.0, cached=None):
    rows = []
    for place in range(number):
        channels = {"a": 10 + 37 * place % 91, "b": 10 + 53 * place % 83}
        sums = latency.sums(channels)
        ms = factors[0] * sums.multiplying_ms + factors[1] * sums.other_ms + constant
        ms += sums.cold_ms * share_cold(sums.mweights, cached) if cached else 0.0
        rows.append(Measured(channels=channels, ms=(ms * (1 + noise), ms * (1 - noise))))
    return rows


def latency_of(correction=None, cold=None):
    def piece(unit, multiplies):
        return SimpleNamespace(
            multiplies=multiplies,
            counts=lambda channels: (channels[unit],),
            tensors=(TensorSize(1000, ()),),
            weights=lambda channels: channels[unit] ** 2 * 1000 if multiplies else 0,
        )

    grids = (Grid(((1, 200),), (0.01, 2.0)), Grid(((1, 200),), (0.5, 1.0)))
    layers = ((piece("a", True), grids[0], cold), (piece("b", False), grids[1], None))
    return Latency(layers, correction or Correction())


def test_a_correction_finds_what_isolated_layers_do_not_show():
    latency = latency_of()
    networks = measured(latency, (1.3, 0.8), 0.4, 50, noise=0.01)
    correction = fit(latency, networks[:20])
    found = check(latency_of(correction), networks[20:])
    assert found.median_error < 0.03
    assert found.rank_correlation > 0.99
    assert found.repeatability == pytest.approx(0.02)
    before = check(latency, networks[20:])
    assert before.median_error > 5 * found.median_error


def test_a_correction_finds_from_where_on_weights_are_cold():
    cold = Grid(((1, 200),), (0.0, 3.0))
    latency = latency_of(cold=cold)
    networks = measured(latency, (1.0, 1.0), 0.1, 60, noise=0.01, cached=2.8)  # of 0.1 to 10 million weights
    correction = fit(latency, networks[:30])
    assert 2 <= correction.cached_mweights <= 4
    found = check(latency_of(correction, cold), networks[30:])
    without = check(latency_of(fit(latency_of(), networks[:30])), networks[30:])
    assert 4 * found.median_error < without.median_error


def test_times_that_fall_with_their_layers_give_no_negative_factor():
    """Noise may say that a network is the faster the longer its layers take; a search would believe it."""
    latency = latency_of(cold=Grid(((1, 200),), (0.0, 3.0)))
    networks = [
        Measured(channels=c, ms=(3.0 - 1.2 * s.multiplying_ms - 0.5 * s.other_ms,))
        for c in ({"a": 10 + 37 * n % 91, "b": 10 + 53 * n % 83} for n in range(20))
        for s in [latency.sums(c)]
    ]
    found = fit(latency, networks)
    assert min(found.multiplying, found.other) >= LEAST_FACTOR - 1e-9
    assert found.cold >= 0
    mean = np.mean([network.mean for network in networks])
    assert found.constant_ms >= -MOST_TAKEN * mean
    fitted = Latency(latency.layers, found)
    assert fitted({"a": 200, "b": 200}) > fitted({"a": 20, "b": 20})


@given(st.integers(0, 10**6))
def test_bounded_least_squares_finds_what_scipy_finds(seed):
    random = np.random.default_rng(seed)
    design = np.vstack([random.normal(size=(12, 5)), 0.02 * np.eye(5)])
    target, least = random.normal(size=17), -random.uniform(0, 0.5, size=5)
    found = _bounded(design, target, least)
    assert (found >= least).all()
    best = lsq_linear(design, target, bounds=(least, np.inf), tol=1e-12)
    assert np.square(design @ found - target).sum() == pytest.approx(2 * best.cost, rel=1e-6)


def test_no_network_is_predicted_to_take_nothing():
    latency = latency_of(Correction(constant_ms=-100.0, per_mvalue_ms=-5.0))
    small, large = latency({"a": 10, "b": 10}), latency({"a": 100, "b": 100})
    assert LEAST_SHARE * 0.5 < small < large


@pytest.mark.parametrize(
    ("rank", "error", "repeats", "predicts", "words"),
    [
        (0.98, 0.04, 0.03, "well", ["predicts well: rank correlation 0.98", "median error 4% on 30 other networks"]),
        (0.896, 0.104, 0.03, "well", ["predicts well: rank correlation 0.90", "median error 10%"]),  # as it is told
        (0.85, 0.15, 0.03, "roughly", ["predicts roughly", "leave room"]),
        (0.46, 0.47, 0.03, "badly", ["predicts badly: rank correlation 0.46", "47%", "--flops"]),
        (0.52, 0.08, 0.03, "badly", ["predicts badly"]),  # near, but in the wrong order
        (0.98, 0.35, 0.30, "badly", ["repeats itself to 30% only", "profile again"]),
    ],
)
def test_the_verdict_on_a_table_is_told_in_words(rank, error, repeats, predicts, words):
    found = Check(networks=30, median_error=error, p90_error=1.0, rank_correlation=rank, repeatability=repeats)
    judged = verdict(found)
    assert judged.predicts == predicts
    assert all(word in judged.words for word in words), judged.words
    assert verdict(None).predicts == "unchecked"
    two = verdict(found.model_copy(update={"networks": 2}))  # whose order is right or wrong, and nothing between
    assert two.predicts == "unchecked"
    assert "2 whole networks are too few" in two.words


class Stopwatch:
    """A clock that calls move on by what they take; it stands in for the one that times them."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def taking(self, milliseconds):
        def run():
            self.now += milliseconds() / 1e3

        return Run(run, [torch.zeros(1)])


@pytest.fixture
def stopwatch(monkeypatch):
    watch = Stopwatch()
    monkeypatch.setattr(timing, "time", watch)
    return watch


def test_cold_weights_take_longer(monkeypatch, stopwatch):
    cached = set()

    def call(name, warm, cold):
        def milliseconds():
            took = warm if name in cached else cold
            cached.add(name)
            return took

        return stopwatch.taking(milliseconds)

    monkeypatch.setattr(timing, "_flusher", lambda place: cached.clear)
    none, some = time_cold([call("a", 5, 5), call("b", 5, 35)], torch.device("cpu"))
    assert (none, some) == pytest.approx((0, 30))
    monkeypatch.undo()
    timing._flusher(torch.device("cpu"))()


def test_times_are_of_the_calls(stopwatch):
    """Medians of single calls in milliseconds, however often a sample repeats them; rare hiccups do not count."""
    hiccups = itertools.chain([5.0] * 7, [500.0], itertools.repeat(5.0))
    calls = [stopwatch.taking(lambda: 0.02), stopwatch.taking(lambda: 80.0), stopwatch.taking(lambda: next(hiccups))]
    (few, steady), (many, _), (disturbed, _) = time_interleaved(calls, torch.device("cpu"), rounds=9)
    assert (few, many, disturbed) == pytest.approx((0.02, 80.0, 5.0))
    assert steady == pytest.approx(0, abs=1e-6)


class Unpooling(torch.nn.Module):
    """A network that hands on where its largest values were."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Linear(8, 4)

    def forward(self, x):
        x, places = F.max_pool2d(self.conv(x), 2, return_indices=True)
        return self.fc(F.max_unpool2d(x, places, 2).mean((2, 3)))


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_places_stay_whole_numbers_whatever_the_arithmetic(dtype):
    reading, device = read(Unpooling(), (3, 16, 16)), Device(name="x", kind="cpu", dtype=dtype)
    kinds = set()
    for piece in pieces(reading):
        run = load(*build_piece(reading, piece, reading.table.base, 1), device, torch.device("cpu"))
        run()
        kinds.update(tensor.dtype for tensor in run.inputs)
    assert kinds == {DTYPES[dtype], torch.int64}


def test_what_onnx_cannot_say_is_refused_in_one_line():
    pytest.importorskip("onnxruntime")
    with pytest.raises(AutoslimError, match="cannot be written as ONNX") as error:
        onnx_bytes(Unpooling(), [torch.rand(1, 3, 16, 16)])
    assert "\n" not in str(error.value)


# -- budgets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "text", "limit"),
    [
        ("latency", "12ms", 12.0),
        ("latency", "850us", 0.85),
        ("latency", "0.5s", 500.0),
        ("latency", "50%", 10.0),
        ("activation_memory", "4MB", 4 * 2**20),
        ("activation_memory", "512kb", 512 * 2**10),
    ],
)
def test_units_of_measures(measure, text, limit):
    assert parse(measure, text, 20.0).limit == pytest.approx(limit)
    shown = MEASURES[measure].show(limit)
    assert parse(measure, shown, 1).limit == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize(("measure", "text"), [("latency", "12"), ("latency", "12M"), ("activation_memory", "4M")])
def test_a_unit_of_something_else(measure, text):
    with pytest.raises(UsageError, match=f"--{measure.replace('_', '-')} '{text}'"):
        parse(measure, text, 1)


UNITS = ("a", "b", "c")


def under_stairs(strategy, rises, share, seed):
    """Return a search in which latency is made of stairs, one for each unit: its space, cost, budget and events."""
    units = {name: UnitSpace(Unit(name, (name,), 8), tuple(range(1, 9)), 1) for name in UNITS}
    space = Space(units, dict.fromkeys(units, 1))
    stairs = {name: [1, *(1 + rise for rise in own)] for name, own in zip(UNITS, rises, strict=True)}

    def cost(channels):
        return {"latency": float(sum(stairs[name][channels[name] - 1] for name in UNITS))}

    top, bottom = cost(space.largest)["latency"], cost(space.smallest)["latency"]
    budget = Budget((Bound("latency", "x", bottom + share * (top - bottom)),))

    def ask(channels, candidates, draw):
        return {c: Score(hash((seed, *c.applied(channels).values())) % 97 / 10, 0.5) for c in candidates}

    events = STRATEGIES[strategy](Problem(space, cost, (budget,), SearchSettings(refresh=3)), ask)
    return space, cost, budget, list(itertools.islice(events, 1000))


ROUND_IN_CIRCLES = [
    ("exact", [[1, 0, 3, 3, 3, 1, 1], [3, 1, 0, 2, 2, 1, 3], [3, 2, 0, 0, 2, 1, 1]], 0.5048, 22),
    ("exact", [[3, 3, 0, 2, 2, 1, 1], [0, 1, 0, 2, 2, 1, 3], [2, 1, 3, 3, 1, 1, 1]], 0.72083, 70),
    ("lazy", [[2, 3, 0, 3, 0, 3, 2], [0, 0, 1, 0, 3, 3, 2], [0, 2, 0, 3, 3, 2, 2]], 0.908581, 9),
]


@pytest.mark.parametrize("search", ROUND_IN_CIRCLES)
def test_filling_a_budget_ends_where_more_channels_are_faster(search):
    """A unit that takes channels may save latency: what an exchange has used of the budget is then free again."""
    _, cost, budget, events = under_stairs(*search)
    assert isinstance(events[-1], Answer)
    assert budget.holds(cost(events[-1].channels))


@given(
    st.sampled_from(["exact", "lazy"]),
    st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=3, max_size=3),
    st.floats(0.05, 0.95),
    st.integers(0, 99),
)
def test_a_search_under_stairs_ends_and_holds(strategy, rises, share, seed):
    """Latency of each unit is any function of its count, falling or rising or flat, with the least at the fewest."""
    space, cost, budget, events = under_stairs(strategy, rises, share, seed)
    (answer,) = [event for event in events if isinstance(event, Answer)]
    assert budget.holds(cost(answer.channels))
    channels = space.largest
    for step in (event for event in events if isinstance(event, Step) and event.kind == "slim"):
        ((_, before, after),) = step.changes
        saved = cost(channels)["latency"] - cost(step.channels)["latency"]
        of_one_unit = [cost(channels)["latency"] - cost({**channels, name: n})["latency"]
                       for name in UNITS for n in range(1, channels[name])]  # fmt: skip
        assert saved > 0 or all(value <= 0 for value in of_one_unit)  # one that saves nothing, only where none does
        assert before > after
        channels = step.channels
