"""Random sub-networks of a supernet: evenly over budgets, various at each."""

import itertools
import math
import random
import statistics

from hypothesis import given
from hypothesis import strategies as st

from autoslim_cli.network.table import LayerTable, Unit
from autoslim_cli.slimming.sampling import near_budget
from autoslim_cli.slimming.space import Space

units = st.lists(
    st.tuples(st.integers(1, 60), st.sampled_from([1, 1, 4]), st.sampled_from([None, None, "because"])),
    min_size=2,
    max_size=12,
).map(
    lambda all_of: tuple(
        Unit(f"u{i}", (f"u{i}",), base * granule, granule, capped=capped)
        for i, (base, granule, capped) in enumerate(all_of)
    )
)
RESNET = tuple(Unit(f"u{i}", (f"u{i}",), 16 * 2 ** (i // 6)) for i in range(18))


def cost(channels):
    return sum(x * y for x, y in itertools.pairwise(channels.values()))


def space_of(units):
    return Space.of(LayerTable(rows=(), units=units), width=1.5, min_width=0.15, groups=12, divisor=4)


@given(units, st.integers(0, 999))
def test_draws_are_channels_of_the_space(units, seed):
    space = space_of(units)
    drawn = near_budget(space, cost, random.Random(seed))
    for name, unit in space.units.items():
        assert unit.smallest <= drawn[name] <= unit.largest
        assert drawn[name] in (unit.smallest, unit.largest) or drawn[name] % unit.quantum == 0
    assert drawn == near_budget(space, cost, random.Random(seed))


def test_budgets_are_drawn_evenly_where_units_drawn_alone_concentrate():
    space = space_of(RESNET)
    low, high = (math.log(cost(ends)) for ends in (space.smallest, space.largest))

    def thirds(draw):
        """The share of draws in each third of the range of log costs."""
        places = [(math.log(cost(draw(random.Random(seed)))) - low) / (high - low) for seed in range(600)]
        return [sum(k <= 3 * place < k + 1 for place in places) / 600 for k in range(3)]

    even = thirds(lambda rng: near_budget(space, cost, rng))
    assert all(0.2 < share < 0.45 for share in even)
    alone = thirds(space.random)
    assert min(alone) < 0.02


def test_units_stray_from_one_width():
    space = space_of(RESNET)
    spreads = []
    for seed in range(50):
        drawn = near_budget(space, cost, random.Random(seed))
        inner = [n for n, u in space.units.items() if u.smallest < drawn[n] < u.largest]
        if len(inner) > 4:
            spreads.append(statistics.stdev(math.log(drawn[n] / space.units[n].unit.base) for n in inner))
    assert len(spreads) > 10
    assert statistics.mean(spreads) > 0.2
