"""Draw the networks that are run as a whole."""

from autoslim_cli.recipe.schema import SupernetSettings
from autoslim_cli.seeds import python_random
from autoslim_cli.slimming.space import Space


def random_channels(space: Space, supernet: SupernetSettings, seed: int, number: int) -> dict[str, int]:
    """Return random channels around a random width, the same ones for a seed and a number.

    So all latencies occur that a search may meet, not those at the middle alone.
    """
    rng = python_random(seed, "latency", number)
    width = rng.uniform(supernet.min_width, supernet.width)
    return space.random(rng, low=0.6 * width, high=1.4 * width)
