"""Write the tables of docs/scale.md: what was measured on generated files, and what ImageNet comes to by it.

    python scripts/scale.py [--rows FILE] [--check]

What lies between `<!-- scale: NAME -->` and `<!-- end -->` is written. `measured` and `feeding` are made of the rows of
`python benchmarks/data.py --output benchmarks/results/data.json`, and left as they are while there is no such file.
`hours` and `network` are arithmetic on the ImageNet recipes, at rates of a GPU that are assumed:

- an image's step of the supernet takes as many times the base network's as its sub-networks have multiply-adds, the
  mean of 200 draws (scripts/estimate.py);
- a training takes its epochs times its images over the rate of all GPUs; decoding, evaluation and search not counted;
- a step's gradients are four bytes a parameter, summed by a ring: of them each of n GPUs sends 2 (n-1) / n.

`--check` only compares.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimate import PASSES, TRAINING_IMAGES, work_of_step

from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.models.zoo import build
from autoslim_cli.network.trace import read
from autoslim_cli.recipe import catalogue
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.slimming.constraints import constrained, space_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
ROWS = ROOT / "benchmarks" / "results" / "data.json"
RATES = (500, 1000, 2500)
"""Images a second of the base network that a GPU is assumed to train."""
GPUS = (1, 8, 64)
IMAGENET = TRAINING_IMAGES["imagenet-resnet50"]
MIB, GIB = 2**20, 2**30

Rows = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A training of a recipe: what one of its steps works on, and how often."""

    recipe: str
    name: str
    epochs: int
    images: int
    batch: int
    parameters: int
    times: float
    """Multiply-adds of an image's step, over those of the base network."""

    def hours(self, gpus: int, rate: float) -> float:
        """Return the hours that so many GPUs take, each of which trains the base network at a rate."""
        return self.epochs * self.images * self.times / (gpus * rate) / 3600

    def steps(self, gpus: int, rate: float) -> float:
        """Return the steps of a second."""
        return gpus * rate / self.times / self.batch

    def sent(self, gpus: int, rate: float) -> float:
        """Return the bytes of gradients that each GPU sends in a second, and receives."""
        return 4 * self.parameters * 2 * (gpus - 1) / gpus * self.steps(gpus, rate)


def stages() -> list[Stage]:
    """Return both trainings of each ImageNet recipe, the second of the base network in place of a searched one."""
    found = []
    for name, directory in sorted(catalogue.shipped().items()):
        if not name.startswith("imagenet-"):
            continue
        recipe = load_recipe(directory)
        table = constrained(read(build(recipe.model, directory), *recipe.model.shapes), recipe.space).table
        space = space_of(table, recipe.supernet, recipe.space)
        base = flops(table, table.base)
        work = work_of_step(space, recipe, lambda channels, table=table: flops(table, channels))
        images = TRAINING_IMAGES[name]
        train, retrain = recipe.train, recipe.retrain
        found += [
            Stage(
                name,
                "supernet",
                train.epochs,
                images - recipe.data.holdout,
                train.batch,
                params(table, space.largest),
                work / PASSES / base,
            ),
            Stage(name, "retraining", retrain.epochs, images, retrain.batch, params(table, table.base), 1.0),
        ]
    return found


