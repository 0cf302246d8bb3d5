"""Train every arm's network, measure it on the test set, and say what the arm spent."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import accounting
from commands import autoslim
from plan import DEAREST, Arm, Chosen, Row, add_row, config_text, find, rows_of, write_recipe


class Job(NamedTuple):
    """An arm at a budget, from a seed."""

    seed: int
    share: int
    arm: Arm


def jobs_of(chosen: Chosen) -> list[Job]:
    """Return all final trainings: the first seed's first, and the most wanted arms first."""
    base = chosen.base
    return [
        Job(seed, share, arm)
        for seed in chosen.seeds
        for arm in chosen.wanted
        for share in base.shares
        if not arm.all_compute or seed in base.control_seeds
    ]


def left(jobs: Sequence[Job], rows: Sequence[Row]) -> list[Job]:
    """Return the jobs that have no row yet."""
    done = {(row["seed"], row["share"], row["arm"]) for row in rows}
    return [job for job in jobs if (job.seed, job.share, job.arm.name) not in done]


def final(chosen: Chosen) -> None:
    """Train what has no row yet, of this shard's jobs; arms without channels (a peer not installed) are left out."""
    file = chosen.file("final")
    for job in jobs_of(chosen)[chosen.shard :: chosen.shards]:
        found = find(rows_of(chosen.file("found")), seed=job.seed, source=job.arm.source, share=job.share)
        if not left([job], rows_of(file)) or found is None:
            continue
        add_row(file, train(chosen, job, found))


def train(chosen: Chosen, job: Job, found: Row) -> Row:
    """Train one arm's network; return its row."""
    arm, base = job.arm, chosen.base
    before = spent_before(job, found, rows_of(chosen.file("trained")))
    epochs = base.epochs
    if arm.all_compute:
        compute = accounting.total(parts_of(chosen, job.seed, job.share, DEAREST))
        left_over = compute - accounting.total(before)
        epochs = accounting.epochs_for(left_over, found["flops"], base.train_images)
    recipe = chosen.place(job.seed, "warm" if arm.is_warm else "supernet")
    if not recipe.joinpath("recipe.yaml").exists():  # no arm so far needed that supernet
        write_recipe(chosen, job.seed, recipe.name, train={"epochs": base.supernet_epochs})
    made = autoslim(
        *("retrain", arch_of(found, recipe), "-r", recipe, "--name", f"{arm.name}-{job.share}", "--resume"),
        *("--from", Path(found["weights"]).resolve() if arm.start == "pruned" else arm.start),
        f"retrain.epochs={epochs}",
    )
    if made["flops"] != found["flops"]:
        raise SystemExit(f"{found['arch']}: {found['flops']} FLOPs by its finder, {made['flops']} by autoslim")
    parts = {**before, "final": accounting.training(found["flops"], base.train_images, epochs)}
    return {
        **{"base": chosen.name, "seed": job.seed, "share": job.share, "arm": arm.name, "family": arm.family},
        **{"source": arm.source, "start": arm.start, "epochs": epochs},
        **{name: found[name] for name in ("budget", "flops", "fill", "channels")},
        **{"params": made["params"], "top1": made["top1"], "loss": made["loss"], "seconds": made["wall"]},
        **{"multiply_adds": accounting.total(parts), "parts": parts},
    }


def arch_of(found: Row, recipe: Path) -> Path:
    """Return the config of an arm's channels; where it is gone, as on another machine, it is written from the row."""
    path = Path(found["arch"])
    if not path.exists():
        model = autoslim("units", "-r", recipe)["model"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config_text(model, found["channels"], found["source"]))
    return path


def spent_before(job: Job, found: Row, trained: Sequence[Row]) -> dict[str, int]:
    """Return the multiply-adds of an arm before its final training, by part."""
    parts = {}
    for what in job.arm.needs:
        row = find(list(trained), seed=job.seed, what=what)
        assert row is not None
        parts[what] = row["multiply_adds"]
    # One width needs no search: it is the widest that fits. What our command evaluates to say its loss is not its own.
    return {**parts, "search": 0 if job.arm.is_one_width else found["multiply_adds"]}


def parts_of(chosen: Chosen, seed: int, share: int, arm: Arm) -> dict[str, int]:
    """Return all that an arm spends, by part, before it is trained."""
    found = find(rows_of(chosen.file("found")), seed=seed, source=arm.source, share=share)
    if found is None:
        raise SystemExit(f"no channels of {arm.source} for seed {seed}: python benchmarks/peers arms")
    before = spent_before(Job(seed, share, arm), found, rows_of(chosen.file("trained")))
    base = chosen.base
    return {**before, "final": accounting.training(found["flops"], base.train_images, base.epochs)}
