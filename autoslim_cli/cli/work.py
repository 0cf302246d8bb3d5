"""Define the commands that make something: one per stage."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoslim_cli.cli.options import Json, Overrides, Recipe, Resume, open_workshop, print_json, print_table
from autoslim_cli.errors import UsageError
from autoslim_cli.launch import launched

if TYPE_CHECKING:
    from autoslim_cli.cost.budget import Budget
    from autoslim_cli.stages.workshop import Workshop

Flops = Annotated[
    str | None,
    typer.Option(
        "--flops", metavar="BUDGETS", help="Multiply-adds: 300M, or several as 300M,200M, or 50% of the base network."
    ),
]
Params = Annotated[
    str | None,
    typer.Option(
        "--params", metavar="BUDGETS", help="Weights and biases: 2M, or several, or 50%. With --flops, both must hold."
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="BUDGETS",
        help="Predicted by `autoslim profile`: 12ms, 850us, several, or 50% of the base.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option("--activation-memory", metavar="BUDGETS", help="Live activations at batch 1: 4MB, 512KB, or 50%."),
]
Table = Annotated[
    Path | None,
    typer.Option("--latency-table", metavar="FILE", help="Another device's latency table; by default this machine's."),
]


def train_supernet(
    overrides: Overrides = None, recipe: Recipe = None, resume: Resume = False, as_json: Json = False
) -> None:
    """Train a supernet whose sub-networks all work (sandwich rule, inplace distillation)."""
    from autoslim_cli.stages.train_supernet import train_supernet as stage

    result = stage(open_workshop(recipe, overrides), resume=resume)
    if as_json:
        print_json(result)
        return
    rows = [(name, *_figures(row)) for name, row in result["widths"].items()]
    print_table(["width", "FLOPs", "params", "loss", "top-1"], rows, title=f"{result['supernet']}, on the holdout")


def calibrate_bn(
    overrides: Overrides = None,
    recipe: Recipe = None,
    widths: Annotated[
        str | None, typer.Option(metavar="WIDTHS", help="Widths: 0.25,0.5 or start:stop:step as 0.25:1.0:0.25.")
    ] = None,
    channels: Annotated[
        list[Path] | None, typer.Option(metavar="CONFIG", help="A channel config; may be repeated.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Score each with the largest sub-network's BN statistics, too.")
    ] = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Cut sub-networks out of the supernet, each with its own BN statistics: deployable without retraining."""
    from autoslim_cli.stages import calibrate_bn as stage
    from autoslim_cli.stages.report import write_spectrum

    configs = channels or []
    if not widths and not configs:
        raise UsageError("name what to cut: --widths 0.25:1.0:0.25, --channels arch-300M.json, or both")
    shop = open_workshop(recipe or _recipe_of(configs[0] if configs else None), overrides)
    wanted = stage.parse_widths(widths) if widths else []
    rows = stage.calibrate_bn(shop, wanted, configs, compare=compare, resume=resume)
    spectrum = write_spectrum(shop, rows) if len(rows) > 2 else {}
    if as_json:
        print_json({"subnetworks": rows, **spectrum})
        return
    print_table(
        ["sub-network", "FLOPs", "params", "loss", "top-1", *(["uncalibrated"] if compare else []), "file"],
        (
            (row["name"], *_figures(row), *([f"{row['uncalibrated_top1']:.2%}"] if compare else []), row["path"])
            for row in rows
        ),
        title="calibrated sub-networks, on the holdout",
    )
    for name, path in spectrum.items():
        print(f"{name}: {path}")


def extract(
    width: Annotated[float, typer.Option(help="One of the recipe's supernet.widths.")],
    overrides: Overrides = None,
    recipe: Recipe = None,
    as_json: Json = False,
) -> None:
    """Cut one switch out of a slimmable network with switchable BN, as a plain network."""
    from autoslim_cli.stages.calibrate_bn import extract as stage

    row = stage(open_workshop(recipe, overrides), width)
    if as_json:
        print_json(row)
        return
    print_table(["switch", "FLOPs", "params", "loss", "top-1", "file"], [(row["name"], *_figures(row), row["path"])])


