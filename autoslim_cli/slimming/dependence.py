"""Find what a candidate must compute itself: what depends on the counts that it changes by more than a slice."""

from functools import cache

from torch import fx

from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels
from autoslim_cli.slimming.candidate import Candidate


class Dependence:
    """The nodes of a graph that depend on the counts of units, unit by unit."""

    def __init__(self, reading: Reading) -> None:
        self.nodes: list[fx.Node] = list(reading.graph.nodes)
        self.layouts, self.mixing = reading.layouts, reading.mixing
        self._departing_by_unit = cache(self._departing)
        self._recomputed_by_unit = cache(self._recomputed)

    def departing(self, candidate: Candidate, channels: Channels) -> set[fx.Node]:
        """Return the nodes at which what a candidate computes first differs from what `channels` compute."""
        changes = candidate.changes
        return set().union(*(self._departing_by_unit(unit, count > channels[unit]) for unit, count in changes))

    def recomputed(self, candidate: Candidate, channels: Channels) -> set[fx.Node]:
        """Return the nodes that a candidate computes itself: those at which it departs, and all that follow."""
        changes = candidate.changes
        return set().union(*(self._recomputed_by_unit(unit, count > channels[unit]) for unit, count in changes))

    def _departing(self, unit: str, grows: bool) -> frozenset[fx.Node]:
        """Find the nodes that mix a unit's channels, or read a size that depends on them; or all that hold them."""

        def holds(node: fx.Node) -> bool:
            return any(segment.unit == unit for segment in self.layouts.get(node, (0, ()))[1])

        return frozenset(
            node
            for node in self.nodes[:-1]
            if (grows and holds(node))
            or ((node in self.mixing or node not in self.layouts) and any(map(holds, node.all_input_nodes)))
        )

    def _recomputed(self, unit: str, grows: bool) -> frozenset[fx.Node]:
        """Find the nodes that depend on a unit's count by more than a slice."""
        found = set(self._departing_by_unit(unit, grows))
        for node in self.nodes[:-1]:
            if not found.isdisjoint(node.all_input_nodes):
                found.add(node)
        return frozenset(found)
