"""Strategies on made-up networks and scores: what holds whatever the scores are."""

import hashlib
import itertools
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mixed_network import MixedNetwork
from torch import nn

from autoslim_cli.cost.budget import Bound, Budget, parse_many
from autoslim_cli.cost.costs import Costs
from autoslim_cli.errors import UsageError
from autoslim_cli.network.table import Unit
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import SearchSettings
from autoslim_cli.searching import STRATEGIES, Answer, Problem, Step
from autoslim_cli.searching.finish import fill, finish, refine
from autoslim_cli.searching.forecast import foresee
from autoslim_cli.searching.problem import SCREEN, _per_saving
from autoslim_cli.searching.scorer import even, share
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.slimming.space import Space, UnitSpace
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.score import Score
from autoslim_cli.training.tasks import super_resolution

BASE = {"a": 8, "b": 12, "c": 24, "d": 16}


def cost(channels):
    """A chain of layers: each unit's count times the next one's."""
    counts = list(channels.values())
    return {"flops": 10 * sum(x * y for x, y in itertools.pairwise(counts)), "params": sum(counts)}


def space_of(grids):
    units = {}
    for name, counts in grids.items():
        units[name] = UnitSpace(Unit(name, (name,), BASE[name]), tuple(sorted(counts)), 1)
    return Space(units, dict.fromkeys(units, 1))


grids = st.fixed_dictionaries(
    {name: st.sets(st.integers(1, 2 * base), min_size=1, max_size=6) for name, base in BASE.items()}
)
shares = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3, unique=True)
settings = st.builds(
    SearchSettings,
    strategy=st.sampled_from(sorted(STRATEGIES)),
    score=st.sampled_from(["loss", "top1"]),
    per_flop=st.booleans(),
    refresh=st.integers(1, 6),
    screen=st.sampled_from([0.25, 1.0]),
    among=st.sampled_from([0.25, 0.6, 1, 2, 3]),
    stride=st.sampled_from([0.0, 0.05, 0.3]),
    pace=st.sampled_from([0.0, 0.5]),
    fill=st.sampled_from([0.0, 0.98]),
    refine=st.integers(0, 3),
    draws=st.just(4),
)


def problem_of(grids, shares, settings, measures=("flops",)):
    space = space_of(grids)
    low, high = cost(space.smallest), cost(space.largest)

    def bound(measure, share):
        return Bound(measure, "x", int(low[measure] + share * (high[measure] - low[measure])))

    budgets = [Budget(tuple(bound(m, share) for m in measures)) for share in sorted(shares, reverse=True)]
    importance = {name: [1 / place for place in range(1, unit.largest + 1)] for name, unit in space.units.items()}
    return Problem(space, cost, tuple(budgets), settings, importance=importance)


def arbitrary(seed):
    """Scores without any order: loss and top-1 from a hash of draw and channels."""

    def ask(channels, candidates, draw):
        def score(candidate):
            text = repr((seed, draw, *candidate.applied(channels).items()))
            values = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
            return Score(values % 1009 / 100, values % 11 / 10)

        return {candidate: score(candidate) for candidate in candidates}

    return ask


@given(grids, shares, settings, st.integers(0, 999), st.sampled_from([("flops",), ("params",), ("flops", "params")]))
def test_whatever_the_scores_are(grids, shares, settings, seed, measures):
    problem = problem_of(grids, shares, settings, measures)
    events = list(STRATEGIES[settings.strategy](problem, arbitrary(seed)))
    # It ends with an answer for each budget, which holds.
    answers = [event for event in events if isinstance(event, Answer)]
    assert [answer.budget for answer in answers] == list(problem.budgets)
    assert all(problem.fits(answer.budget, answer.channels) for answer in answers)
    # Counts stay on the grid; what fills a budget lies between its ends.
    for event in events:
        for name, count in event.channels.items():
            on_grid = count in grids[name] if isinstance(event, Step) and event.kind == "slim" else True
            assert on_grid
            assert min(grids[name]) <= count <= max(grids[name])
    # Every slimming step takes from a unit, or from several within the stride, and lowers the cost; the path goes on
    # from where a budget was met.
    path = [event for event in events if isinstance(event, Step) and event.kind == "slim"]
    for before, after in itertools.pairwise([None, *path]):
        channels = before.channels if before else problem.space.largest
        assert all(channels[unit] == held > left for unit, held, left in after.changes)
        assert after.channels == {**channels, **{unit: left for unit, _, left in after.changes}}
        if len(after.changes) > 1:
            assert settings.strategy == "lazy"
            assert any(cost(after.channels)[m] >= (1 - settings.stride) * cost(channels)[m] - 1e-6 for m in measures)
        assert all(cost(after.channels)[m] <= cost(channels)[m] for m in ("flops", "params"))
        assert cost(after.channels)["params"] < cost(channels)["params"]
    if not settings.pace and settings.strategy in ("exact", "lazy"):
        for step in path:
            for unit, held, left in step.changes:
                assert problem.space.slimmed({unit: held}, unit) == left


