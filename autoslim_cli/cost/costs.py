"""Hold what channels cost, by name: each cost is a function of channels that computes nothing twice."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from autoslim_cli.cost.closed_form import on_arrays
from autoslim_cli.network.table import Channels, LayerTable

CostOf = Callable[[Channels], float]

REMEMBERED = 2**17
"""Channels whose cost is remembered: those of a search of thousands of steps, in some hundred megabytes."""


@dataclass(frozen=True)
class Costs(Mapping[str, CostOf]):
    """The costs that a command bounds or reports: FLOPs and parameters always, others as they are asked for."""

    units: tuple[str, ...]
    of: Mapping[str, CostOf]

    @classmethod
    def closed_form(cls, table: LayerTable) -> "Costs":
        """Return FLOPs and parameters of a network that was read."""
        units = tuple(unit.name for unit in table.units)
        flops, params = on_arrays(table)
        return cls(units, {}).also("flops", flops).also("params", params)

    def also(self, name: str, cost: CostOf) -> "Costs":
        """Return these costs and another."""
        return Costs(self.units, {**self.of, name: remembered(cost, self.units)})

    def __call__(self, channels: Channels) -> dict[str, float]:
        """Return every cost of some channels: what each result says of a network."""
        return {name: cost(channels) for name, cost in self.of.items()}

    def __getitem__(self, name: str) -> CostOf:
        return self.of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.of)

    def __len__(self) -> int:
        return len(self.of)


def remembered(cost: CostOf, units: tuple[str, ...]) -> CostOf:
    """Return a cost that remembers its values by the counts of the units."""

    @lru_cache(REMEMBERED)
    def of_counts(counts: tuple[int, ...]) -> float:
        return cost(dict(zip(units, counts, strict=True)))

    return lambda channels: of_counts(tuple(channels[unit] for unit in units))
