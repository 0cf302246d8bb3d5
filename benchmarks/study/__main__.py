"""Study what a search is worth: strategies on fresh images, and what they find retrained from scratch.

ResNet-14 with a stem of stride 2 (6.7M FLOPs) on CIFAR-10 images (data/cifar10-jpeg; `make smoke` unpacks them where
they are at hand). 10,000 training images never train a supernet: searches use up to 5,000 of them, the other 5,000 are
the fresh images that judge what was found. Everything made lies in runs/study, its rows in benchmarks/results/study;
every stage skips what is there.

    python benchmarks/study train      the supernets, one for each seed
    python benchmarks/study search     every variant of the search on every supernet
    python benchmarks/study retrain    found, uniform and random networks from scratch, from several seeds each
    python benchmarks/study rank       how this and otherwise trained supernets rank the retrained networks
    python benchmarks/study batches    the same networks scored in smaller batches, whose BN statistics are coarser
    python benchmarks/study fast       a network found by latency beside one found by FLOPs that is as fast
    python benchmarks/study report     the tables of docs/searches.md and docs/latency.md

Train, search and retrain with `--other "12 epochs, budget-aware"` compare two ways of drawing random sub-networks.

About eight hours of one CPU core in all. `--seeds 0` does one seed; processes with different --seeds or --shard run
side by side (with one thread and one core each). `--base flat`, before the stage, studies a network of even widths.
"""

import argparse
import json
from collections.abc import Sequence

import fast
import found
import ranked
import retrained
import tables
from plan import BASES, CHOSEN, OTHERS, OWN, RETRAINED, VARIANTS, open_seed


def train(seeds: Sequence[int], other: str) -> None:
    """Train the supernets, or others."""
    from autoslim_cli.stages.train_supernet import train_supernet

    for seed in seeds:
        project = open_seed(seed, None if other == OWN else other)
        print(json.dumps(train_supernet(project, resume=True)["widths"]), flush=True)


def report(seeds: Sequence[int]) -> None:
    """Print every table."""
    tables.report(seeds)
    fast.report_fast(seeds)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=BASES, default="doubling", help="the base network")
    stages = parser.add_subparsers(required=True)

    def stage(name: str) -> argparse.ArgumentParser:
        one = stages.add_parser(name)
        one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        return one

    def on_another(one: argparse.ArgumentParser) -> None:
        one.add_argument("--other", choices=OTHERS, default=OWN, help="supernets that are trained otherwise")

    one = stage("train")
    on_another(one)
    one.set_defaults(run=lambda o: train(o.seeds, o.other))
    one = stage("search")
    on_another(one)
    one.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    one.set_defaults(run=lambda o: found.search(o.seeds, o.variants, o.other))
    one = stage("retrain")
    on_another(one)
    one.add_argument("--variants", nargs="+", choices=[*RETRAINED, "random"], default=[*RETRAINED, "random"])
    one.add_argument("--shares", type=int, nargs="+", help="all that are retrained by default")
    one.add_argument("--shard", type=int, default=0)
    one.add_argument("--shards", type=int, default=1)
    one.set_defaults(
        run=lambda o: retrained.retrain(o.seeds, o.variants, o.shares or CHOSEN.base.judged, o.shard, o.shards, o.other)
    )
    one = stage("rank")
    one.add_argument("--others", nargs="*", choices=OTHERS, default=list(OTHERS))
    one.add_argument("--supernet", type=int, default=0, help="the seed whose supernets score")
    one.set_defaults(run=lambda o: ranked.rank(o.seeds, o.others, o.supernet))
    one = stage("batches")
    one.set_defaults(run=lambda o: ranked.batches(o.seeds))
    one = stage("fast")
    one.set_defaults(run=lambda o: fast.fast(o.seeds))
    one = stage("report")
    one.set_defaults(run=lambda o: report(o.seeds))
    options = parser.parse_args()
    CHOSEN.name = options.base
    options.run(options)


if __name__ == "__main__":
    main()