@given(grids, shares, settings, st.integers(0, 999))
def test_what_follows_a_met_budget_only_helps(grids, shares, settings, seed):
    settings = settings.model_copy(update={"strategy": "exact", "pace": 0.0})
    problem = problem_of(grids, shares[:1], settings)
    ask, budget = arbitrary(seed), problem.budgets[0]
    before = problem.space.largest
    for event in STRATEGIES["exact"](problem, ask):
        if isinstance(event, Answer) or event.kind != "slim":
            harm = problem.harm(problem.score(ask, event.channels), problem.score(ask, before))
            must_fill = problem.used(budget, before) < settings.fill
            assert harm <= (0.0, 0.0) or must_fill
        before = event.channels


@given(grids, shares, settings, st.integers(0, 999), st.sampled_from([("flops",), ("flops", "params")]))
def test_an_answer_fills_its_budget_where_any_unit_can_take_more(grids, shares, settings, seed, measures):
    settings = settings.model_copy(update={"fill": 0.98})
    assume(settings.strategy != "paper")
    problem = problem_of(grids, shares, settings, measures)
    for event in STRATEGIES[settings.strategy](problem, arbitrary(seed)):
        if isinstance(event, Answer) and problem.used(event.budget, event.channels) < 0.98:
            for name in problem.space.units:
                count = problem.space.moved(event.channels, name, 1)
                assert count is None or not problem.fits(event.budget, {**event.channels, name: count})


@pytest.mark.parametrize("strategy", ["exact", "lazy", "magnitude", "random", "uniform"])
@pytest.mark.parametrize("share", ["75%", "50%", "30%", "15%"])
def test_a_budget_of_a_real_network_is_used(strategy, share):
    """Residual, depthwise, squeeze-excite and concat, with few groups: a search at 50 % once stopped at 34.5 %."""
    table = read(MixedNetwork(), (1, 28, 28)).table
    costs, space = Costs.closed_form(table), Space.of(table, width=1.5, min_width=0.15)
    budgets = tuple(parse_many({"flops": share}, costs(table.base)))
    importance = {name: [1 / place for place in range(1, unit.largest + 1)] for name, unit in space.units.items()}
    settings = SearchSettings(strategy=strategy, draws=4)
    problem = Problem(space, costs, budgets, settings, importance=importance)
    asks = [arbitrary(1), arbitrary(2), convex({name: place for place, name in enumerate(space.units, 1)})]
    for ask in asks:
        answer = list(STRATEGIES[strategy](problem, ask))[-1]
        assert 0.98 <= problem.used(budgets[0], answer.channels) <= 1


def test_two_units_exchange_quanta_where_neither_alone_fills_a_budget():
    # 4 x 8 x 8 x 4 has 128 products; a unit more of b or c adds 12, one more of a or d adds 8, and 4 are left.
    problem = problem_of(dict.fromkeys(BASE, (2, 12)), [0.5], SearchSettings())
    budget = Budget((Bound("flops", "x", 1320),))
    channels = {"a": 4, "b": 8, "c": 8, "d": 4}
    assert cost(channels)["flops"] == 1280
    assert not problem.fillers(budget, channels)
    steps = list(fill(problem, convex(dict.fromkeys(BASE, 1)), budget, channels))
    assert steps
    assert len(steps[0].changes) == 2
    assert 0.98 <= problem.used(budget, steps[-1].channels) <= 1


