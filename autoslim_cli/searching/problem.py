"""Say what a strategy is given, what it asks, and what it yields."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from autoslim_cli.cost.budget import Budget, Cost
from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.schema import SearchSettings
from autoslim_cli.slimming.candidate import CURRENT, Candidate
from autoslim_cli.slimming.space import Space
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import NOISE

Harm = tuple[float, float]
"""What a candidate costs, and what settles ties: less is better, below zero is a gain."""

WHOLE = 0
"""The draw of images that is all of them; draws of slimming steps start at one."""

SCREEN = -1
"""The draw that is the first `search.screen` of all images: enough to tell which candidates are worth a look."""

Ask = Callable[[Channels, Sequence[Candidate], int], dict[Candidate, Score]]
"""Score candidates of some channels on one draw of the holdout; what was scored before costs nothing."""


@dataclass(frozen=True)
class Step:
    """One decision: which counts change, (unit, before, after), where that leads, and what it scores.

    `slim` and `fill` take a group from a unit or give one back, `move` does both; `draw`, `width` and `prune`
    try channels.
    """

    kind: str
    changes: tuple[tuple[str, int, int], ...]
    channels: dict[str, int]
    score: Score
    budget: Budget | None = None
    """The met budget that a fill or a move works on."""


@dataclass(frozen=True)
class Answer:
    """The channels that a strategy chose for a budget, scored on the whole holdout."""

    budget: Budget
    channels: dict[str, int]
    score: Score


@dataclass(frozen=True)
class Problem:
    """The space, what channels cost, the budgets, largest first, and how harm is judged."""

    space: Space
    cost: Callable[[Channels], Cost]
    budgets: tuple[Budget, ...]
    settings: SearchSettings
    seed: int = 0
    noise: tuple[float, float] = (NOISE, NOISE)
    """Differences of loss and of score that the holdout does not tell from none: `Task.noise`."""
    importance: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Of every channel of each free unit of the supernet, for `magnitude`."""

    def fits(self, budget: Budget, channels: Channels) -> bool:
        """Tell whether a budget holds at some channels."""
        return budget.holds(self.cost(channels))

    def slimmer(self, channels: Channels) -> list[Candidate]:
        """Return every unit that can still lose a group, less that."""
        options = ((name, self.space.slimmed(channels, name)) for name in self.space.units)
        return [Candidate.of({name: count}) for name, count in options if count is not None]

    def slimming(self, budget: Budget, channels: Channels) -> list[Candidate]:
        """Return the candidates of a slimming step: every unit that can still lose a group (AutoSlim, section 3.2).

        Latency may stay, or rise, where a unit loses a group: such a unit loses as many as save something. Units that
        save nothing at all are left out, unless nothing does: memory is a maximum, which no unit alone lowers where
        layers tie. A step then takes one group, of a unit that is part of the maximum (any, if there is none).
        """
        single = self.slimmer(channels)
        before = self.cost(channels)
        deeper = (self._saving(budget, channels, before, candidate) for candidate in single)
        hidden = (candidate for candidate in single if self._saved(budget, channels, candidate) > 0)
        return [candidate for candidate in deeper if candidate is not None] or list(hidden) or single

    def _saving(self, budget: Budget, channels: Channels, before: Cost, candidate: Candidate) -> Candidate | None:
        """Return the candidate, or its unit less as many groups as bring the budget nearer; None if none do."""
        (unit,) = candidate.units
        while not budget.saves(before, self.cost(candidate.applied(channels))):
            count = self.space.slimmed(candidate.applied(channels), unit)
            if count is None:
                return None
            candidate = Candidate.of({unit: count})
        return candidate

    def _saved(self, budget: Budget, channels: Channels, candidate: Candidate) -> float:
        """Return what a candidate saves of what is missing to a budget, as a share of it.

        Where that is nothing, it may be hidden by others that tie, and shows once they shrink, too: it is as much as
        further channels of the unit would add now.
        """
        before, after = self.cost(channels), self.cost(candidate.applied(channels))
        if not budget.saves(before, after):
            ((unit, count),) = candidate.changes
            granule = self.space.units[unit].unit.granule
            more = self.cost({**channels, unit: channels[unit] + granule})
            lost = (channels[unit] - count) / granule
            after = {measure: value - lost * (more[measure] - value) for measure, value in before.items()}
        return budget.saving(before, after)

    def larger(self, channels: Channels) -> list[Candidate]:
        """Return every unit that can take a group more."""
        options = ((name, self.space.grown(channels, name)) for name in self.space.units)
        return [Candidate.of({name: count}) for name, count in options if count is not None]

    def harm(self, score: Score, current: Score) -> Harm:
        """Return what channels lose against the current ones: the score with ties settled by loss, or the loss."""
        return self._judged((score.loss - current.loss, score.lost(current)))

    @property
    def noises(self) -> Harm:
        """Return the harms that are within the noise."""
        return self._judged(self.noise)

    def _judged(self, pair: tuple[float, float]) -> Harm:
        """Return what is of a loss and of a score, that first which `search.score` judges by."""
        return pair if self.settings.score == "loss" else pair[::-1]

    def rank(self, budget: Budget, candidate: Candidate, channels: Channels, harm: Harm) -> Harm:
        """Return what slimming candidates are compared by: harm, or harm per cost saved that the budget asks for."""
        if not self.settings.per_flop:
            return harm
        saved = self._saved(budget, channels, candidate)
        if saved <= 0:
            return math.inf, harm[0]
        first, second = (_per_saving(value, saved, noise) for value, noise in zip(harm, self.noises, strict=True))
        return first, second

    def worth(self, budget: Budget, candidate: Candidate, channels: Channels, harm: Harm) -> Harm:
        """Return what candidates that give channels back are compared by: harm per cost added, doubted by the noise."""
        added = self.used(budget, candidate.applied(channels)) - self.used(budget, channels)
        if added <= 0:  # latency may stay, or fall
            return -math.inf, harm[0]
        first, second = ((value + noise) / added for value, noise in zip(harm, self.noises, strict=True))
        return first, second

    def used(self, budget: Budget, channels: Channels) -> float:
        """Return the share of a budget that channels use, of several bounds the most; above 1 it does not hold."""
        return budget.used(self.cost(channels))

    def fillers(self, budget: Budget, channels: Channels) -> list[Candidate]:
        """Return every unit that can take channels within a budget: a group, or as many quanta of one as fit."""
        found = []
        for name in self.space.units:
            top = self.space.grown(channels, name)
            quanta = 0 if top is None else math.ceil((top - channels[name]) / self.space.units[name].quantum)
            counts = (self.space.moved(channels, name, number) for number in range(quanta, 0, -1))
            candidates = (Candidate.of({name: count}) for count in counts if count is not None)
            found += [next((c for c in candidates if self.fits(budget, c.applied(channels))), None)]
        return [candidate for candidate in found if candidate is not None]

    def step(
        self, kind: str, channels: Channels, candidate: Candidate, score: Score, budget: Budget | None = None
    ) -> Step:
        """Return the step that takes a candidate."""
        changes = tuple((unit, channels[unit], count) for unit, count in candidate.changes)
        return Step(kind, changes, candidate.applied(channels), score, budget)

    def score(self, ask: Ask, channels: Channels, draw: int = WHOLE) -> Score:
        """Return the score of the channels themselves."""
        return ask(channels, (CURRENT,), draw)[CURRENT]


def _per_saving(harm: float, saved: float, noise: float = NOISE) -> float:
    """Divide a harm by what it saves.

    A harm within the noise, or a gain, counts as next to none, the less the more is gained: continuous in both, and of
    two candidates that harm alike the one that saves more is always ahead.
    """
    smooth = math.hypot(harm, noise)
    positive = (smooth + harm) / 2 if harm > 0 else noise**2 / (smooth - harm) / 2  # the same, without cancellation
    return positive / saved
