"""Keep what a training continues from: weights, optimizer, rate and the scale of gradients."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from autoslim_cli.errors import ArtifactError, AutoslimError, is_out_of_memory
from autoslim_cli.files.checkpoint import fill, load_state, save_state
from autoslim_cli.files.provenance import decisive_difference
from autoslim_cli.training.job import Job
from autoslim_cli.training.optimiser import remember_nothing
from autoslim_cli.training.saved import (
    mapping_of,
    refuse_optimizer,
    refuse_other_kind,
    refuse_runs,
    refuse_scheduler,
    refuse_tensors,
)


class Averaged:
    """An exponential moving average of tensors: weights, and BN's running averages."""

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        self.tensors = [tensor.detach() for tensor in tensors]
        self.decay = decay
        self.means = [tensor.clone() for tensor in self.tensors]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the tensors as they are after a number of steps."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)(self.means, self.tensors, steps)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange the tensors and their means."""
        for tensor, mean in zip(self.tensors, self.means, strict=True):
            now = tensor.clone()
            tensor.copy_(mean)
            mean.copy_(now)


@dataclass
class Epochs:
    """How many epochs are over, the looks at their ends included.

    Of them the one of the lowest holdout loss, the first being 1, and the network's tensors then, if kept.
    """

    over: int = 0
    best: int = 0
    loss: float = float("inf")
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """A network in training, and what changes with it from step to step."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    averaged: Averaged | None = None
    epochs: Epochs = field(default_factory=Epochs)
    runs: dict[str, str] = field(default_factory=dict)
    """The runs of trackers that it is told to, by the tracker."""

    @contextmanager
    def as_kept(self) -> Iterator[None]:
        """Let the network have the averaged weights, if it has any, for as long as it is scored."""
        if self.averaged is None:
            yield
            return
        self.averaged.exchange()
        try:
            yield
        finally:
            self.averaged.exchange()

    def note(self, loss: float, *, keep: bool) -> None:
        """Note the holdout loss after the last epoch; `keep` the network's tensors if it is the lowest so far."""
        if loss < self.epochs.loss:
            self.epochs.best, self.epochs.loss = self.epochs.over, loss
            if keep:
                with self.as_kept():
                    self.epochs.tensors = {name: t.clone() for name, t in self.network.state_dict().items()}

    def end(self) -> None:
        """Give the network the weights that the training ends with: the best, the averaged, or the last."""
        if self.epochs.tensors:
            self.network.load_state_dict(self.epochs.tensors)
        elif self.averaged is not None:
            self.averaged.exchange()

    def step(self, clip: float | None, done: int) -> None:
        """Take one optimizer step on the gradients at hand, of norm `clip` at most: with it so many are done."""
        if clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with warnings.catch_warnings():
            # Where fp16 overflows, the scaler skips the optimizer's step, and the schedule goes on all the same.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.scheduler.step()
        if self.averaged is not None:
            self.averaged.update(done)

    def save(self, job: Job, done: int) -> None:
        """Write the state that `--resume` continues from, if the job has a file for it."""
        weights = [weight.isfinite().all() for weight in self.network.parameters()]
        if weights and not bool(torch.stack(weights).all()):
            raise AutoslimError(
                f"weights are not finite after step {done}, and are not kept; lower {job.section}.lr, or set "
                f"{job.section}.warmup=0.05 or {job.section}.clip=1"
            )
        if job.state is None:
            return
        state = {
            "decisive": job.decisive,
            "done": done,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.means if self.averaged else [],
            "epochs": vars(self.epochs),
            **({"runs": self.runs} if self.runs else {}),
        }
        save_state(job.state, state, older=job.settings.keep_states - 1)

    def restore(self, job: Job) -> int:
        """Load the saved state if there is one; return the number of steps already done.

        Raises ArtifactError if it is damaged, or of a training with other settings.
        """
        if job.state is None or not job.state.exists():
            return 0
        state = load_state(job.state)
        try:
            return self._take(state, job, job.state)
        except (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            raise ArtifactError(
                f"{job.state}: damaged training state ({kind}{reason}); remove it and start again"
            ) from None

    def _take(self, state: dict[str, Any], job: Job, path: Path) -> int:
        """Take over a saved state; return the number of steps done. What is damaged raises errors of many kinds."""
        if why := decisive_difference(state.get("decisive"), job.decisive):
            raise ArtifactError(
                f"{path}: a training with other settings ({why}); restore them, or add --force to give it up and "
                "start anew"
            )
        # 1. All of it is what it says: loading would take over anything, and fail steps later, or never.
        done, epochs = state["done"], mapping_of(state["epochs"], vars(self.epochs), "epochs")
        if type(done) is not int or done < 0:
            raise ValueError(f"done is {str(done)[:100]}")
        skips = self.scaler.is_enabled()
        rates = refuse_optimizer(state["optimizer"], self.optimizer, done, skips=skips)
        remembers = self.optimizer.defaults.get("momentum", 1) and not skips
        if done and remembers and not state["optimizer"]["state"]:
            raise ValueError(f"optimizer.state is empty after {done} steps")
        refuse_scheduler(state["scheduler"], rates, done)
        refuse_other_kind(state["scaler"], self.scaler.state_dict(), "scaler")
        refuse_tensors(state["averaged"], self.averaged.means if self.averaged else [], "averaged")
        for name in ("over", "best"):
            refuse_other_kind(epochs[name], 0, f"epochs.{name}")
        if not 0 <= epochs["best"] <= epochs["over"]:
            raise ValueError(f"epochs.best is {epochs['best']} of {epochs['over']}")
        if type(epochs["loss"]) is not float or math.isnan(epochs["loss"]):
            raise ValueError(f"epochs.loss is {str(epochs['loss'])[:100]}")
        refuse_other_kind(epochs["tensors"], self.network.state_dict() if epochs["tensors"] else {}, "epochs.tensors")
        runs = refuse_runs(state.get("runs", {}))
        # 2. Take it over.
        fill(self.network, state["network"], path)
        groups = self.optimizer.state_dict()["param_groups"]  # of the settings, but for the rates
        groups = [{**group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        remember_nothing(self.optimizer)
        place = {"last_epoch": done, "_step_count": done + 1, "_last_lr": rates}
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), **place})
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            for mean, saved in zip(self.averaged.means, state["averaged"], strict=True):
                mean.copy_(saved)
        vars(self.epochs).update(epochs)
        self.runs.update(runs)
        return done
