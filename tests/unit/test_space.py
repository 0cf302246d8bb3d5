"""The search space: grids, widths, and the checks on channels that people write."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoslim_cli.cost.closed_form import widest_uniform
from autoslim_cli.errors import UsageError
from autoslim_cli.network.table import LayerTable, Unit
from autoslim_cli.slimming.space import Space, scaled

CAPS = st.sampled_from([None, None, "because"])
units = st.lists(
    st.tuples(st.integers(1, 400), st.sampled_from([1, 1, 1, 3, 4, 7, 8]), CAPS), min_size=1, max_size=6
).map(
    lambda all_of: tuple(
        Unit(f"u{i}", (f"u{i}",), base * granule, granule, capped=capped)
        for i, (base, granule, capped) in enumerate(all_of)
    )
)


def space_of(units, **options):
    values = {"width": 1.5, "min_width": 0.15, "groups": 12, "divisor": 8, **options}
    return Space.of(LayerTable(rows=(), units=units), **values)


@given(units, st.integers(1, 20), st.integers(1, 16), st.floats(0.05, 0.9))
def test_grids_hold_whole_granules_and_end_at_both_bounds(units, groups, divisor, min_width):
    space = space_of(units, groups=groups, divisor=divisor, min_width=min_width)
    for unit in units:
        grid = space.units[unit.name]
        assert list(grid.counts) == sorted(set(grid.counts))
        assert all(count > 0 and count % unit.granule == 0 for count in grid.counts)
        if divisor <= unit.base:
            nearest = min(range(unit.granule, divisor + unit.granule + 1, unit.granule), key=lambda m: abs(m - divisor))
            assert all(count % nearest == 0 or (unit.capped and count == unit.base) for count in grid.counts)
        assert grid.counts[-1] <= unit.base or not unit.capped
        assert grid.counts[0] == space.smallest[unit.name]
        assert grid.counts[-1] == space.largest[unit.name]
        gaps = [b - a for a, b in zip(grid.counts, grid.counts[1:], strict=False)]
        if unit.capped and unit.base % grid.quantum:  # the last leads from a multiple to what is none
            assert all(0 < gap < grid.step + grid.quantum for gap in gaps[-1:])
            gaps = gaps[:-1]
        assert all(gap == grid.step for gap in gaps[1:])
        assert all(0 < gap <= grid.step for gap in gaps[:1])


@given(units, st.randoms(use_true_random=False))
def test_slimming_ends_at_the_smallest(units, rng):
    space = space_of(units)
    channels = space.random(rng)
    for name in space.units:
        while (count := space.slimmed(channels, name)) is not None:
            assert count < channels[name]
            channels[name] = count
    assert channels == space.smallest


@settings(deadline=None)  # it looks at hundreds of networks: a busy machine is no fault
@given(units, st.integers(0, 99), st.floats(0.1, 0.9))
@example((Unit("u0", ("u0",), 3),), 0, 0.5)
@example((Unit("u0", ("u0",), 13),), 0, 0.5)  # 16 from width 0.92 on, 13 at 1, and 16 again
def test_the_widest_uniform_network_is_found_where_cost_rises_and_falls(units, seed, share):
    space = space_of(units)

    def fits(channels):  # as latency, whose stairs go down as well as up
        return random.Random(f"{seed} {channels}").random() < share

    found = widest_uniform(space, lambda c: sum(c.values()), fits)
    best = max((n / 500 for n in range(800) if fits(space.uniform(n / 500))), default=None)
    if found is None:
        assert best is None
    else:
        width, channels = found
        assert fits(channels)
        assert best is None or width > best or channels in (space.uniform(best), space.uniform(1.0))
    assert widest_uniform(space, lambda c: 0, lambda c: True)[1] == space.largest


@given(units, st.floats(0.15, 1.5), st.floats(0.15, 1.5))
def test_uniform_channels_grow_with_the_width(units, first, second):
    space = space_of(units)
    low, high = sorted((first, second))
    if 1.0 in (low, high):
        return
    narrow, wide = space.uniform(low), space.uniform(high)
    assert all(narrow[name] <= wide[name] for name in space.units)


def test_width_one_is_the_base_network_exactly():
    assert scaled(37, 1.0, 8) == 37
    assert scaled(37, 1.5, 8) == 56
    assert scaled(3, 0.1, 8) == 8


def test_a_unit_smaller_than_the_divisor_can_be_slimmed():
    space = space_of((Unit("squeeze", ("squeeze",), 6),))
    assert space.units["squeeze"].counts == (4, 8)
    assert space.uniform(1.0) == {"squeeze": 6}


@pytest.mark.parametrize(
    ("granule", "divisor", "expected"),
    [(3, 8, 9), (7, 8, 7), (5, 8, 10), (6, 8, 6), (16, 8, 16), (4, 8, 8), (16, 24, 16), (1, 8, 8)],
)
def test_odd_granules_leave_fine_grids(granule, divisor, expected):
    unit = Unit("grouped", ("grouped",), 50 * granule, granule)
    space = space_of((unit,), divisor=divisor, groups=1000)
    assert space.units["grouped"].step == expected
    assert space.check({"grouped": 11 * granule}, "a config") == {"grouped": 11 * granule}  # off the grid


@pytest.mark.parametrize(
    ("base", "divisor", "counts"),
    [
        (100, 8, (16, 24, 40, 56, 72, 88, 100)),
        (72, 32, (32, 72)),
        (24, 16, (16, 24)),
        (96, 8, (16, 24, 48, 72, 96)),
    ],
)
def test_counts_below_a_base_that_is_no_multiple_are_multiples(base, divisor, counts):
    space = space_of((Unit("a", ("a",), base),), width=1.0, divisor=divisor, groups=100 // 16 if base == 100 else 4)
    assert space.units["a"].counts == counts
    moves = [{"a": base}]
    while (count := space.moved(moves[-1], "a", -1)) is not None:
        moves.append({"a": count})
    assert [one["a"] for one in moves[1:]] == list(range((base - 1) // divisor * divisor, counts[0] - 1, -divisor))
    back = [space.moved(one, "a", 1) for one in moves]
    assert back == [None, *(one["a"] for one in moves[:-1])]


def test_steps_down_end_at_a_smallest_count_that_is_no_multiple():
    space = space_of((Unit("a", ("a",), 20),), width=2.0, min_width=1.0, divisor=8, groups=4)
    assert space.units["a"].counts == (20, 24, 32, 40)
    counts = [40]
    while (count := space.moved({"a": counts[-1]}, "a", -1)) is not None:
        counts.append(count)
    assert counts == [40, 32, 24, 20]
    assert [space.moved({"a": count}, "a", 1) for count in counts] == [None, 40, 32, 24]
    assert [space.moved({"a": 32}, "a", -quanta) for quanta in (1, 2, 3)] == [24, 20, None]


@pytest.mark.parametrize("width", [1.0, 1.01, 1.2])
def test_a_supernet_of_width_one_or_more_holds_the_base_network(width):
    space = space_of((Unit("a", ("a",), 34), Unit("b", ("b",), 37)), width=width)
    assert all(space.uniform(1.0)[name] <= space.largest[name] for name in space.units)


@pytest.mark.parametrize(("base", "largest"), [(64, 64), (100, 100), (6, 6)])
def test_a_capped_unit_is_no_wider_than_the_base_network(base, largest):
    space = space_of((Unit("a", ("a",), base, capped="because"), Unit("b", ("b",), base)), width=1.5)
    assert space.largest["a"] == largest < space.largest["b"]
    assert space.uniform(1.5)["a"] == base
    assert space.check({"a": base, "b": 10 * base}, "a config", bounded=False)["a"] == base
    with pytest.raises(UsageError, match=f"unit 'a' has {base + 1} channels; the range is 1..{base} .because.$"):
        space.check({"a": base + 1, "b": base}, "a config", bounded=False)
    with pytest.raises(UsageError, match=rf"has {base} at most: lower it there \(because\)"):
        space_of((Unit("a", ("a",), base, capped="because"),), width=1.5, least={"a": base + 1})


def test_channels_around_a_width_that_a_unit_does_not_reach_are_its_nearest():
    space = space_of((Unit("a", ("a",), 16, capped="because"), Unit("b", ("b",), 16)), width=2.0, divisor=1)
    for seed in range(20):
        drawn = space.random(random.Random(seed), low=1.2, high=1.9)
        assert drawn["a"] == 16
        assert 1.2 * 16 <= drawn["b"] <= 1.9 * 16
    assert space.random(random.Random(0), low=0.01, high=0.02) == space.smallest


def test_the_paper_s_mobilenet_grid():
    # AutoSlim, section 4.1: 1.5x, about 12 groups, counts in multiples of 8, smallest 0.15x.
    space = space_of(
        (Unit("stem", ("stem",), 32), Unit("tail", ("tail",), 1280), Unit("fc", ("fc",), 1000, 1, "output"))
    )
    assert space.units["stem"].counts == (8, 16, 24, 32, 40, 48)
    assert (space.units["tail"].largest, space.units["tail"].step, space.units["tail"].smallest) == (1920, 160, 192)
    assert space.units["fc"].counts == (1000,)


def test_random_channels_differ_by_unit():
    space = space_of(tuple(Unit(f"u{i}", (f"u{i}",), 256) for i in range(8)))
    drawn = space.random(random.Random(0))
    assert len(set(drawn.values())) > 1


CHECKED = (Unit("a", ("a",), 32), Unit("b", ("b",), 64, 4), Unit("fc", ("fc",), 10, 1, "the network's output"))


def test_check_fills_in_pinned_units_in_order():
    assert list(space_of(CHECKED).check({"b": 16, "a": 5}, "x")) == ["a", "b", "fc"]


def test_a_network_without_units_has_none_that_is_near():
    with pytest.raises(UsageError, match=r"arch\.json: no unit 'a' in this network, which has none"):
        space_of([]).check({"a": 32}, "arch.json")


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ({"a": 32}, ["'b' is missing"]),
        ({"a": 32, "b": 64, "fcs": 1}, ["'fcs' in this network; did you mean fc?"]),
        ({"a": 32, "b": 64, "stem": 1}, ["'stem' in this network; there are a, b, fc"]),
        ({"a": 0, "b": 64}, ["'a' has 0", "1..48"]),
        ({"a": 49, "b": 64}, ["'a' has 49", "1..48"]),
        ({"a": 32, "b": 30}, ["'b' has 30", "multiples of 4"]),
        ({"a": 32, "b": 64, "fc": 9}, ["'fc' is pinned at 10", "not 9"]),
    ],
)
def test_check_names_the_unit_the_count_and_the_range(channels, words):
    with pytest.raises(UsageError) as error:
        space_of(CHECKED).check(channels, "arch.json")
    assert all(word in str(error.value) for word in ["arch.json", *words])