def test_of_moves_that_fit_the_one_that_helps_most_is_taken():
    """Any that used less of the budget came before one that helps ten times as much."""

    def ask(channels, candidates, draw):
        def score(candidate):
            used = candidate.applied(channels)
            return Score(5 - (used["b"] > 8) + 0.9 * (used["c"] < 8) + 0.9 * (used["d"] < 4), 0.5)

        return {candidate: score(candidate) for candidate in candidates}

    problem = problem_of(dict.fromkeys(BASE, range(2, 13)), [0.5], SearchSettings(refine=1))
    budget = Budget((Bound("flops", "x", 1320),))
    (step,) = refine(problem, ask, budget, {"a": 4, "b": 8, "c": 8, "d": 4})
    assert step.changes == (("a", 4, 3), ("b", 8, 9))  # at c's cost it would use less


def test_what_moves_leave_of_a_budget_is_filled():
    def ask(channels, candidates, draw):
        def score(candidate):  # a and d are for nothing where b has more
            used = candidate.applied(channels)
            return Score(5 - 0.5 * (used["b"] - 8) + 0.1 * abs(used["a"] - 4) + 0.1 * abs(used["d"] - 4), 0.5)

        return {candidate: score(candidate) for candidate in candidates}

    problem = problem_of({**dict.fromkeys(BASE, range(2, 13)), "c": (4, 8)}, [0.5], SearchSettings(refine=1))
    budget = Budget((Bound("flops", "x", 1280),))
    events = list(finish(problem, ask, budget, {"a": 4, "b": 8, "c": 8, "d": 4}))
    assert [event.kind for event in events[:-1]][:2] == ["move", "fill"]
    assert problem.used(budget, events[0].channels) < 0.98 <= problem.used(budget, events[-1].channels)


def test_what_a_step_of_super_resolution_changes_is_not_noise():
    """With photographs it changes the L1 loss by 0.00001 to 0.00002: of two, the one that harms half is ahead."""
    noise, _ = super_resolution().noise
    assert _per_saving(2e-5, 0.05, noise) > 1.9 * _per_saving(1e-5, 0.05, noise)


def test_the_order_of_harms_per_saving_is_continuous():
    # "a" saves next to nothing, "b" a twentieth: within the noise the one that saves comes first, whatever the sign.
    for harm_a, harm_b in ((-1e-6, 1e-6), (-1e-6, 1e-5), (0.0, 1e-4), (-1e-4, 1e-4)):
        assert _per_saving(harm_a, 0.0001) > _per_saving(harm_b, 0.05)
    # No jump at zero; more harm is never better, more saving never worse.
    assert _per_saving(-1e-12, 0.01) == pytest.approx(_per_saving(1e-12, 0.01), rel=1e-6)


@given(st.floats(-10, 10), st.floats(0, 10), st.floats(1e-6, 1), st.floats(0, 1))
def test_harm_per_saving_rises_with_harm_and_falls_with_saving(harm, more, saved, further):
    assert _per_saving(harm + more, saved) >= _per_saving(harm, saved) * (1 - 1e-9)
    assert _per_saving(harm, saved + further) <= _per_saving(harm, saved)


def test_lazy_divides_a_remembered_harm_by_what_the_unit_saves_now():
    """A unit's saving falls as its neighbours shrink: a rank of then would keep it in front."""
    problem = problem_of({name: range(1, 9) for name in BASE}, [0.05], SearchSettings(stride=0.0))
    candidate, harm = Candidate.of({"b": 7}), (0.1, 0.0)
    wide, slim = problem.space.largest, {**problem.space.largest, "a": 1, "c": 1}
    (budget,) = problem.budgets
    assert problem.rank(budget, candidate, slim, harm) > problem.rank(budget, candidate, wide, harm)
    asked = []

    def ask(channels, candidates, draw):
        asked.append((dict(channels), candidates))
        return convex({"a": 1, "b": 1, "c": 1, "d": 1})(channels, candidates, draw)

    chosen = {
        name: [event.channels for event in STRATEGIES[name](problem, ask)]
        for name, problem in {
            "exact": problem,
            "lazy": replace(problem, settings=SearchSettings(stride=0.0, refresh=10**6, screen=1.0, among=1)),
        }.items()
    }
    assert chosen["lazy"] == chosen["exact"]


