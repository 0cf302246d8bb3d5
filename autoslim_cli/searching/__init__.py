"""Choose channels: strategies that know spaces, costs and scores, and no tensors."""

from collections.abc import Callable, Iterator

from autoslim_cli.searching.greedy import exact, lazy, paper
from autoslim_cli.searching.magnitude import magnitude
from autoslim_cli.searching.problem import Answer, Ask, Problem, Step
from autoslim_cli.searching.sampling import random, uniform

Strategy = Callable[[Problem, Ask], Iterator[Step | Answer]]
"""Yield every step as it is decided, and one answer for each budget, largest first."""

STRATEGIES: dict[str, Strategy] = {
    "exact": exact,
    "lazy": lazy,
    "magnitude": magnitude,
    "paper": paper,
    "random": random,
    "uniform": uniform,
}

__all__ = ["STRATEGIES", "Answer", "Ask", "Problem", "Step", "Strategy"]