def hours(trainings: Iterable[Stage]) -> str:
    """Return the table of hours; recipes that take the same share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in trainings:
        taken = (several(one.hours(gpus, rate) for rate in RATES) for gpus in GPUS)
        rows.setdefault((one.name, f"{one.epochs}", f"{one.times:.1f}", *taken), []).append(one.recipe)
    head = ["recipe", "training", "epochs", "work of an image", *(f"{plural(gpus)}: hours" for gpus in GPUS)]
    return table(head, ([", ".join(f"`{name}`" for name in names), *cells] for cells, names in rows.items()))


def network(trainings: Iterable[Stage]) -> str:
    """Return the table of what gradients take of a network."""
    many = [gpus for gpus in GPUS if gpus > 1]
    head = ["recipe", "training", "batch", "gradients of a step"]
    head += [f"{plural(gpus)}: {what}" for gpus in many for what in ("images of each in a step", "steps/s", "MiB/s")]
    return table(
        head,
        (
            [
                *(f"`{one.recipe}`", one.name, f"{one.batch:,}", f"{4 * one.parameters / MIB:.0f} MiB"),
                *(
                    cell
                    for gpus in many
                    for cell in (
                        f"{one.batch / gpus:.0f}",
                        several(one.steps(gpus, rate) for rate in RATES),
                        several(one.sent(gpus, rate) / MIB for rate in RATES),
                    )
                ),
            ]
            for one in trainings
        ),
    )


def measured(rows: Rows) -> str:
    """Return the table of what was measured."""
    machine, speed, first = rows["machine"], rows["images_per_second"], rows["first_batch_seconds"]
    memory, starts, one = rows["worker_memory"], rows["start_seconds"], rows["one_image_ms"]
    torch = machine["torch"].partition("+")[0]
    counts = f"{plural(machine['cores'], 'core')}, {plural(rows['workers'], 'worker')}"
    head = [f"{machine['processor']}, {counts}, torch {torch}", ""]

    def in_turns(ratios: Sequence[float], median: float) -> str:
        return f"{median:.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"

    def of_all(seconds: float) -> str:
        return f"{number(seconds * IMAGENET / rows['files'])} s"

    body = [
        [f"size of a file, mean of {rows['files']:,}", f"{rows['kib_a_file']:.0f} KiB"],
        ["from files: decoded, a random part resized to 224x224, normalised", f"{number(speed['autoslim'])} images/s"],
        ["torchvision's ImageFolder and DataLoader, with as many workers", f"{number(speed['torchvision'])} images/s"],
        ["the same files in tar shards of 1,000", f"{number(speed['shards'])} images/s"],
        [
            f"ours over torchvision's, median ({len(rows['ratios'])} rounds in turns)",
            in_turns(rows["ratios"], rows["loader_vs_torchvision"]),
        ],
        ["shards over files, likewise", in_turns(rows["shards_ratios"], rows["shards_vs_folder"])],
        [
            "until an epoch's first batch of 64: files, torchvision's, shards",
            ", ".join(f"{first[name]:.1f} s" for name in ("autoslim", "torchvision", "shards")),
        ],
        [
            "CPU time of one image, from the file to 224x224; of Pillow's decoder alone",
            f"{one['whole']:.1f} ms; {one['pillow']:.1f} ms",
        ],
        [
            "share of its time that a training waits for images: half of ResNet-18's channels, two epochs of 960 files",
            f"{100 * rows['wait_share']:.1f} %",
        ],
        [
            f"memory that each of {memory['workers']} workers has for itself, with ImageNet's {IMAGENET:,} names: "
            f"after 2 batches; after {memory['batches']} more",
            f"{memory['first']:.0f} MiB; {memory['later']:.0f} MiB",
        ],
        [
            "names, classes and places of as many images, in each process that trains",
            f"{rows['names_mib']:.0f} MiB",
        ],
        *(
            [
                f"start of a process with ImageNet's {what}; their digest (in proportion to {rows['files']:,})",
                f"{of_all(starts[kind]['list'])}; {of_all(starts[kind]['digest'])}",
            ]
            for kind, what in (("image-folder", "files, listed"), ("image-shards", "images in shards, indexed"))
        ),
    ]
    return table(head, body)


def feeding(rows: Rows) -> str:
    """Return the table of what GPUs ask for, at the measured rate of a core and size of a file."""
    a_core = rows["images_per_second"]["autoslim"] / rows["workers"]
    mib = rows["kib_a_file"] / 1024

    def each(of: Callable[[int, int], float], gpus: int) -> str:
        return several(of(gpus, rate) for rate in RATES)

    body = [
        [
            "ImageNet's training images, in files of this size; in shards",
            f"{IMAGENET * mib * MIB / GIB:.0f} GiB; {IMAGENET * rows['kib_in_shards'] / MIB:.0f} GiB",
        ],
        ["a core decodes; an epoch", f"{number(a_core)} images/s; {number(IMAGENET / a_core / 3600)} core hours"],
        *(
            [
                f"{plural(gpus)}, each at {several(RATES)} images/s",
                f"{each(lambda n, rate: n * rate / a_core, gpus)} cores; "
                f"{each(lambda n, rate: n * rate * mib, gpus)} MiB/s from storage; "
                f"an epoch in {each(lambda n, rate: IMAGENET / rate / n / 60, gpus)} minutes",
            ]
            for gpus in GPUS
        ),
    ]
    return table(["at the rate of a core and the size of a file above", ""], body)


def plural(count: int, what: str = "GPU") -> str:
    """Name so many of something."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def several(values: Iterable[float]) -> str:
    """Write one figure for each rate."""
    *some, last = (number(value) for value in values)
    return f"{', '.join(some)} or {last}"


def number(value: float) -> str:
    """Write a figure rounded: whole from a hundred on, with two decimals below one."""
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Write a table."""
    return "\n".join(
        " ".join(["|", *(f"{cell} |".lstrip() for cell in row)]) for row in (head, ["---"] * len(head), *body)
    )


def written(page: str, tables: dict[str, str]) -> str:
    """Return a page with tables in the places that it has for them."""
    for name, text in tables.items():
        mark = f"<!-- scale: {name} -->"
        before, _, rest = page.partition(mark)
        if not rest:
            raise ValueError(f"{PAGE.name} has no place for {name}")
        page = f"{before}{mark}\n{text}\n{rest[rest.index('<!-- end -->') :]}"
    return page


def main() -> None:
    """Write the page, or say that it is stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS, help="what benchmarks/data.py measured")
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    trainings = stages()
    tables = {"hours": hours(trainings), "network": network(trainings)}
    if options.rows.is_file():
        rows = json.loads(options.rows.read_text(encoding="utf-8"))
        tables |= {"measured": measured(rows), "feeding": feeding(rows)}
    page = PAGE.read_text(encoding="utf-8")
    text = written(page, tables)
    if options.check:
        sys.exit(None if text == page else "docs/scale.md: stale; run python scripts/scale.py")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
