"""Train weights epoch by epoch: the one loop that the supernet and the retrained network share."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autoslim_cli.data.batch import Batch, Tree, images_in, split
from autoslim_cli.errors import ArtifactError, AutoslimError, UsageError, advice_on_few_values
from autoslim_cli.files.atomic import sha256
from autoslim_cli.interruption import asked_to_end
from autoslim_cli.machine import free_memory
from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.schema import TrainSettings
from autoslim_cli.seeds import seed_from
from autoslim_cli.slimming.pointwise import without_strided_pointwise
from autoslim_cli.training.distributed import Poll, Ranks
from autoslim_cli.training.gradient_sums import GradientSums
from autoslim_cli.training.job import Glance, Job, Losses, Training
from autoslim_cli.training.metrics import Metrics, Stretch, all_finite
from autoslim_cli.training.optimiser import optimizer_of, schedule
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.state import Averaged, State
from autoslim_cli.training.trackers import Watched, tracked

LOOK_EVERY = 20
"""Steps between two looks at the losses: on a GPU a look waits for the work in flight."""


def fit(job: Job, training: Training, reporter: Reporter, ranks: Ranks, *, resume: bool) -> None:
    """Train to the end, saving a state, if the job has one, after each epoch, every few minutes, and when interrupted.

    The processes of a job share every batch. Every random draw depends on (seed, step, place in the batch) alone, so a
    run that resumes ends as an uninterrupted one ends: to the bit on the CPU with as many processes. Raises
    AutoslimError on a loss that is not finite, KeyboardInterrupt after saving at Ctrl-C.
    """
    settings, network, device = job.settings, training.network, training.images.device
    per_epoch = training.images.steps(settings.batch)
    total = settings.epochs * per_epoch
    _say_memory(job, training, reporter, ranks)  # of which the state takes its part
    state = _state(settings, training, total)
    done = _begin(job, training, state, reporter, ranks, resume=resume)
    network.train()
    sums = GradientSums(ranks, network)
    saved_at, poll, batch = time.monotonic(), Poll(ranks), min(settings.batch, len(training.images))
    with (
        without_strided_pointwise(network) if device.type == "cpu" else nullcontext(),
        _stop_signals(ranks) as stop,
        tracked(job.track if ranks.first else (), _watched(job, state, done), reporter.say) as log,
        reporter.bar(f"training {settings.epochs} epochs", total) as bar,
    ):
        metrics = Metrics(job.metrics if ranks.first else None, done=done, over=state.epochs.over, log=log)
        batches = _batches(job, training, ranks, state.epochs.over, done)
        while state.epochs.over < settings.epochs and not _is_over(settings, state):
            epoch, seen = state.epochs.over, dict[str, Any]()
            stretch, means = Stretch(), metrics.of_epoch(epoch * per_epoch)
            # None are left of an epoch that was stopped before the look at its end.
            for inputs, targets in stretch.batches(islice(batches, (epoch + 1) * per_epoch - done)):
                # 1. The gradients of all images of the step, summed over micro-batches and processes.
                training.zero_gradients()
                stretch.losses.append(_gradients(job, training, state.scaler, sums, inputs, targets, done))
                # 2. One optimizer step.
                rate = float(state.scheduler.get_last_lr()[0])
                done += 1
                state.step(settings.clip, done)
                # 3. Look at the losses now and then, and refuse to go on from one that is broken: the state on the
                # disk is still a sound one.
                stopping = poll(bool(stop))
                due = settings.save_steps is not None and done % settings.save_steps == 0
                saving = stopping or due or time.monotonic() - saved_at > settings.save_minutes * 60
                if saving or done % per_epoch % LOOK_EVERY == 0:
                    steps = len(stretch.losses)
                    seen = stretch.look(batch, device)
                    _check(seen["loss"], done, epoch, rate, job.section)
                    metrics.add({"step": done, "epoch": epoch + 1, "rate": rate, **seen})
                    reporter.detail(partial(_told, done, total, seen, rate))
                    means.append((steps, next(iter(seen["loss"].values()))))
                bar(done, partial(_progress, seen, rate))
                # 4. Keep what was done.
                if saving and ranks.first:
                    state.save(job, done)
                saved_at = time.monotonic() if saving else saved_at
                if stopping:
                    _stop(job, done, total, reporter, ranks, poll)
            # 5. Look at the holdout.
            line = f"epoch {epoch + 1}/{settings.epochs}{_mean(means)}{_speed(seen)}"
            state.epochs.over += 1
            glance = _look(settings, training, state)
            if glance is not None:
                metrics.add({"step": done, "epoch": epoch + 1, "holdout": {"loss": glance.loss}})
            bar.passed(f"{line}  {glance.words if glance else ''}".rstrip())
            if ranks.first:
                state.save(job, done)
            saved_at = time.monotonic()
            if any(ranks.gather(bool(stop), "the end of an epoch")):
                _stop(job, done, total, reporter, ranks, poll)
    _end(settings, state, reporter, poll)


def _watched(job: Job, state: State, done: int) -> Watched:
    """Return what trackers are told of a training."""
    return Watched((job.state or Path()).parent, job.name, job.made_from.get("recipe", {}), done, state.runs)


def _batches(job: Job, training: Training, ranks: Ranks, epoch: int, done: int) -> Iterator[Batch]:
    """Return what is left to learn from: one pass over all epochs, so that none begins with waiting for its images."""
    settings, images = job.settings, training.images
    start = done - epoch * images.steps(settings.batch)
    return images.training(
        *(settings.batch, job.seed, epoch, start),
        epochs=settings.epochs - epoch,
        rank=ranks.rank,
        size=ranks.size,
    )


def _state(settings: TrainSettings, training: Training, steps: int) -> State:
    """Return a network's state at the beginning: with the settings' optimizer and schedule, or the training's own."""
    network = training.network
    optimizer = training.optimizer(network) if training.optimizer else optimizer_of(network, settings)
    scheduler = training.schedule(optimizer, steps) if training.schedule else schedule(optimizer, settings, steps)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise UsageError(
            "schedule: ReduceLROnPlateau waits for scores of epochs; a schedule here follows the steps alone"
        )
    scaler = torch.amp.GradScaler(training.images.device.type, enabled=settings.precision == "fp16")
    averaged = Averaged([*network.parameters(), *training.statistics], settings.ema) if settings.ema else None
    return State(network, optimizer, scheduler, scaler, averaged)


