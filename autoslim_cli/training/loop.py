"""Train weights epoch by epoch: the one loop that the supernet and the retrained network share."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from autoslim_cli.errors import ArtifactError, AutoslimError
from autoslim_cli.files.checkpoint import fill, load_state, save_state
from autoslim_cli.files.provenance import difference
from autoslim_cli.progress import Reporter
from autoslim_cli.seeds import seed_from
from autoslim_cli.slimming.pointwise import without_strided_pointwise
from autoslim_cli.training.job import Job, Training
from autoslim_cli.training.optimiser import schedule, sgd

CHECK_EVERY = 20
"""Steps between two looks at the loss: on a GPU a look waits for the work in flight."""


def fit(job: Job, training: Training, reporter: Reporter, *, resume: bool) -> None:
    """Train to the end, saving a state after each epoch, every few minutes, and when interrupted.

    Every random draw depends on (seed, step) alone, so a run that resumes ends as an uninterrupted one ends: to the
    bit on the CPU. Raises AutoslimError on a loss that is not finite, KeyboardInterrupt after saving at Ctrl-C.
    """
    settings, network = job.settings, training.network
    per_epoch = training.images.steps(settings.batch)
    total = settings.epochs * per_epoch
    optimizer = sgd(network, settings)
    scheduler = schedule(optimizer, settings, total)
    done = _restore(job, training, optimizer, scheduler, reporter) if resume else 0
    amp = torch.autocast(training.images.device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    network.train()
    saved_at = time.monotonic()
    with (
        without_strided_pointwise(network),
        _stop_signals() as stop,
        reporter.bar(f"training {settings.epochs} epochs", total) as bar,
    ):
        while done < total:
            epoch = done // per_epoch
            started, losses = time.monotonic(), list[Tensor]()
            for images, labels in training.images.training(settings.batch, job.seed, epoch, done % per_epoch):
                # 1. One optimizer step on the gradients that the step function leaves.
                torch.manual_seed(seed_from(job.seed, "step", done))
                training.zero_gradients()
                with amp:
                    losses.append(training.step(images, labels, done))
                if settings.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
                rate = float(scheduler.get_last_lr()[0])
                optimizer.step()
                scheduler.step()
                done += 1
                speed = len(losses) * len(labels) / (time.monotonic() - started)
                bar(done, partial(_progress, speed, rate, losses[-1]))
                # 2. Refuse to go on from a broken loss; the state on disk is still a sound one.
                saving = bool(stop) or time.monotonic() - saved_at > settings.save_minutes * 60
                if saving or len(losses) % CHECK_EVERY == 0 or done % per_epoch == 0:
                    _check(losses, done, epoch, rate, job.section)
                # 3. Keep what was done.
                if saving:
                    _save(job, training.network, optimizer, scheduler, done)
                    saved_at = time.monotonic()
                if stop:
                    _stop(done, total, reporter)
            outcome = training.after_epoch()
            network.train()
            mean = torch.stack(losses).mean().item()
            line = f"epoch {epoch + 1}/{settings.epochs}  loss {mean:.4f}  {speed:.0f} images/s  {outcome}"
            bar.passed(line.rstrip())
            _save(job, training.network, optimizer, scheduler, done)
            saved_at = time.monotonic()
            if stop:
                _stop(done, total, reporter)


def _stop(done: int, total: int, reporter: Reporter) -> NoReturn:
    """End the command; what was done is on the disk."""
    reporter.say(f"stopped after step {done} of {total}; the same command with --resume continues")
    raise KeyboardInterrupt


def _progress(speed: float, rate: float, loss: Tensor) -> str:
    """Say how the training goes."""
    return f"{speed:.0f} images/s  loss {loss.item():.3f}  lr {rate:.4f}"


def _check(losses: list[Tensor], done: int, epoch: int, rate: float, section: str) -> None:
    """Raise AutoslimError if one of the latest losses is not finite."""
    if not all(math.isfinite(value) for value in torch.stack(losses[-CHECK_EVERY:]).tolist()):
        raise AutoslimError(
            f"the loss is not finite near step {done} (epoch {epoch + 1}, learning rate {rate:g}); "
            f"lower {section}.lr, or set {section}.warmup=0.05 or {section}.clip=1"
        )


def _save(job: Job, network: nn.Module, optimizer: torch.optim.Optimizer, scheduler: LambdaLR, done: int) -> None:
    """Write the state that `--resume` continues from."""
    state = {
        "decisive": job.decisive,
        "done": done,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    save_state(job.state, state)


def _restore(
    job: Job, training: Training, optimizer: torch.optim.Optimizer, scheduler: LambdaLR, reporter: Reporter
) -> int:
    """Load the saved state if there is one; return the number of steps already done."""
    if not job.state.exists():
        reporter.say("starting from the beginning")
        return 0
    state = load_state(job.state)
    if why := difference(state.get("decisive"), job.decisive):
        raise ArtifactError(
            f"{job.state}: a training with other settings ({why}); restore them, or remove it to start anew"
        )
    fill(training.network, state["network"], job.state)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    reporter.say(f"resuming after step {state['done']}")
    return int(state["done"])


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a step ends before the command does."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if received:  # asked twice: stop now
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
