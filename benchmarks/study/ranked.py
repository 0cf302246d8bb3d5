"""Score the retrained networks by other supernets, and in other batches."""

import json
import statistics
from collections.abc import Sequence

from found import Bench
from plan import CHOSEN, FRESH, OTHERS, OWN, add_row, open_seed, rows_of


def rank(seeds: Sequence[int], others: Sequence[str], supernet: int = 0) -> None:
    """Score the networks retrained for some seeds by the supernet of one, and by supernets trained otherwise."""
    from autoslim_cli.stages.train_base import train_base
    from autoslim_cli.stages.train_supernet import train_supernet

    for other in (OWN, *others):
        if other in OTHERS:
            project = open_seed(supernet, other)
            if project.recipe.base:
                train_base(project, resume=True)
            train_supernet(project, resume=True)
        bench = Bench(supernet, other if other in OTHERS else None)
        scored = {json.dumps(row["channels"]) for row in rows_of(supernet, "ranked.jsonl") if row["other"] == other}
        for row in (row for seed in seeds for row in rows_of(seed, "retrained.jsonl")):
            text = json.dumps(row["channels"])
            inside = all(row["channels"][name] <= count for name, count in bench.project.network.space.largest.items())
            if text not in scored and inside:
                scored.add(text)
                facts = {name: row[name] for name in ("network", "share", "channels")} | {"other": other}
                add_row(supernet, "ranked.jsonl", {**facts, "supernet": bench.judge(row["channels"])})


def batches(seeds: Sequence[int]) -> None:
    """Score the retrained networks of a seed in batches of several sizes, each with its own BN statistics."""
    from scipy.stats import kendalltau

    from autoslim_cli.recipe.schema import SearchSettings
    from autoslim_cli.slimming.candidate import CURRENT

    for seed in seeds:
        bench = Bench(seed)
        rows = [row for row in rows_of(seed, "retrained.jsonl") if row["share"] == CHOSEN.base.judged[0]]
        channels = list({json.dumps(row["channels"]): row["channels"] for row in rows}.values())
        losses = {}
        for size in (FRESH, 1000, 500, 250, 100):
            scorer = bench.scorer(SearchSettings(images=FRESH), bench.fresh, batch=size)
            losses[size] = [scorer.score(c, [CURRENT], 0)[CURRENT].loss for c in channels]
            shift = statistics.mean(a - b for a, b in zip(losses[size], losses[FRESH], strict=True))
            tau = kendalltau(losses[size], losses[FRESH]).statistic
            print(f"seed {seed}, batches of {size}: loss {shift:+.4f}, Kendall {tau:.3f} over {len(channels)} networks")
