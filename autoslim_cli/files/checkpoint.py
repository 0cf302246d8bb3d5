"""Read and write weights as safetensors, and training states that a killed command continues from."""

import io
import json
import pickle
import platform
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from autoslim_cli.errors import ArtifactError, is_out_of_memory
from autoslim_cli.files import kinds
from autoslim_cli.files.atomic import copy_file, write_bytes
from autoslim_cli.files.facts import ModelFacts, SupernetFacts
from autoslim_cli.recipe.errors import explain

SUPERNET = "autoslim.supernet/1"
MODEL = "autoslim.model/1"
_KEY = "autoslim"
_OWN = "; weights of your own are named in model.weights, for retrain.start and retrain.teacher: weights, too"
_KINDS = {SUPERNET: kinds.SUPERNET, MODEL: kinds.NETWORK}
_SCHEMAS: dict[str, type[BaseModel]] = {SUPERNET: SupernetFacts, MODEL: ModelFacts}


def save(path: Path, format_name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors with one JSON object of facts as their metadata, atomically.

    One metadata key, sorted: the same contents give the same bytes.
    """
    metadata = {_KEY: json.dumps({"format": format_name, **facts}, sort_keys=True)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in distinct(tensors).items()}
    write_bytes(path, safetensors.torch.save(plain, metadata))


def distinct(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each tensor under its first name: a layer that goes by two names has its tensors twice."""
    return {name: tensors[name] for name in dict.fromkeys(first_names(tensors).values())}


def first_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return for every name the first one of the same tensor. Views of one memory are tensors of their own."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    return {
        name: first.setdefault((t.data_ptr() if t.numel() else id(t), t.shape, t.stride()), name)
        for name, t in tensors.items()
    }


def read_facts(path: Path, format_name: str, make: str) -> dict[str, Any]:
    """Return the facts of a checkpoint without reading its tensors.

    `make` is the command that makes such a file. Raises ArtifactError if it is missing, damaged or foreign.
    """
    facts = read_any(path, make)
    if facts["format"] != format_name:
        raise ArtifactError(f"{path}: {_KINDS[facts['format']]}, not {_KINDS[format_name]}{_made(make)}")
    return facts


def read_any(path: Path, make: str = "") -> dict[str, Any]:
    """Return the facts of a checkpoint of any format; errors as in `read_facts`, by default without what makes one."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such checkpoint{_made(make)}") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        if (kind := kinds.what_is(path)) is not None and kind not in kinds.CHECKPOINTS:
            advice = _OWN if kind == kinds.WEIGHTS else _made(make)
            raise ArtifactError(f"{path}: {kind}, and no checkpoint{advice}") from None
        raise ArtifactError(f"{path}: damaged or not a checkpoint ({error}){_made(make)}") from None
    if _KEY not in metadata:
        raise ArtifactError(f"{path}: not written by autoslim{_made(make)}{_OWN}")
    try:
        facts = json.loads(metadata[_KEY])
    except (ValueError, RecursionError):  # ValueError: not JSON, numbers beyond all use
        raise ArtifactError(f"{path}: not written by autoslim{_made(make)}") from None
    schema = _SCHEMAS.get(str(facts.get("format"))) if isinstance(facts, dict) else None
    if not isinstance(facts, dict) or schema is None:
        raise ArtifactError(f"{path}: not written by autoslim{_made(make)}")
    try:
        schema.model_validate(facts)
    except ValidationError as error:
        raise ArtifactError(f"{path}: damaged ({explain(error, schema)}){_made(make)}") from None
    return facts


def _made(make: str) -> str:
    """Say which command makes such a file, if there is one to say."""
    return f"; `{make}` makes one" if make else ""


def load(path: Path, format_name: str, make: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the facts of a checkpoint; errors as in `read_facts`."""
    facts = read_facts(path, format_name, make)
    try:
        return safetensors.torch.load_file(path), facts
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{path}: damaged ({error}){_made(make)}") from None


@torch.no_grad()
def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy a checkpoint's tensors into a network. Raises ArtifactError naming one that cannot be the network's."""
    names = first_names(network.state_dict())
    own, tensors = distinct(network.state_dict()), distinct(tensors)
    tensors = {names.get(name, name): tensor for name, tensor in tensors.items()}  # other writers keep another name
    for name in (*own, *tensors):
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            here = list(own[name].shape) if name in own else "no such tensor"
            there = list(tensors[name].shape) if name in tensors else "no such tensor"
            raise ArtifactError(f"{path}: {name} is {there} in the file and {here} in the network")
        if why := broken(name, tensors[name], own[name]):
            raise ArtifactError(f"{path}: {why}")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def broken(name: str, tensor: Tensor, here: Tensor) -> str:
    """Say why a tensor of the right shape cannot be a network's: nothing if it can."""
    if tensor.is_floating_point() != here.is_floating_point() or tensor.is_complex():
        return f"{name} is of {tensor.dtype} in the file and of {here.dtype} in the network"
    if tensor.is_floating_point() and tensor.dtype not in _FLOATS:
        return f"{name} is of {tensor.dtype}: too coarse for weights"
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        return f"{name} holds values that are not finite: the training that made it diverged, or the file is damaged"
    if name.endswith("running_var") and bool((tensor < 0).any()):
        return f"{name} holds negative variances: the file is damaged"
    return ""


def save_state(path: Path, state: Mapping[str, Any], older: int = 0) -> None:
    """Write a training state (tensors and plain values), atomically; keep so many older ones beside it."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    for number in range(older, 0, -1):
        kept = path if number == 1 else older_state(path, number - 1)
        if kept.exists():  # the last one stays in its place, too, until the new one is whole
            copy_file(kept, older_state(path, number))
    write_bytes(path, buffer.getvalue())


def older_state(path: Path, number: int) -> Path:
    """Return where an older training state is kept, 1 being the one before the last."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def older_states(path: Path) -> list[Path]:
    """Return the older training states that are there, however many a training kept."""
    name = re.compile(rf"{re.escape(path.stem)}-\d+{re.escape(path.suffix)}")
    return sorted(found for found in path.parent.iterdir() if name.fullmatch(found.name))


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state; nothing in it is executed. Raises ArtifactError if it is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other protocols
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of damaged bytes the unpickler makes errors of any kind
        if is_out_of_memory(error):
            raise
        # What torch advises on objects that it does not read is meant for who wrote them, and coloured.
        objects = isinstance(error, pickle.UnpicklingError)
        reason = (
            "holds what no training state does" if objects else (str(error) or type(error).__name__).splitlines()[0]
        )
        raise ArtifactError(f"{path}: damaged training state ({reason}); remove it and start again") from None
    if not isinstance(state, dict):
        raise ArtifactError(f"{path}: not a training state; remove it and start again")
    return state


def versions() -> dict[str, str]:
    """Return the versions that an artifact was made with."""
    from autoslim_cli import __version__

    return {"autoslim": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