def _look(settings: TrainSettings, training: Training, state: State) -> Glance | None:
    """Score the network on the holdout after an epoch, where that is known."""
    if training.after_epoch is None:
        return None
    with state.as_kept():
        glance = training.after_epoch()
    training.network.train()
    state.note(glance.loss, keep=settings.keep == "best")
    return glance


def _mean(means: Sequence[tuple[int, float]]) -> str:
    """Say the mean loss of an epoch's steps, each look's by their number; nothing where no metrics are left of it."""
    steps = sum(steps for steps, _ in means)
    return f"  loss {sum(steps * loss for steps, loss in means) / steps:.4f}" if steps else ""


def _speed(seen: dict[str, Any]) -> str:
    """Say how fast the last steps were, if there were any."""
    return f"  {seen['images_per_second']:.0f} images/s" if seen else ""


def _end(settings: TrainSettings, state: State, reporter: Reporter, poll: Poll) -> None:
    """Give the network the weights that it ends with, and say which where it is not clear."""
    poll.end()
    if (epochs := state.epochs.over) < settings.epochs:
        reporter.say(f"stopped after epoch {epochs}: no lower holdout loss in {settings.patience} epochs")
    if state.epochs.tensors:
        reporter.say(f"kept the weights of epoch {state.epochs.best}, of holdout loss {state.epochs.loss:.4f}")
    state.end()


