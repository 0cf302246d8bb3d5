"""Keep what a training continues from: weights, optimizer, rate and the scale of gradients."""

import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.checkpoint import fill, load_state, save_state
from autoslim_cli.files.provenance import difference
from autoslim_cli.training.job import Job


@dataclass(frozen=True)
class State:
    """A network in training, and what changes with it from step to step."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler

    def step(self, clip: float | None) -> None:
        """Take one optimizer step on the gradients at hand, of norm `clip` at most."""
        if clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with warnings.catch_warnings():
            # Where fp16 overflows, the scaler skips the optimizer's step, and the schedule goes on all the same.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.scheduler.step()

    def save(self, job: Job, done: int) -> None:
        """Write the state that `--resume` continues from."""
        state = {
            "decisive": job.decisive,
            "done": done,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        save_state(job.state, state)

    def restore(self, job: Job) -> int:
        """Load the saved state if there is one; return the number of steps already done.

        Raises ArtifactError if it is damaged, or of a training with other settings.
        """
        if not job.state.exists():
            return 0
        state = load_state(job.state)
        if why := difference(state.get("decisive"), job.decisive):
            raise ArtifactError(
                f"{job.state}: a training with other settings ({why}); restore them, or remove it to start anew"
            )
        fill(self.network, state["network"], job.state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        return int(state["done"])