@pytest.mark.parametrize("strategy", ["exact", "lazy"])
def test_what_a_step_saves_beyond_a_budget_counts_for_nothing(strategy):
    """A large step that harms less per FLOP was taken where a small one would do, and the rest of it was wasted."""
    grids = {"a": (8,), "b": (4, 12), "c": (24,), "d": (15, 16)}  # b saves far more than is missing, d just that

    def ask(channels, candidates, draw):
        def score(candidate):
            used = candidate.applied(channels)
            return Score(0.10 * (used["b"] < 12) + 0.02 * (used["d"] < 16), 0.5)

        return {candidate: score(candidate) for candidate in candidates}

    problem = problem_of(grids, [0.5], SearchSettings(fill=0))
    budget = Budget((Bound("flops", "x", cost(problem.space.largest)["flops"] - 200),))
    problem = replace(problem, budgets=(budget,))
    answer = list(STRATEGIES[strategy](problem, ask))[-1]
    assert answer.channels == {"a": 8, "b": 12, "c": 24, "d": 15}


layers = st.lists(st.dictionaries(st.sampled_from(sorted(BASE)), st.integers(1, 2), min_size=1), min_size=2, max_size=4)
"""Of each layer the bytes that a channel of its units takes."""


@given(grids, layers, shares, settings, st.integers(0, 999))
def test_a_step_by_memory_takes_from_the_layer_that_holds_most(grids, layers, shares, settings, seed):
    """Where layers tie no unit alone saves anything, and units that were no part of it lost all that they had."""

    def held(channels):
        return [sum(size * channels[name] for name, size in layer.items()) for layer in layers]

    def by_memory(channels):
        return {**cost(channels), "activation_memory": max(held(channels))}

    space = space_of(grids)
    low, high = (by_memory(ends)["activation_memory"] for ends in (space.smallest, space.largest))
    limits = sorted({int(low + share * (high - low)) for share in shares}, reverse=True)
    budgets = tuple(Budget((Bound("activation_memory", "x", limit),)) for limit in limits)
    for strategy in ("exact", "lazy"):
        alone = settings.model_copy(update={"strategy": strategy, "stride": 0.0, "pace": 0.0})
        channels = space.largest
        for event in STRATEGIES[strategy](Problem(space, by_memory, budgets, alone), arbitrary(seed)):
            if isinstance(event, Step) and event.kind == "slim":
                ((unit, *_),) = event.changes
                now = held(channels)
                with_one_more = [total + layer.get(unit, 0) for total, layer in zip(now, layers, strict=True)]
                assert max(with_one_more) > max(now)
                channels = event.channels