def _is_over(settings: TrainSettings, state: State) -> bool:
    """Tell whether the holdout's loss has not fallen for so many epochs that more are not worth it."""
    return settings.patience is not None and 0 < state.epochs.best <= state.epochs.over - settings.patience


def _say_memory(job: Job, training: Training, reporter: Reporter, ranks: Ranks) -> None:
    """Say what a step takes. Raises UsageError if that is not free, with what would be."""
    if training.memory is None:
        return
    share = len(training.images.part(job.settings.batch, ranks.rank, ranks.size))
    images = min(job.settings.micro_batch or share, share)
    # Sums of gradients are made beside them.
    sums = sum(p.nbytes for p in training.network.parameters()) if ranks.size > 1 else 0
    here = free_memory(training.images.device, ranks.on_one_gpu)
    needed, free = training.memory(images) + sums, min(ranks.gather(here, "free memory"))
    alone = f" with the tensors of the part {training.part} alone" if training.part else ""
    reporter.say(f"a step takes about {_size(needed)}{alone}, {images} images at a time; {_size(free)} are free")
    if needed > free:
        fixed = training.memory(0)
        most = (free - fixed - sums) // max(1, training.memory(1) - fixed)
        fits = f"set {job.section}.micro_batch={2 ** (most.bit_length() - 1)}" if most > 0 else "take a smaller network"
        raise UsageError(
            f"{job.section}.batch: a step over {images} images at a time takes about {_size(needed)} of memory{alone}, "
            f"and {_size(free)} are free; {fits}, or share the batch among more processes"
        )
    _say_looks(training, reporter, free, alone)


def _say_looks(training: Training, reporter: Reporter, free: int, alone: str) -> None:
    """Say what forward passes beside the steps, and after them, take. Raises UsageError as for a step."""
    assert training.memory is not None
    # They pass a copy, while weights, gradients and the optimizer's tensors are there.
    fixed = training.memory(0) + sum(p.nbytes for p in training.network.parameters())
    needed = {key: fixed + training.look_memory(images) for key, images in training.looks.items()}
    if needed:
        takes = ", ".join(f"{key} {_size(size)}" for key, size in needed.items())
        reporter.say(f"what is measured without gradients takes about{alone}: {takes}")
    for key, size in needed.items():
        if size > free:
            most = (free - fixed) // max(1, training.look_memory(1))
            fits = f"set {key}={2 ** (most.bit_length() - 1)}" if most > 0 else "take a smaller network"
            raise UsageError(
                f"{key}: a forward pass over {training.looks[key]} images takes about {_size(size)} of memory{alone}, "
                f"and {_size(free)} are free; {fits}"
            )


