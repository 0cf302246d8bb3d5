"""Lay out the search space: which counts every unit may take. Pure arithmetic, no tensors."""

import bisect
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from autoslim_cli.errors import UsageError
from autoslim_cli.near import hint, listed
from autoslim_cli.network.table import Channels, LayerTable, Unit

MOST = 2**31 - 1
"""Channels of any unit: no tensor has more."""


@dataclass(frozen=True)
class UnitSpace:
    """The counts of one unit, in ascending order; the last is the supernet's. A pinned unit has one.

    A group of channels leads from one count to the next; between them lie counts a `quantum` apart, which a search
    takes only to fill a budget.
    """

    unit: Unit
    counts: tuple[int, ...]
    step: int
    quantum: int = 1

    @property
    def smallest(self) -> int:
        """Return the smallest count."""
        return self.counts[0]

    @property
    def largest(self) -> int:
        """Return the supernet's count."""
        return self.counts[-1]


def scaled(base: int, width: float, quantum: int) -> int:
    """Scale a count to a width: the nearest multiple of `quantum`, at least one; exactly `base` at width 1."""
    return base if width == 1 else max(quantum, _nearest(base * width, quantum))


def _nearest(count: float, quantum: int) -> int:
    """Return the nearest multiple."""
    return quantum * math.floor(count / quantum + 0.5)


def _quantum(unit: Unit, divisor: int) -> int:
    """Return what a unit's counts are multiples of: the multiple of its granule that is nearest to the divisor.

    For a unit smaller than the divisor, nearest to a half or less of it. Of two equally near, the smaller.
    """
    while divisor > unit.base and divisor % 2 == 0:
        divisor //= 2
    return unit.granule * max(1, math.ceil(divisor / unit.granule - 0.5))


def _value_for(value: int | Mapping[str, int], unit: Unit) -> int:
    """Return a value for one unit."""
    return value if isinstance(value, int) else value[unit.name]


