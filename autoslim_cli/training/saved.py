"""Tell whether what a training saved can be that: optimizers and schedules take over whatever they are given."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
}
"""What an optimizer remembers of each parameter."""


def refuse_other_kind(saved: object, now: object, name: str) -> None:
    """Raise ValueError naming the first part of a saved value that cannot take the place of the one that is there now.

    Types, keys, lengths and shapes must be equal, and numbers finite.
    """
    if isinstance(now, Tensor):
        refuse_tensor(saved, now, name)
    elif isinstance(now, Mapping):
        parts = mapping_of(saved, now, name)
        for key in now:
            refuse_other_kind(parts[key], now[key], f"{name}.{key}")
    elif isinstance(now, list | tuple):
        if type(saved) is not type(now) or len(saved) != len(now):
            raise ValueError(f"{name} is no {type(now).__name__} of {len(now)}")
        for place, (one, other) in enumerate(zip(saved, now, strict=True)):
            refuse_other_kind(one, other, f"{name}.{place}")
    elif type(saved) is not type(now) and not (type(now) is float and type(saved) is int):
        raise ValueError(f"{name} is of the type {type(saved).__name__}, not {type(now).__name__}")
    elif isinstance(saved, int | float) and not math.isfinite(saved):
        raise ValueError(f"{name} is {saved}")


def refuse_tensor(saved: object, now: Tensor, name: str) -> None:
    """Raise ValueError if a saved value is no finite tensor of the same shape and kind."""
    if not isinstance(saved, Tensor) or saved.shape != now.shape:
        shape = list(saved.shape) if isinstance(saved, Tensor) else type(saved).__name__
        raise ValueError(f"{name} is {shape}, not {list(now.shape)}")
    if saved.dtype != now.dtype:
        raise ValueError(f"{name} is of {saved.dtype}, not {now.dtype}")
    if not bool(torch.isfinite(saved).all()):
        raise ValueError(f"{name} holds values that are not finite")


def refuse_tensors(saved: object, now: Sequence[Tensor], name: str) -> None:
    """Raise ValueError if a saved value is no list of tensors like those that are there now."""
    if not isinstance(saved, list) or len(saved) != len(now):
        raise ValueError(f"{name} is no list of {len(now)} tensors")
    for place, tensor in enumerate(now):
        refuse_tensor(saved[place], tensor, f"{name}.{place}")


def refuse_runs(saved: object) -> dict[str, str]:
    """Return the runs of trackers in a state. Raises ValueError if they are no names; some become directories."""
    if not isinstance(saved, dict):
        raise ValueError(f"runs is of the type {type(saved).__name__}, not dict")
    for tracker, run in saved.items():
        if not isinstance(run, str) or not re.fullmatch(r"[^./\\\0][^/\\\0]*", run):
            raise ValueError(f"runs.{str(tracker)[:20]} is {str(run)[:100]!r}")
    return saved


def refuse_optimizer(saved: object, optimizer: torch.optim.Optimizer, done: int, *, skips: bool) -> list[float]:
    """Return the rates in an optimizer's saved state.

    `skips`: a step whose gradients overflow is not taken, so that it may have taken none. Raises ValueError if the
    state is not one of this optimizer after so many steps.
    """
    groups = optimizer.state_dict()["param_groups"]
    saved = mapping_of(saved, ("state", "param_groups"), "optimizer")
    if not isinstance(saved["param_groups"], list) or len(saved["param_groups"]) != len(groups):
        raise ValueError(f"optimizer.param_groups is no list of {len(groups)}")
    rates = []
    for place, (group, now) in enumerate(zip(saved["param_groups"], groups, strict=True)):
        name = f"optimizer.param_groups.{place}"
        if not isinstance(group, Mapping) or group.get("params") != now["params"]:
            raise ValueError(f"{name} is not of these parameters")
        refuse_other_kind(group.get("lr"), 0.0, f"{name}.lr")
        if group["lr"] < 0:
            raise ValueError(f"{name}.lr is {group['lr']}")
        rates.append(float(group["lr"]))
    if not isinstance(saved["state"], Mapping):
        raise ValueError("optimizer.state is no mapping")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entry in saved["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise ValueError(f"optimizer.state has no parameter {str(index)[:100]}")
        _refuse_moments(
            entry, optimizer, parameters[index], range(0 if skips else 1, done + 1), f"optimizer.state.{index}"
        )
    return rates


def _refuse_moments(
    entry: object, optimizer: torch.optim.Optimizer, parameter: Tensor, steps: range, name: str
) -> None:
    """Raise ValueError if what an optimizer is said to remember of a parameter cannot be that."""
    for key, value in mapping_of(entry, MOMENTS[type(optimizer)], name).items():
        if key == "step":
            refuse_tensor(value, torch.zeros(()), f"{name}.step")
            if not steps.start <= float(value) < steps.stop:
                raise ValueError(f"{name}.step is {float(value):g} after {steps.stop - 1} steps")
            continue
        if value is None and not optimizer.defaults.get("momentum", 1):  # SGD without momentum keeps none
            continue
        refuse_tensor(value, parameter, f"{name}.{key}")
        if key == "exp_avg_sq" and bool((value < 0).any()):
            raise ValueError(f"{name}.{key} is negative")


def refuse_scheduler(saved: object, rates: list[float], done: int) -> None:
    """Raise ValueError if a schedule's saved state is not one after so many steps, at the optimizer's rates."""
    if not isinstance(saved, Mapping):
        raise ValueError("scheduler is no mapping")
    for key, wanted in (("last_epoch", done), ("_last_lr", rates)):
        refuse_other_kind(saved.get(key), wanted, f"scheduler.{key}")
        if saved[key] != wanted:
            raise ValueError(f"scheduler.{key} is {str(saved[key])[:100]}, not {str(wanted)[:100]}")


def mapping_of(saved: object, keys: Collection[str], name: str) -> Mapping[str, Any]:
    """Return a saved value that is a mapping with these keys alone. Raises ValueError for any other."""
    if not isinstance(saved, Mapping) or saved.keys() != {*keys}:
        raise ValueError(f"{name} does not hold {', '.join(keys)} alone" if keys else f"{name} is not empty")
    return saved
