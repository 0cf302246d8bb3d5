"""Study what a search is worth: strategies on fresh images, and what they find retrained from scratch.

ResNet-14 with a stem of stride 2 (6.7M FLOPs) on CIFAR-10 images (data/cifar10-jpeg; `make smoke` unpacks them where
they are at hand). 10,000 training images never train a supernet: searches use up to 5,000 of them, the other 5,000 are
the fresh images that judge what was found. Everything made lies in runs/study; every stage skips what is there.

    python benchmarks/study.py train      the supernets, one for each seed
    python benchmarks/study.py search     every variant of the search on every supernet
    python benchmarks/study.py retrain    found, uniform and random networks from scratch
    python benchmarks/study.py rank       how this and otherwise trained supernets rank the retrained networks
    python benchmarks/study.py batches    the same networks scored in smaller batches, whose BN statistics are coarser
    python benchmarks/study.py report     the tables of docs/search.md

About four hours on two CPU cores in all. `--seeds 0` does one seed; processes with different --seeds or --shard run
side by side (with one thread and one core each).
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path("runs/study")
SHARES = (75, 50, 25)
JUDGED = 25  # per cent of the base network's FLOPs at which networks are retrained
SEARCHED, FRESH = 5000, 5000
BATCH = 1000
RECIPE = """\
format: autoslim.recipe/1
about: ResNet-14 with a stem of stride 2 on CIFAR-10 images, for the study of searches
seed: {seed}
model:
  name: autoslim/cifar_resnet
  args: {{depth: 14, stem_stride: 2}}
  input: [3, 32, 32]
  classes: 10
data:
  name: image-folder
  path: ../../../data/cifar10-jpeg
  holdout: 10000
  mean: [0.4914, 0.4822, 0.4465]
  std: [0.2470, 0.2435, 0.2616]
  augment: {{crop: pad, padding: 4, flip: true}}
space: {{groups: 12, divisor: 2}}
supernet: {{width: 1.5, min_width: 0.15, samples: 4}}
train: {{epochs: {epochs}, batch: 128, lr: 0.1, weight_decay: 5.0e-4, warmup: 0.1}}
calibrate: {{images: 4000, batch: 1000}}
search: {{batch: 1000}}
retrain: {{epochs: 12, batch: 128, lr: 0.1, weight_decay: 5.0e-4, warmup: 0.1}}
"""
EPOCHS = 12

BASELINE = {"strategy": "lazy", "images": 2000, "refresh": 20, "among": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    # What every candidate at every step gives, by images per score.
    "exact, 500": {"strategy": "exact", "images": 500},
    "exact, 2000": {"strategy": "exact", "images": 2000},
    "exact, 500 anew": {"strategy": "exact", "images": 500, "draw": "anew"},
    # Fewer evaluations.
    "lazy": BASELINE,
    "lazy, one at a time": {**BASELINE, "among": 1},
    "lazy, three at a time": {**BASELINE, "among": 3},
    "lazy, refresh 5": {**BASELINE, "refresh": 5},
    "lazy, no refresh": {**BASELINE, "among": 1, "refresh": 1000},
    # Images.
    "lazy, 500": {**BASELINE, "images": 500},
    "lazy, 5000": {**BASELINE, "images": 5000},
    "lazy, 500 anew": {**BASELINE, "images": 500, "draw": "anew"},
    "lazy, 2000 anew": {**BASELINE, "draw": "anew"},
    # Score and finish.
    "lazy, top1": {**BASELINE, "score": "top1"},
    "lazy, per FLOP": {**BASELINE, "per_flop": True},
    "lazy, 2000 anew, per FLOP": {**BASELINE, "draw": "anew", "per_flop": True},
    "exact, 2000, per FLOP": {"strategy": "exact", "images": 2000, "per_flop": True},
    "lazy, pace 0.002": {**BASELINE, "pace": 0.002},
    "lazy, backfill": {**BASELINE, "backfill": True},
    "lazy, refine": {**BASELINE, "refine": 10},
    # What a search must beat.
    "random, best of 100": {"strategy": "random", "images": 2000, "draws": 100},
    "uniform": {"strategy": "uniform", "images": 2000},
}
OTHERS = {
    "4 epochs": ["train.epochs=4"],
    "4 epochs, one width for all units": ["train.epochs=4", "supernet.sampling=uniform"],
    "4 epochs, no distillation": ["train.epochs=4", "supernet.distill=false"],
}
RETRAINED = ("uniform", "random, best of 100", "exact, 2000", "lazy", "lazy, per FLOP")
RANDOM = 12


def place(seed: int) -> Path:
    """Return the recipe directory of a seed, made if it is not there."""
    directory = HERE / f"seed-{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "recipe.yaml").exists():
        (directory / "recipe.yaml").write_text(RECIPE.format(seed=seed, epochs=EPOCHS))
    return directory


def open_shop(seed: int, other: str | None = None) -> Any:
    """Open the recipe of a seed, or of a supernet that is trained otherwise."""
    from autoslim_cli.cli.options import open_workshop

    if other is None:
        return open_workshop(str(place(seed)), ())
    directory = place(seed).with_name(f"seed-{seed}-{list(OTHERS).index(other)}")
    directory.mkdir(exist_ok=True)
    (directory / "recipe.yaml").write_text((place(seed) / "recipe.yaml").read_text())
    return open_workshop(str(directory), OTHERS[other])


def rows_of(seed: int, name: str) -> list[dict[str, Any]]:
    """Return the lines of one of a seed's result files."""
    path = HERE / f"seed-{seed}" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_row(seed: int, name: str, row: dict[str, Any]) -> None:
    """Add a line to one of a seed's result files."""
    with (place(seed) / name).open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps({key: value for key, value in row.items() if key != "channels"}), flush=True)


