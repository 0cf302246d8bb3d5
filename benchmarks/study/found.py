"""Search on the supernets, and judge what is found on fresh images."""

from collections.abc import Iterator, Sequence
from typing import Any

from plan import BATCH, FRESH, OWN, SEARCHED, VARIANTS, add_row, found_rows, open_seed, shares_of


class Bench:
    """One supernet, its holdout and its fresh images; what was scored once is not scored again."""

    def __init__(self, seed: int, other: str | None = None) -> None:
        from autoslim_cli.slimming.forks import ForkedEvaluator
        from autoslim_cli.stages.project import load_supernet
        from autoslim_cli.training.tasks import classification

        self.task = classification(10)
        self.seed, self.project = seed, open_seed(seed, other)
        self.evaluator = ForkedEvaluator(load_supernet(self.project))
        holdout = self.project.images.holdout
        self.holdout = holdout.take(SEARCHED)
        self.fresh = holdout.select(holdout.indices[SEARCHED : SEARCHED + FRESH])
        self.scored: dict[Any, Any] = {}

    def scorer(self, settings: Any, images: Any, batch: int = BATCH) -> Any:
        """Return a scorer of some images."""
        from autoslim_cli.searching.scorer import Scorer
        from autoslim_cli.training.distributed import Ranks

        return Scorer(self.evaluator, images, settings, task=self.task, seed=self.seed, ranks=Ranks(), most=batch)

    def search(self, name: str) -> Iterator[dict[str, Any]]:
        """Run one variant; yield a row for every share of the base network's FLOPs."""
        from autoslim_cli.cost.budget import Bound, Budget

        base = self.project.costs["flops"](self.project.network.base)
        shares = {Budget((Bound("flops", f"{s}%", base * s // 100),)): s for s in shares_of(name)}
        for answer, facts in self.answers(name, tuple(shares)):
            yield {"variant": name, "share": shares[answer.budget], **facts}

    def answers(self, name: str, budgets: tuple[Any, ...]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Run one variant to some budgets; yield each answer, and what is known of it."""
        from autoslim_cli.recipe.schema import SearchSettings
        from autoslim_cli.searching import STRATEGIES, Answer, Problem
        from autoslim_cli.searching.log import key

        settings = SearchSettings(**VARIANTS[name])
        scorer = self.scorer(settings, self.holdout)
        asked: set[Any] = set()
        work = 0

        def ask(channels: Any, candidates: Sequence[Any], draw: int) -> Any:
            nonlocal work
            draw = scorer.draw_of(draw)
            keys = {c: (settings.images, settings.draw, *key(channels, c, draw)) for c in candidates}
            new = [c for c in candidates if keys[c] not in asked]
            parts = [self.evaluator.work(c, channels) for c in new]
            images = scorer.images_of(draw)
            work += images * (max((shared for shared, _ in parts), default=0) + sum(own for _, own in parts))
            asked.update(keys.values())
            if missing := [c for c in candidates if keys[c] not in self.scored]:
                for candidate, score in scorer.score(channels, missing, draw).items():
                    self.scored[keys[candidate]] = score
            return {c: self.scored[keys[c]] for c in candidates}

        problem = Problem(self.project.network.space, self.project.costs, budgets, settings, self.seed)
        for event in STRATEGIES[settings.strategy](problem, ask):
            if isinstance(event, Answer):
                yield (
                    event,
                    {
                        "channels": event.channels,
                        "flops": self.project.costs["flops"](event.channels),
                        "believed": event.score.loss,
                        **self.judge(event.channels),
                        "evaluations": len(asked),
                        "multiply_adds": work,
                    },
                )

    def judge(self, channels: dict[str, int]) -> dict[str, float]:
        """Return loss and top-1 on the fresh images, with batch statistics and with calibrated ones."""
        from autoslim_cli.recipe.schema import SearchSettings
        from autoslim_cli.slimming.candidate import CURRENT
        from autoslim_cli.training.measure import calibrate, calibration_batches, evaluate

        scorer = self.scorer(SearchSettings(images=FRESH), self.fresh)
        score = scorer.score(channels, [CURRENT], 0)[CURRENT]
        self.evaluator.supernet.activate(channels)
        network = self.evaluator.supernet.extract(channels)
        calibrate(network, calibration_batches(self.project.images.training, 4000, BATCH))
        calibrated = evaluate(network, self.fresh.evaluation(BATCH), self.task)
        return {
            "loss": score.loss,
            "top1": score.value,
            "calibrated_loss": calibrated.loss,
            "calibrated_top1": calibrated.value,
        }


def search(seeds: Sequence[int], variants: Sequence[str], other: str = OWN) -> None:
    """Run the variants that have no result yet, on each seed's supernet, or on one that is trained otherwise."""
    for seed in seeds:
        bench = Bench(seed, None if other == OWN else other)
        for name in variants:
            done = {(row["variant"], row["share"]) for row in found_rows(seed, other)}
            if all((name, share) in done for share in shares_of(name)):
                continue
            for row in bench.search(name):
                if (name, row["share"]) not in done:
                    add_row(seed, "found.jsonl", {"other": other, **row})
