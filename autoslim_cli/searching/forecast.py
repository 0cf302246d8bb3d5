"""Foresee what a search takes: run its strategy on scores that a formula gives."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from autoslim_cli.network.table import Channels
from autoslim_cli.searching.problem import SCREEN, WHOLE, Answer, Ask, Problem, Step
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.training.score import Score


@dataclass(frozen=True)
class Forecast:
    """Steps, evaluations, and forward passes of the supernet that cost as much."""

    steps: int
    evaluations: int
    passes: float


def foresee(
    problem: Problem, strategy: Callable[[Problem, Ask], Iterator[Step | Answer]], whole: float = 1.0
) -> Forecast:
    """Return a forecast of a search in which harms rise evenly, so that all units shrink alike.

    A scoring of n candidates is taken for one shared pass and half a pass for each; one on the whole holdout is `whole`
    times as many images.
    """
    space, asked, passes = problem.space, set[tuple[int, ...]](), 0.0
    anew = problem.settings.draw == "anew"
    largest = problem.cost(space.largest)["flops"]

    def ask(channels: Channels, candidates: Sequence[Candidate], draw: int) -> dict[Candidate, Score]:
        nonlocal passes
        of = draw if anew or draw == SCREEN else WHOLE
        points = {c: (of, *c.applied(channels).values()) for c in candidates}
        new = set(points.values()) - asked
        work = (0.5 + 0.5 * len(new)) * problem.cost(channels)["flops"] / largest if new else 0.0
        passes += work * (whole if draw == WHOLE else problem.settings.screen if draw == SCREEN else 1.0)
        asked.update(new)
        return {c: _even(problem, c.applied(channels)) for c in candidates}

    steps = sum(isinstance(event, Step) for event in strategy(problem, ask))
    return Forecast(steps, len(asked), passes)


def _even(problem: Problem, channels: Channels) -> Score:
    """Return a loss that rises ever faster the further a unit is from its largest count."""
    loss = sum((1 - channels[name] / unit.largest) ** 2 for name, unit in problem.space.units.items())
    return Score(loss, 0.0)
