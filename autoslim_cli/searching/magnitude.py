"""Slim by the magnitude of weights alone, as pruning tools do. What a search must beat, or try as a rival."""

from collections.abc import Iterator

from autoslim_cli.network.table import Channels
from autoslim_cli.searching.finish import finish
from autoslim_cli.searching.problem import Answer, Ask, Problem, Step
from autoslim_cli.slimming.candidate import Candidate


def magnitude(problem: Problem, ask: Ask) -> Iterator[Step | Answer]:
    """Take the channels of least importance from the supernet, a quantum at a time, until each budget holds.

    A unit loses its last channels: in a supernet that started from sorted weights, those of least importance.
    """
    channels: Channels = problem.space.largest
    for budget in problem.budgets:
        while not problem.fits(budget, channels):
            fewer = ((name, problem.space.moved(channels, name, -1)) for name in problem.space.units)
            candidates = [Candidate.of({name: count}) for name, count in fewer if count is not None]
            best = min(candidates, key=lambda c: _importance(problem, channels, c))
            channels = best.applied(channels)
        yield Step("prune", (), dict(channels), problem.score(ask, channels))
        yield from finish(problem, ask, budget, channels)


def _importance(problem: Problem, channels: Channels, candidate: Candidate) -> float:
    """Return the mean importance of the channels that a candidate loses."""
    ((unit, count),) = candidate.changes
    lost = problem.importance[unit][count : channels[unit]]
    return sum(lost) / len(lost)