def search(
    overrides: Overrides = None,
    flops: Flops = None,
    params: Params = None,
    latency: Latency = None,
    activation_memory: Memory = None,
    latency_table: Table = None,
    recipe: Recipe = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Slim the supernet greedily, layer by layer, until each budget holds; write arch-BUDGET.json.

    Under torchrun the processes share the candidates: torchrun --nproc-per-node 2 -m autoslim_cli search ...
    """
    from dataclasses import asdict

    from autoslim_cli.stages.search import search as stage

    texts = _bounds(flops=flops, params=params, activation_memory=activation_memory, latency=latency)
    shop = _measuring(open_workshop(recipe, overrides, shared=True), texts, latency_table)
    result = asdict(stage(shop, _budgets(shop, texts, latency_table), resume=resume))
    if not launched().first:
        return
    if as_json:
        print_json(result)
        return
    extra = [name for name in ("activation_memory", "latency", "measured_latency") if name in result["configs"][0]]
    heads = {"activation_memory": "activations", "latency": "predicted", "measured_latency": "measured"}
    print_table(
        ["channel config", "FLOPs", "params", *(heads[name] for name in extra), "loss", "top-1"],
        (_found_row(row, extra) for row in result["configs"]),
        title=f"{result['strategy']}: {result['evaluations']} evaluations in {result['seconds']:.0f} s at "
        f"{result['rate'] / 1e9:.1f} G multiply-adds/s (a forward pass: {result['forward_rate'] / 1e9:.1f}), "
        "scored on the holdout",
    )


def retrain(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG]... [KEY=VALUE]...",
            help="A channel config as arch-300M.json, several with --joint; recipe values to override.",
            show_default=False,
        ),
    ] = None,
    recipe: Recipe = None,
    width: Annotated[float | None, typer.Option(help="Train the uniform network of this width instead.")] = None,
    uniform_flops: Annotated[
        str | None, typer.Option(metavar="BUDGET", help="Train the widest uniform network within these FLOPs instead.")
    ] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="Train several configs as one slimmable network, and split it after.")
    ] = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a network from scratch at found channels; measure it on the test set at the end."""
    from autoslim_cli.stages.joint import retrain_jointly
    from autoslim_cli.stages.retrain import retrain as stage

    values = [word for word in words or () if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in words or () if word not in values]
    if joint:
        shop = open_workshop(recipe or _recipe_of(paths[0] if paths else None), values)
        rows = retrain_jointly(shop, paths, resume=resume)
        print_json({"networks": rows}) if as_json else _print_test(rows)
        return
    if len(paths) + (width is not None) + (uniform_flops is not None) != 1:
        raise UsageError(
            "name one network: a channel config, --width 0.5, or --uniform-flops 30M; --joint takes several"
        )
    path = paths[0] if paths else None
    shop = open_workshop(recipe or _recipe_of(path), values)
    name, channels = _network(shop, path, width, uniform_flops)
    result = stage(shop, name, channels, config=path, resume=resume)
    if as_json:
        print_json(result)
        return
    _print_test([result])


def run(
    overrides: Overrides = None,
    flops: Flops = None,
    params: Params = None,
    latency: Latency = None,
    activation_memory: Memory = None,
    latency_table: Table = None,
    recipe: Recipe = None,
    as_json: Json = False,
) -> None:
    """Run all stages of a recipe, skipping what is there and current; set the result beside the uniform network."""
    from autoslim_cli.stages.run import run as stage

    texts = _bounds(flops=flops, params=params, activation_memory=activation_memory, latency=latency)
    shop = _measuring(open_workshop(recipe, overrides), texts, latency_table)
    result = stage(shop, _budgets(shop, texts, latency_table))
    if as_json:
        print_json(result)
        return
    print_table(
        ["network", "FLOPs", "params", "test loss", "test top-1", "file"],
        ((row["network"], *_figures(row), row["path"]) for row in result["networks"]),
        title=f"{shop.recipe.model.name}, retrained from scratch",
    )
    for name in ("report", "plot"):
        if result[name]:
            print(f"{name}: {result[name]}")


def evaluate(
    file: Annotated[Path, typer.Argument(help="A model-*.safetensors or subnet-*.safetensors, or a supernet.")],
    overrides: Overrides = None,
    recipe: Recipe = None,
    width: Annotated[float | None, typer.Option(help="A switch of a supernet with switchable BN.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a deployable checkpoint on the recipe's test set."""
    from autoslim_cli.stages.evaluate import evaluate as stage

    result = stage(open_workshop(recipe or _recipe_of(file), overrides), file, width)
    if as_json:
        print_json(result)
        return
    _print_test([result])


def _bounds(**named: str | None) -> dict[str, str]:
    """Return the bounds that were named, by measure: one at least."""
    texts = {name: text for name, text in named.items() if text is not None}
    if not texts:
        raise UsageError(
            "name a budget: --flops 300M, --latency 12ms, --params 2M, --activation-memory 4MB, or several"
        )
    return texts


def _measuring(shop: "Workshop", texts: dict[str, str], table: Path | None) -> "Workshop":
    """Return the workshop with all costs that are bounded."""
    from dataclasses import replace

    if table is not None and "latency" not in texts:
        raise UsageError("--latency-table says how latency is predicted: add a budget, as --latency 12ms")
    shop = replace(shop, measures=("activation_memory",) if "activation_memory" in texts else ())
    if "latency" not in texts:
        return shop
    from autoslim_cli.stages.profile import with_latency

    return with_latency(shop, table)


def _budgets(shop: "Workshop", texts: dict[str, str], table: Path | None) -> "list[Budget]":
    """Read the bounds; percentages are of the base network. A table that is named names what is found by it."""
    from dataclasses import replace

    from autoslim_cli.cost.budget import parse_many
    from autoslim_cli.stages.workshop import slug

    device = slug(table.stem.removeprefix("latency-")) if table else ""
    return [replace(budget, device=device) for budget in parse_many(texts, shop.cost(shop.reading.table.base))]


def _network(
    shop: "Workshop", path: Path | None, width: float | None, uniform_flops: str | None
) -> tuple[str, dict[str, int]]:
    """Return the name and the channels that retrain's arguments ask for."""
    from autoslim_cli.cost.budget import parse
    from autoslim_cli.stages.run import uniform_channels

    if path is not None:
        return path.stem.removeprefix("arch-"), shop.read_channels(path, bounded=False)
    if width is not None:
        supernet = shop.recipe.supernet
        if not supernet.min_width <= width <= supernet.width:
            raise UsageError(
                f"--width {width:g} is outside {supernet.min_width:g} to {supernet.width:g} (supernet.width)"
            )
        return f"width-{width:g}", shop.space.uniform(width)
    assert uniform_flops is not None
    budget = parse("flops", uniform_flops, shop.flops(shop.reading.table.base))
    return f"uniform-{budget.text.replace('%', 'pct')}", uniform_channels(shop, budget.limit)[1]


def _recipe_of(path: Path | None) -> str | None:
    """Return the recipe directory that a file lies in, if it lies in one (or in its published/)."""
    if path is None:
        return None
    for directory in (path.parent, path.parent.parent):
        if (directory / "recipe.yaml").is_file():
            return str(directory)
    return None


def _found_row(row: dict[str, Any], extra: list[str]) -> tuple[str, ...]:
    """Write what was found, with the costs that were bounded."""
    from autoslim_cli.cost.budget import MEASURES

    flops, params, *scores = _figures(row)
    costs = (MEASURES[name.removeprefix("measured_")].show(row[name]) for name in extra)
    return (row["path"], flops, params, *costs, *scores)


def _figures(row: dict[str, Any]) -> tuple[str, ...]:
    """Write FLOPs, parameters, loss and top-1."""
    return (f"{row['flops']:,}", f"{row['params']:,}", f"{row['loss']:.4f}", f"{row['top1']:.2%}")


def _print_test(rows: list[dict[str, Any]]) -> None:
    """Print figures on the test set."""
    columns = ["network", "FLOPs", "params", "test loss", "test top-1"]
    print_table(columns, ((row["path"], *_figures(row)) for row in rows))
