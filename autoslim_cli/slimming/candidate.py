"""Name a change of the current channels that a search may take."""

from collections.abc import Mapping
from dataclasses import dataclass

from autoslim_cli.network.table import Channels


@dataclass(frozen=True)
class Candidate:
    """The current channels with some units at other counts; usually one unit, a group smaller."""

    changes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, changes: Mapping[str, int]) -> "Candidate":
        """Return the candidate of these changes."""
        return cls(tuple(sorted(changes.items())))

    @property
    def units(self) -> tuple[str, ...]:
        """Return the units that change."""
        return tuple(unit for unit, _ in self.changes)

    def lost(self, channels: Channels) -> int:
        """Return how many channels go, of all units that change."""
        return sum(channels[unit] - count for unit, count in self.changes)

    def applied(self, channels: Channels) -> dict[str, int]:
        """Return the channels with the changes."""
        return {**channels, **dict(self.changes)}


CURRENT = Candidate(())
"""The current channels as they are."""