# -- search ---------------------------------------------------------------------------------------------------------


class Bench:
    """One supernet, its holdout and its fresh images; what was scored once is not scored again."""

    def __init__(self, seed: int, other: str | None = None) -> None:
        from autoslim_cli.network.forked import ForkedEvaluator

        self.seed, self.shop = seed, open_shop(seed, other)
        self.evaluator = ForkedEvaluator(self.shop.load_supernet())
        self.holdout = self.shop.holdout.first(SEARCHED)
        self.fresh = self.shop.holdout.only(self.shop.holdout.indices[SEARCHED : SEARCHED + FRESH])
        self.scored: dict[Any, Any] = {}
        base = self.shop.flops(self.shop.reading.table.base)
        self.limits = {share: base * share // 100 for share in SHARES}

    def scorer(self, settings: Any, images: Any, batch: int = BATCH) -> Any:
        """Return a scorer of some images."""
        from autoslim_cli.stages.scorer import Scorer
        from autoslim_cli.training.distributed import Ranks

        return Scorer(self.evaluator, images, settings, seed=self.seed, ranks=Ranks(), most=batch)

    def search(self, name: str) -> Iterator[dict[str, Any]]:
        """Run one variant; yield a row for every budget."""
        from autoslim_cli.cost.budget import Bound, Budget
        from autoslim_cli.files.recipe import SearchSettings
        from autoslim_cli.stages.search_log import key
        from autoslim_cli.strategies import STRATEGIES, Answer, Problem

        settings = SearchSettings(**VARIANTS[name])
        scorer = self.scorer(settings, self.holdout)
        asked: set[Any] = set()
        work = 0

        def ask(channels: Any, candidates: Sequence[Any], draw: int) -> Any:
            nonlocal work
            draw = draw if scorer.anew else 0
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

        budgets = tuple(Budget((Bound("flops", f"{s}%", limit),)) for s, limit in self.limits.items())
        problem = Problem(self.shop.space, self.shop.cost, budgets, settings, self.seed)
        for event in STRATEGIES[settings.strategy](problem, ask):
            if isinstance(event, Answer):
                share = SHARES[budgets.index(event.budget)]
                yield {
                    "variant": name,
                    "share": share,
                    "channels": event.channels,
                    "flops": self.shop.flops(event.channels),
                    "believed": event.score.loss,
                    **self.judge(event.channels),
                    "evaluations": len(asked),
                    "multiply_adds": work,
                }

    def judge(self, channels: dict[str, int]) -> dict[str, float]:
        """Return loss and top-1 on the fresh images, with batch statistics and with calibrated ones."""
        from autoslim_cli.files.recipe import SearchSettings
        from autoslim_cli.stages.calibrate_bn import calibration_batches
        from autoslim_cli.strategies.problem import CURRENT
        from autoslim_cli.training.measure import calibrate, evaluate

        scorer = self.scorer(SearchSettings(images=FRESH), self.fresh)
        score = scorer.score(channels, [CURRENT], 0)[CURRENT]
        self.evaluator.supernet.activate(channels)
        network = self.evaluator.supernet.extract(channels)
        calibrate(network, calibration_batches(self.shop, 4000))
        calibrated = evaluate(network, self.fresh.evaluation(BATCH))
        return {
            "loss": score.loss,
            "top1": score.top1,
            "calibrated_loss": calibrated.loss,
            "calibrated_top1": calibrated.top1,
        }


def search(options: argparse.Namespace) -> None:
    """Run the variants that have no result yet."""
    for seed in options.seeds:
        bench = Bench(seed)
        for name in options.variants or VARIANTS:
            done = {(row["variant"], row["share"]) for row in rows_of(seed, "found.jsonl")}
            if all((name, share) in done for share in SHARES):
                continue
            for row in bench.search(name):
                add_row(seed, "found.jsonl", row)


# -- retrain --------------------------------------------------------------------------------------------------------


def networks(seed: int) -> dict[str, dict[str, int]]:
    """Return the networks of a seed that are retrained: what was found, and on the first seed random ones."""
    found = {row["variant"]: row["channels"] for row in rows_of(seed, "found.jsonl") if row["share"] == JUDGED}
    if seed:
        return {name: found[name] for name in RETRAINED if name in found}
    from autoslim_cli.cost.budget import Bound, Budget
    from autoslim_cli.files.recipe import SearchSettings
    from autoslim_cli.strategies.problem import Problem
    from autoslim_cli.strategies.sampling import draw

    shop = open_shop(seed)
    limit = shop.flops(shop.reading.table.base) * JUDGED // 100
    budget = Budget((Bound("flops", f"{JUDGED}%", limit),))
    problem = Problem(shop.space, shop.cost, (budget,), SearchSettings(), seed)
    drawn = {f"random {number}": draw(problem, budget, 1000 + number) for number in range(RANDOM)}
    return {**{name: found[name] for name in RETRAINED if name in found}, **drawn, **found}


def retrain(options: argparse.Namespace) -> None:
    """Train from scratch, each distinct network once for each of its seeds, and score it by the supernet."""
    from autoslim_cli.stages.retrain import retrain as stage

    for seed in options.seeds:
        shop, bench = open_shop(seed), Bench(seed)
        trained = {json.dumps(row["channels"]) for row in rows_of(seed, "retrained.jsonl")}
        jobs: dict[str, str] = {}
        for name, channels in networks(seed).items():
            jobs.setdefault(json.dumps(channels), name)
        mine = [(name, text) for text, name in jobs.items()][options.shard :: options.shards]
        for name, text in mine:
            if text in trained:
                continue
            channels = json.loads(text)
            result = stage(shop, f"study-{name}", channels, resume=True)
            judged = bench.judge(channels)
            row = {"network": name, "channels": channels, "flops": result["flops"], "test_top1": result["top1"]}
            add_row(seed, "retrained.jsonl", {**row, "test_loss": result["loss"], "supernet": judged})


# -- rank ----------------------------------------------------------------------------------------------------------


def rank(options: argparse.Namespace) -> None:
    """Score every retrained network by the first seed's supernet, and by supernets that are trained otherwise."""
    from autoslim_cli.stages.train_supernet import train_supernet

    for other in ("12 epochs", *OTHERS):
        if other in OTHERS:
            train_supernet(open_shop(0, other), resume=True)
        bench = Bench(0, other if other in OTHERS else None)
        scored = {json.dumps(row["channels"]) for row in rows_of(0, "ranked.jsonl") if row["other"] == other}
        for row in (row for seed in options.seeds for row in rows_of(seed, "retrained.jsonl")):
            if (text := json.dumps(row["channels"])) not in scored:
                scored.add(text)
                facts = {"other": other, "network": row["network"], "channels": row["channels"]}
                add_row(0, "ranked.jsonl", {**facts, "supernet": bench.judge(row["channels"])})


# -- batches --------------------------------------------------------------------------------------------------------


def batches(options: argparse.Namespace) -> None:
    """Score the retrained networks of a seed in batches of several sizes, each with its own BN statistics."""
    from scipy.stats import kendalltau

    from autoslim_cli.files.recipe import SearchSettings
    from autoslim_cli.strategies.problem import CURRENT

    for seed in options.seeds:
        bench = Bench(seed)
        channels = [row["channels"] for row in rows_of(seed, "retrained.jsonl")]
        losses = {}
        for size in (FRESH, 1000, 500, 250, 100):
            scorer = bench.scorer(SearchSettings(images=FRESH), bench.fresh, batch=size)
            losses[size] = [scorer.score(c, [CURRENT], 0)[CURRENT].loss for c in channels]
            shift = statistics.mean(a - b for a, b in zip(losses[size], losses[FRESH], strict=True))
            tau = kendalltau(losses[size], losses[FRESH]).statistic
            print(f"seed {seed}, batches of {size}: loss {shift:+.4f}, Kendall {tau:.3f} over {len(channels)} networks")


# -- report ---------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 3, scale: float = 1.0, *, sign: bool = False) -> str:
    """Write a mean and its deviation; `sign`: of differences."""
    if not values:
        return ""
    deviation = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    mean = scale * statistics.mean(values)
    return (f"{mean:+.{digits}f}" if sign else f"{mean:.{digits}f}") + deviation


REFERENCE = "exact, 2000"


def report(options: argparse.Namespace) -> None:
    """Print the tables."""
    found = {seed: rows_of(seed, "found.jsonl") for seed in options.seeds}
    rows = {(seed, row["variant"], row["share"]): row for seed, some in found.items() for row in some}
    reference = {
        (s, share): rows[s, REFERENCE, share] for s in found for share in SHARES if (s, REFERENCE, share) in rows
    }
    heads = [
        *(f"{share} %" for share in SHARES),
        f"believed at {SHARES[-1]} %",
        "evaluations",
        "of its multiply-adds",
        "seeds",
    ]
    print(f"Loss on fresh images of {REFERENCE!r}; of the others, what they add to it on the same supernet.\n")
    print(f"| variant | {' | '.join(heads)} |\n{'| --- ' * (len(heads) + 1)}|")
    for name in VARIANTS:
        seeds = [seed for seed in found if (seed, name, SHARES[-1]) in rows and (seed, SHARES[-1]) in reference]
        if not seeds:
            continue
        cells = []
        for share in SHARES:
            losses = [rows[seed, name, share]["loss"] for seed in seeds]
            if name != REFERENCE:
                losses = [loss - reference[s, share]["loss"] for s, loss in zip(seeds, losses, strict=True)]
            cells.append(spread(losses, sign=name != REFERENCE))
        last = [rows[seed, name, SHARES[-1]] for seed in seeds]
        cells.append(spread([row["believed"] - row["loss"] for row in last], sign=True))
        cells.append(f"{statistics.mean(row['evaluations'] for row in last):.0f}")
        shares = [
            row["multiply_adds"] / reference[s, SHARES[-1]]["multiply_adds"] for s, row in zip(seeds, last, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} | {statistics.mean(shares):.0%} | {len(seeds)} |")
    report_retrained({seed: rows_of(seed, "retrained.jsonl") for seed in options.seeds}, found)


def report_retrained(trained: dict[int, list[dict[str, Any]]], found: dict[int, list[dict[str, Any]]]) -> None:
    """Print what retraining gives, and how the supernet's scores rank it."""
    print(f"\n| retrained at {JUDGED} % | test top-1 | against uniform | supernet's loss | seeds |\n{'| --- ' * 5}|")
    plain = {
        seed: next((r["test_top1"] for r in rows if r["network"] == "uniform"), None) for seed, rows in trained.items()
    }
    for name in RETRAINED:
        tops, losses, gains = [], [], []
        for seed, rows in trained.items():
            wanted = [r["channels"] for r in found[seed] if (r["variant"], r["share"]) == (name, JUDGED)]
            for row in rows:
                if row["channels"] in wanted:
                    tops.append(row["test_top1"])
                    losses.append(row["supernet"]["loss"])
                    gains += [row["test_top1"] - plain[seed]] if plain[seed] is not None else []
        if tops:
            gain = spread(gains, 1, 100, sign=True)
            print(f"| {name} | {spread(tops, 1, 100)} | {gain} | {spread(losses)} | {len(tops)} |")
    drawn = [row for row in trained.get(0, []) if row["network"].startswith("random ")]
    if drawn:
        tops, losses = [r["test_top1"] for r in drawn], [r["supernet"]["loss"] for r in drawn]
        print(f"| random, {len(drawn)} networks | {spread(tops, 1, 100)} | | {spread(losses)} | 1 |")
    print("\n| supernet | networks | scored by | Kendall | Spearman |\n| --- | --- | --- | --- | --- |")
    several: dict[str, list[float]] = {}
    for row in (row for rows in trained.values() for row in rows):
        several.setdefault(json.dumps(row["channels"]), []).append(row["test_top1"])
    tops = {channels: statistics.mean(values) for channels, values in several.items()}
    for other in ("12 epochs", *OTHERS):
        scored = {json.dumps(r["channels"]): r for r in rows_of(0, "ranked.jsonl") if r["other"] == other}
        ranked(other, "all", tops, scored)
        ranked(other, "random alone", tops, {k: r for k, r in scored.items() if r["network"].startswith("random ")})


def ranked(supernet: str, group: str, trained: dict[str, float], scored: dict[str, Any]) -> None:
    """Print the rank correlations of a supernet's scores with the test top-1 after retraining."""
    from scipy.stats import kendalltau, spearmanr

    names = [name for name in scored if name in trained]
    if len(names) < 5:
        return
    tops = [trained[name] for name in names]
    for key, sign in (("loss", -1), ("top1", 1), ("calibrated_loss", -1), ("calibrated_top1", 1)):
        scores = [sign * scored[name]["supernet"][key] for name in names]
        tau, rho = kendalltau(scores, tops).statistic, spearmanr(scores, tops).statistic
        print(f"| {supernet} | {group}, {len(names)} | {key} | {tau:.2f} | {rho:.2f} |")


def train(options: argparse.Namespace) -> None:
    """Train the supernets."""
    from autoslim_cli.stages.train_supernet import train_supernet

    for seed in options.seeds:
        print(json.dumps(train_supernet(open_shop(seed), resume=True)["widths"]), flush=True)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = {
        "train": train,
        "search": search,
        "retrain": retrain,
        "rank": rank,
        "batches": batches,
        "report": report,
    }
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    options = parser.parse_args()
    stages[options.stage](options)


if __name__ == "__main__":
    main()