def _size(count: int) -> str:
    """Write bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def _begin(job: Job, training: Training, state: State, reporter: Reporter, ranks: Ranks, *, resume: bool) -> int:
    """Restore what was saved, if that is asked for, and give all processes the same weights; return the steps done."""
    batch = min(job.settings.batch, len(training.images))
    if batch < ranks.size:
        raise UsageError(f"{job.section}.batch: {batch} images a step cannot be shared by {ranks.size} processes")
    done = state.restore(job) if resume else 0
    if resume and ranks.size > 1:  # the optimizer's moments are in the file alone: no weights show that they differ
        saved = sha256(job.state) if job.state and job.state.exists() else "missing"
        ranks.agreed({"steps done": done, "file": saved}, f"states of a stopped training ({job.name})")
    per_epoch, over = training.images.steps(job.settings.batch), state.epochs.over
    if done > (total := job.settings.epochs * per_epoch):
        raise ArtifactError(f"{job.state}: says {done} steps done of {total}; remove it and start again")
    if not over * per_epoch <= done <= (over + 1) * per_epoch:
        raise ArtifactError(
            f"{job.state}: says {done} steps done in {over} epochs of {per_epoch}; remove it and start again"
        )
    if resume:
        reporter.say(f"resuming after step {done}" if done else "starting from the beginning")
    ranks.copy_from_first([*training.network.parameters(), *training.network.buffers()])
    return done


def _gradients(
    job: Job,
    training: Training,
    scaler: torch.amp.GradScaler,
    sums: GradientSums,
    inputs: Tree,
    targets: Tree,
    number: int,
) -> Losses:
    """Leave the gradients of a step's mean losses over the images of all processes; return these losses."""
    settings, ranks, losses = job.settings, sums.ranks, Losses()
    whole = min(settings.batch, len(training.images)) if ranks.size > 1 else images_in(inputs)
    place = training.images.part(settings.batch, ranks.rank, ranks.size).start
    # 1. Those of this process's images, a micro-batch at a time: equal parts, to an image.
    count, arithmetic = images_in(inputs), partial(_arithmetic, settings, training.images.device)
    pieces = -(-count // (settings.micro_batch or count))
    parts = list(zip(split(inputs, pieces), split(targets, pieces), strict=True))
    for some, their_targets in parts:
        torch.manual_seed(seed_from(job.seed, "step", number, place))  # what dropout draws
        over = Pass(number, images_in(some) / whole, arithmetic, scaler.scale)
        if some is parts[-1][0]:
            over = replace(over, before_last=sums.watch)
        with advice_on_few_values():
            found = training.step(some, their_targets, over)
        for name, part in found.items():
            losses[name] = losses[name] + part if name in losses else part
        place += images_in(some)
    # 2. Those of the others, whose sums the last backward pass began. BN's running averages become the mean of all.
    if ranks.size > 1:
        sums.end()
        for average in training.statistics:
            average.div_(ranks.size)
        ranks.sum([*training.statistics, *losses.values()])
    return losses


def _arithmetic(settings: TrainSettings, device: torch.device) -> torch.autocast:
    """Return the context of forward passes."""
    kinds = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, kinds[settings.precision], enabled=settings.precision != "fp32")


def _stop(job: Job, done: int, total: int, reporter: Reporter, ranks: Ranks, poll: Poll) -> NoReturn:
    """End the command; what was done is on the disk, if the job has files."""
    poll.end()
    reporter.say(
        f"stopped after step {done} of {total}"
        + ("; the same command with --resume continues (`run` as it is)" if job.state else "")
    )
    ranks.wait("the end of a stopped training")
    raise KeyboardInterrupt


def _progress(seen: dict[str, Any], rate: float) -> str:
    """Say how the training went when somebody last looked: to look now would wait for the work in flight."""
    if not seen:
        return f"lr {rate:.4f}"
    loss = next(iter(seen["loss"].values()))
    return f"{seen['images_per_second']:.0f} images/s  loss {loss:.3f}  lr {rate:.4f}"


def _told(done: int, total: int, seen: dict[str, Any], rate: float) -> str:
    """Say all that a look at a training found."""
    losses = "  ".join(f"{name} {loss:.4f}" for name, loss in seen["loss"].items())
    return f"step {done}/{total}  {losses}  {seen['images_per_second']:.0f} images/s  lr {rate:.4g}"


def _check(losses: dict[str, float], done: int, epoch: int, rate: float, section: str) -> None:
    """Raise AutoslimError if one of the latest mean losses is not finite."""
    if not all_finite(losses):
        raise AutoslimError(
            f"the loss is not finite near step {done} (epoch {epoch + 1}, learning rate {rate:g}); "
            f"lower {section}.lr, or set {section}.warmup=0.05 or {section}.clip=1"
        )


@contextmanager
def _stop_signals(ranks: Ranks) -> Iterator[list[int]]:
    """Collect signals that ask for an end, so that a step ends and is saved before the command ends."""
    received: list[int] = []

    def note(number: int) -> None:
        if received and ranks.size == 1:  # asked twice: stop now; torchrun passes on what the terminal sent already
            raise KeyboardInterrupt
        received.append(number)

    with asked_to_end(note):
        yield received