def _rounded_up(count: int, quantum: int) -> int:
    """Round a count up to a multiple."""
    return -(-count // quantum) * quantum


@dataclass(frozen=True)
class Space:
    """All channels between the smallest and the supernet's, on each unit's grid (AutoSlim, section 3.2)."""

    units: dict[str, UnitSpace]
    divisors: dict[str, int]
    between: tuple[float, float] = (0.0, math.inf)
    """The smallest and the largest width that it was laid out for."""

    @classmethod
    def of(
        cls,
        table: LayerTable,
        *,
        width: float,
        min_width: float,
        groups: int | Mapping[str, int] = 12,
        divisor: int | Mapping[str, int] = 8,
        least: Mapping[str, int] | None = None,
    ) -> "Space":
        """Lay out the space of a supernet `width` times as wide as the network that was read.

        A unit's step is its largest count over `groups`, rounded to a multiple of `divisor`, or of the multiple of the
        unit's granule that is nearest to it. Raises UsageError if a unit shall have more than it can.
        `groups` and `divisor` are one number or one for each unit; `least` holds the smallest counts of some units.
        """
        units = {}
        divisors = {unit.name: _value_for(divisor, unit) for unit in table.units}
        for unit in table.units:
            if unit.pinned is not None:
                units[unit.name] = UnitSpace(unit, (unit.base,), 0)
                continue
            quantum = _quantum(unit, divisors[unit.name])
            largest = max(scaled(unit.base, width, quantum), unit.base if width >= 1 else 0)
            largest = min(largest, unit.base) if unit.capped else largest
            asked = (least or {}).get(unit.name, 0)
            if asked > largest:
                other = f" ({unit.capped})" if unit.capped else ", or raise supernet.width"
                raise UsageError(
                    f"space.min: {asked} channels for unit {unit.name}, which has {largest} at most: lower it "
                    f"there{other}"
                )
            smallest = min(max(scaled(unit.base, min_width, quantum), _rounded_up(asked, quantum)), largest)
            step = max(quantum, _nearest(largest / _value_for(groups, unit), quantum))
            # A base network's own count need be no multiple: from one that is the largest the first step leads to one.
            grid = [largest, *range(_nearest(largest - step, quantum), smallest, -step)] if largest > smallest else []
            units[unit.name] = UnitSpace(unit, (smallest, *reversed(grid)), step, quantum)
        return cls(units, divisors, (min_width, width))

    @property
    def largest(self) -> dict[str, int]:
        """Return the supernet's channels."""
        return {name: unit.largest for name, unit in self.units.items()}

    @property
    def smallest(self) -> dict[str, int]:
        """Return the smallest channels."""
        return {name: unit.smallest for name, unit in self.units.items()}

    @property
    def ends(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the least and the most channels that costs may be asked for: the space's, and the base network's."""
        counts = {name: (space.smallest, space.largest, space.unit.base) for name, space in self.units.items()}
        return {name: min(three) for name, three in counts.items()}, {
            name: max(three) for name, three in counts.items()
        }

    @property
    def log10_size(self) -> float:
        """Return the decimal logarithm of the number of points."""
        return sum(math.log10(len(unit.counts)) for unit in self.units.values())

    def uniform(self, width: float) -> dict[str, int]:
        """Return the channels of one width for all units, within the space's bounds but not on its grid.

        Width 1 is the base network exactly, and from there on capped units are.
        """
        if width == 1:
            return {name: space.unit.base for name, space in self.units.items()}
        channels = {}
        for name, space in self.units.items():
            count = scaled(space.unit.base, width, _quantum(space.unit, self.divisors[name]))
            if space.unit.capped and width > 1:
                count = space.unit.base
            channels[name] = min(max(count, space.smallest), space.largest)
        return channels

    def at_width(self, width: float) -> dict[str, int]:
        """Return the channels of one width. Raises UsageError for one that the supernet does not hold."""
        low, high = self.between
        if not low <= width <= high:
            raise UsageError(f"width {width:g} is outside the supernet's {low:g} to {high:g}")
        return self.uniform(width)

    @property
    def widths(self) -> list[float]:
        """Return all widths, ascending, at which `uniform` has just changed a count."""
        found = {1.0 + 1e-9}  # at 1 the base network, whose counts need be no multiples; behind it, multiples again
        for name, space in self.units.items():
            quantum = _quantum(space.unit, self.divisors[name])
            top = _rounded_up(space.largest, quantum) if space.unit.capped else space.largest
            counts = range(_rounded_up(space.smallest, quantum), top + 1, quantum)
            found.update((count - quantum / 2) / space.unit.base + 1e-9 for count in counts)
        return sorted(width for width in found if width > 0)

    def random(self, rng: random.Random, *, low: float = 0.0, high: float = math.inf) -> dict[str, int]:
        """Draw each unit's count from its grid, between `low` and `high` times its base, or the nearest to these."""
        channels = {}
        for name, space in self.units.items():
            least, most = low * space.unit.base, high * space.unit.base
            fitting = [count for count in space.counts if least <= count <= most]
            if not fitting:
                fitting = [min(space.counts, key=lambda count: max(least - count, count - most))]
            channels[name] = rng.choice(fitting)
        return channels

    def slimmed(self, channels: Channels, unit: str) -> int | None:
        """Return the next smaller count of a unit, None at its smallest."""
        counts = self.units[unit].counts
        place = bisect.bisect_left(counts, channels[unit])
        return counts[place - 1] if place > 0 else None

    def grown(self, channels: Channels, unit: str) -> int | None:
        """Return the next larger count of a unit, None at its largest."""
        counts = self.units[unit].counts
        place = bisect.bisect_right(counts, channels[unit])
        return counts[place] if place < len(counts) else None

    def moved(self, channels: Channels, unit: str, quanta: int) -> int | None:
        """Return the count of a unit some quanta up or down, None beyond its smallest or largest.

        From a count between multiples of the quantum, as a base network may have, the first quantum leads to the next
        multiple; the smallest and the largest may lie between them, too.
        """
        space, quantum = self.units[unit], self.units[unit].quantum
        below = channels[unit] // quantum * quantum
        count = below + (quanta + (quanta < 0 and below < channels[unit])) * quantum
        if quanta > 0:
            is_out = max(count - quantum, channels[unit]) >= space.largest
        else:
            is_out = min(count + quantum, channels[unit]) <= space.smallest
        if len(space.counts) == 1 or is_out:
            return None
        return min(max(count, space.smallest), space.largest)

    def check(self, channels: Channels, where: str, *, bounded: bool = True) -> dict[str, int]:
        """Return the channels in the network's order, pinned units filled in, and of tied units one.

        `bounded` also refuses counts beyond the supernet's. Raises UsageError naming the unit, the count and the range.
        """
        channels = self._joined(channels, where)
        for name in channels:
            if name not in self.units:
                meant = f"; {hint(name, self.units)}" if self.units else ", which has none: model.name builds another"
                raise UsageError(f"{where}: no unit {name!r} in this network{meant}")
        if missing := [name for name, one in self.units.items() if one.unit.pinned is None and name not in channels]:
            which = f"unit {missing[0]!r} is" if len(missing) == 1 else f"units {listed(list(map(repr, missing)))} are"
            raise UsageError(f"{where}: {which} missing: write a count for each")
        complete = {}
        for name, space in self.units.items():
            unit = space.unit
            if unit.pinned is not None:
                count = channels.get(name, unit.base)
                if count != unit.base:
                    raise UsageError(f"{where}: unit {name!r} is pinned at {unit.base} ({unit.pinned}), not {count}")
            else:
                count = channels[name]
                top = space.largest if bounded else unit.base if unit.capped else MOST
                if count < unit.granule or count % unit.granule or count > top:
                    span = f"{unit.granule}..{top}"
                    multiples = f" in multiples of {unit.granule}" if unit.granule > 1 else ""
                    capped = f" ({unit.capped})" if unit.capped and count > top else ""
                    raise UsageError(
                        f"{where}: unit {name!r} has {count} channels; the range is {span}{multiples}{capped}"
                    )
            complete[name] = count
        return complete

    def spelled_out(self, channels: Channels) -> dict[str, int]:
        """Return the channels with those of all tied units: what the network has that is read without the ties."""
        return {
            name: count
            for unit, count in channels.items()
            for name in (unit, *(self.units[unit].unit.tied if unit in self.units else ()))
        }

    def _joined(self, channels: Channels, where: str) -> dict[str, int]:
        """Return the channels with those of tied units under one name.

        Raises UsageError where they differ, and for one that is no whole number.
        """
        heirs = {name: unit for unit, space in self.units.items() for name in space.unit.tied}
        joined: dict[str, int] = {}
        for name, count in channels.items():
            unit = heirs.get(name, name)
            if not hasattr(count, "__index__"):
                raise UsageError(f"{where}: unit {name!r} has {count!r} channels, where a whole number was expected")
            if joined.setdefault(unit, count) != count:
                raise UsageError(
                    f"{where}: unit {name!r} has {count} channels and {unit!r} has {joined[unit]}, but space.tie makes "
                    "them equal"
                )
        return joined