@pytest.mark.parametrize("strategy", ["exact", "lazy"])
@pytest.mark.parametrize("per_flop", [True, False])
def test_of_units_that_save_together_alone_the_least_harmful_is_slimmed(strategy, per_flop):
    def by_memory(channels):  # b and c tie where both have as many, and save together alone
        return {**cost(channels), "activation_memory": 100 * max(channels["b"], channels["c"], channels["d"] // 2)}

    settings = SearchSettings(fill=0, stride=0.0, per_flop=per_flop)
    budget = Budget((Bound("activation_memory", "x", 800),))
    problem = Problem(space_of(dict.fromkeys(BASE, range(4, 13))), by_memory, (budget,), settings)
    events = list(STRATEGIES[strategy](problem, convex({"a": 1, "b": 9, "c": 8, "d": 1})))
    assert events[0].changes == (("c", 12, 11),)
    assert events[-1].channels == {"a": 12, "b": 8, "c": 8, "d": 12}


def test_units_that_harm_far_more_together_are_not_taken_together():
    grids = {name: range(1, 9) for name in BASE}

    def ask(channels, candidates, draw):
        def score(candidate):
            used = candidate.applied(channels)
            gone = sum(used[name] < 8 for name in ("a", "b"))
            return Score(0.01 * sum(8 - used[name] for name in BASE) + (5.0 if gone == 2 else 0.0), 0.5)

        return {candidate: score(candidate) for candidate in candidates}

    problem = problem_of(grids, [0.6], SearchSettings(stride=0.9, screen=1.0, among=4, per_flop=False))
    first = next(iter(STRATEGIES["lazy"](problem, ask)))
    assert not {"a", "b"} <= {unit for unit, *_ in first.changes}


def test_the_papers_own_search_is_exact_by_top1_and_harm_alone():
    grids = dict.fromkeys(BASE, (4, 6, 8))

    def ask(channels, candidates, draw):
        def score(candidate):  # top-1 says "d", the loss says "a", harm per FLOP says "b"
            used = candidate.applied(channels)
            top1 = 0.9 - 0.010 * (used["a"] < 8) - 0.011 * (used["b"] < 8) - 0.012 * (used["c"] < 8)
            return Score(1.0 + 0.1 * (used["d"] < 8), top1)

        return {candidate: score(candidate) for candidate in candidates}

    problem = problem_of(grids, [0.7], SearchSettings(strategy="paper", stride=0.5))
    events = list(STRATEGIES["paper"](problem, ask))
    assert events[0].changes[0][0] == "d"
    assert all(len(event.changes) == 1 and event.kind == "slim" for event in events[:-1])
    assert isinstance(events[-1], Answer)


def convex(weights):
    """Scores of which no harm ever falls: a sum over units of what grows ever faster as they shrink."""

    def ask(channels, candidates, draw):
        def score(candidate):
            used = candidate.applied(channels)
            return Score(sum(w * 2520 // used[name] for name, w in weights.items()), 0.5)  # exact: no rounding

        return {candidate: score(candidate) for candidate in candidates}

    return ask


@given(
    st.fixed_dictionaries({name: st.sets(st.integers(1, 9), min_size=2).map(sorted) for name in BASE}),
    shares,
    st.fixed_dictionaries({name: st.integers(1, 50) for name in BASE}),
    st.integers(1, 3),
    st.booleans(),
)
def test_lazy_is_exact_where_harms_never_fall(grids, shares, weights, among, per_flop):
    """Groups may be of any size: a unit's last one is what is left, and its harm is that of fewer channels."""
    chosen, evaluations = {}, {}
    for name in ("exact", "lazy"):
        asked = set()

        def counting(channels, candidates, draw, asked=asked):
            asked.update((draw, *c.applied(channels).items()) for c in candidates)
            return convex(weights)(channels, candidates, draw)

        problem = problem_of(
            grids, shares, SearchSettings(refresh=10**6, screen=1.0, among=among, stride=0.0, per_flop=per_flop)
        )
        chosen[name] = [event.channels for event in STRATEGIES[name](problem, counting)]
        evaluations[name] = len(asked)
    assert chosen["lazy"] == chosen["exact"]
    assert evaluations["lazy"] <= evaluations["exact"]


def asked_of_lazy(settings, budget=0.1):
    """What `lazy` asks for, as (draw, candidates), and the evaluations in it; `exact`'s evaluations beside it."""
    grids = {name: range(1, 17) for name in BASE}
    asked, points = [], {"lazy": set(), "exact": set()}
    for name, evaluated in points.items():

        def ask(channels, candidates, draw, name=name, evaluated=evaluated):
            if name == "lazy":
                asked.append((draw, len(candidates)))
            evaluated.update((draw, *c.applied(channels).items()) for c in candidates)
            return convex({"a": 50, "b": 60, "c": 55, "d": 45})(channels, candidates, draw)

        steps = list(STRATEGIES[name](problem_of(grids, [budget], settings), ask))
        assert len(steps) > 10
    return asked, len(points["lazy"]), len(points["exact"])


def test_lazy_scores_few():
    settings = SearchSettings(refresh=10**6, screen=1.0, among=1, stride=0.0, fill=0)
    _, lazy, exact = asked_of_lazy(settings)
    assert lazy < 0.7 * exact


def test_lazy_looks_at_every_unit_now_and_then_on_some_of_the_images():
    settings = SearchSettings(refresh=3, screen=0.5, among=1, stride=0.0, fill=0)
    asked, _, _ = asked_of_lazy(settings)
    screens = [place for place, (draw, _) in enumerate(asked) if draw == SCREEN]
    steps = [{draw for draw, _ in asked[one:other]} - {SCREEN} for one, other in itertools.pairwise(screens)]
    assert len(steps) > 2
    assert steps == [set(range(3 * n + 1, 3 * n + 4)) for n in range(len(steps))]  # at steps 1, 4, 7...
    assert all(asked[place][1] == 1 + len(BASE) for place in screens[:3])  # all units, and the channels themselves


def test_random_keeps_the_best_draw():
    settings = SearchSettings(strategy="random", draws=8, fill=0)
    *drawn, answer = STRATEGIES["random"](problem_of({n: range(1, 9) for n in BASE}, [0.3], settings), arbitrary(0))
    losses = [step.score.loss for step in drawn if step.kind == "draw"]
    assert len(set(losses)) > 1
    assert answer.score.loss == min(losses)


def test_magnitude_takes_the_least_important_first():
    problem = problem_of({n: range(1, 9) for n in BASE}, [0.6], SearchSettings(strategy="magnitude", fill=0))
    important = {name: [1.0] * unit.largest for name, unit in problem.space.units.items()}
    for least in BASE:
        importance = {**important, least: [1e-3] * len(important[least])}
        answer = list(STRATEGIES["magnitude"](replace(problem, importance=importance), arbitrary(0)))[-1]
        assert answer.channels[least] < 8
        others = {name: count for name, count in answer.channels.items() if name != least}
        assert answer.channels[least] == 1 or set(others.values()) == {8}


def test_a_stride_takes_several_units_on_fewer_scores():
    grids = {name: range(1, 17) for name in BASE}
    evaluations, most = {}, {}
    for stride in (0.0, 0.2):
        asked = set()

        def counting(channels, candidates, draw, asked=asked):
            points = {(draw, *c.applied(channels).items()) for c in candidates}
            asked.update(points)
            return convex({"a": 50, "b": 60, "c": 55, "d": 45})(channels, candidates, draw)

        problem = problem_of(grids, [0.1], SearchSettings(refresh=10**6, screen=1.0, among=2, stride=stride, fill=0))
        steps = [event for event in STRATEGIES["lazy"](problem, counting) if isinstance(event, Step)]
        evaluations[stride], most[stride] = len(asked), max(len(step.changes) for step in steps)
    assert most[0.0] == 1 < most[0.2]
    assert evaluations[0.2] < evaluations[0.0]


def test_pace_takes_several_groups_while_they_cost_nothing():
    grids = {name: range(1, 9) for name in BASE}
    weights = {"a": 100, "b": 100, "c": 0, "d": 100}
    problem = problem_of(grids, [0.5], SearchSettings(strategy="exact", pace=0.01))
    first = next(iter(STRATEGIES["exact"](problem, convex(weights))))
    assert first.changes[0][:2] == ("c", 8)
    assert first.changes[0][2] < 5


def test_harm_per_flop_prefers_the_dearer_unit():
    grids = {"a": (4, 8), "b": (4, 8), "c": (4, 8), "d": (4, 8)}  # b and c cost twice what a and d cost
    weights = {"a": 9, "b": 10, "c": 11, "d": 12}
    for per_flop, unit in ((False, "a"), (True, "b")):
        problem = problem_of(grids, [0.2], SearchSettings(strategy="exact", per_flop=per_flop))
        step = next(iter(STRATEGIES["exact"](problem, convex(weights))))
        assert step.changes[0][0] == unit


def test_a_forecast_counts_what_a_search_asks():
    problem = problem_of({name: range(1, 9) for name in BASE}, [0.5, 0.2], SearchSettings(strategy="exact"))
    forecast = foresee(problem, STRATEGIES["exact"])
    steps = [event for event in STRATEGIES["exact"](problem, convex(BASE)) if isinstance(event, Step)]
    assert abs(forecast.steps - len(steps)) <= len(steps) / 2
    assert forecast.steps < forecast.evaluations <= forecast.steps * 6
    assert 0 < forecast.passes < forecast.evaluations
    random = problem_of({name: range(1, 9) for name in BASE}, [0.5, 0.2], SearchSettings(draws=7, fill=0))
    assert foresee(random, STRATEGIES["random"]).steps == 14


def test_budgets_of_several_measures():
    base = {"flops": 1000, "params": 100}
    labels = {
        (("300", None)): ["300"],
        (("50%,80%,50%", None)): ["80pct", "50pct"],
        ((None, "20,50%")): ["params-50pct", "params-20"],
        (("60%,50%,30%", "40%,40%,20%")): ["60pct-params-40pct", "50pct-params-40pct", "30pct-params-20pct"],
        (("123.4567M,123.4568M", None)): ["123.4568M", "123.4567M"],
        (("300,600", "50")): ["600-params-50", "300-params-50"],
        (("300,600", "20,40")): ["600-params-40", "300-params-20"],
    }
    for (flops, params), expected in labels.items():
        budgets = parse_many({name: text for name, text in (("flops", flops), ("params", params)) if text}, base)
        assert [budget.label for budget in budgets] == expected
    both = parse_many({"flops": "300", "params": "20"}, base)[0]
    assert str(both) == "flops<=300 and params<=20"
    assert both.holds({"flops": 300, "params": 20})
    assert not both.holds({"flops": 300, "params": 21})
    assert both.binding({"flops": 200, "params": 20}).measure == "params"
    with pytest.raises(UsageError, match="as many of each"):
        parse_many({"flops": "3,2", "params": "3,2,1"}, base)


class Chain:
    """An evaluator's view of work: the later a unit's cut, the longer the shared pass and the shorter its own."""

    def work(self, candidate, channels):
        place = list(channels).index(candidate.units[0])
        return 10 * place, 10 * (len(channels) - place)


@given(st.integers(1, 12), st.integers(1, 9))
def test_ranks_share_candidates_out(units, size):
    channels = {f"u{number:02}": 4 for number in range(units)}
    candidates = [Candidate.of({unit: 3}) for unit in channels]
    parts = [share(Chain(), channels, candidates, Ranks(rank, size)) for rank in range(size)]
    assert sorted((c for part in parts for c in part), key=str) == candidates
    work = [Chain().work(c, channels) for c in candidates]
    busiest = max(
        max(Chain().work(c, channels)[0] for c in part) + sum(Chain().work(c, channels)[1] for c in part)
        for part in parts
        if part
    )
    # No rank does more than a fair share of the candidates' own work, a shared pass, and one candidate.
    assert busiest <= sum(alone for _, alone in work) / size + 10 * units + 10 * units


class Counted:
    """Images that only know how many they are."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def take(self, count):
        return Counted(count)


@given(st.integers(2, 3000), st.integers(2, 3000))
def test_batches_are_equal_and_leave_out_next_to_nothing(count, most):
    parts = even(Counted(count), most)
    assert 2 <= parts.batch <= most
    assert len(parts.images) % parts.batch == 0
    assert count - len(parts.images) < -(-count // most)


@pytest.mark.parametrize("strategy", ["exact", "lazy", "magnitude", "random", "uniform"])
def test_a_smallest_count_that_is_no_multiple_is_reached(strategy):
    """A supernet of no less than the base network, whose counts are no multiples of the divisor."""
    network = nn.Sequential(nn.Conv2d(3, 20, 3), nn.Conv2d(20, 20, 3), nn.Conv2d(20, 4, 3))
    table = read(network, (3, 16, 16)).table
    costs, space = Costs.closed_form(table), Space.of(table, width=1.5, min_width=1.0, divisor=8)
    budgets = tuple(parse_many({"flops": "100%"}, costs(table.base)))
    importance = {name: [1 / place for place in range(1, unit.largest + 1)] for name, unit in space.units.items()}
    problem = Problem(space, costs, budgets, SearchSettings(strategy=strategy, draws=4), importance=importance)
    answer = list(STRATEGIES[strategy](problem, arbitrary(1)))[-1]
    assert answer.channels == table.base == space.smallest
