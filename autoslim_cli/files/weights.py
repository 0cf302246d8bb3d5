"""Read weights as everyday tools save them: state dicts, checkpoints that hold one, whole pickled networks."""

import pickle
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from autoslim_cli.errors import ArtifactError, is_out_of_memory
from autoslim_cli.files import kinds
from autoslim_cli.near import listed

_MOST_CLASSES = 100
"""Classes that one pickled file may name: a network with its settings and its optimizer has some dozens."""

_MOST_MODULES = 100_000
"""Modules of one pickled network: a file may say that a module lies in itself."""

_DEPTH = 3
"""How deep in a file weights are looked for: `{"state": {"model": {...}}}`."""

SHOWN = 3
"""How many names of tensors a message gives."""

_AVERAGED = ("ema", "teacher", "momentum", "target", "averaged")
"""Words of names under which trainings keep a second copy of a network."""

_SAVE = "save it anew as torch.save(network.state_dict(), FILE)"


@dataclass(frozen=True)
class Weights:
    """Tensors by the names that a network has for them, and what was done to get at them, for a person."""

    tensors: dict[str, Tensor]
    done: tuple[str, ...] = ()


def load_weights(path: Path, key: str, wanted: Collection[str]) -> Weights:
    """Return the weights of a network whose tensors are called `wanted`; nothing in the file is executed.

    A file may hold several dictionaries (timm's, Lightning's, torchvision's checkpoints), names may have a prefix
    (`module.`, `model.`): that part is taken which has most of the wanted names.
    Raises ArtifactError naming the recipe key `key` if the file is missing, cannot be read, or has none of the names.
    """
    if not path.is_file():
        raise ArtifactError(f"{key}: no file {path}")
    if (kind := kinds.what_is(path)) not in (None, kinds.TEXT, kinds.WEIGHTS, *kinds.CHECKPOINTS):
        raise ArtifactError(f"{key}: {path} is {kind}, not weights: name a file of torch.save, or safetensors")
    if path.suffix == ".safetensors":
        try:
            parts: list[_Part] = [_Part((), safetensors.torch.load_file(path))]
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise ArtifactError(f"{key}: {path} is damaged ({error})") from None
    else:
        parts = list(_parts(_unpickled(path, key), (), set()))
    if not parts:
        raise ArtifactError(f"{key}: {path} holds no tensors by name; {_SAVE}")
    fits = {part.where: (part, *fit) for part in parts if (fit := _prefix(part.tensors, wanted, f"{key}: {path}"))}
    if not fits:
        names = max((part.tensors for part in parts), key=len)
        raise ArtifactError(
            f"{key}: {path} has none of the network's tensors: it holds {listed(names, SHOWN)}, and the network has "
            f"{listed(wanted, SHOWN)}"
        )
    most = max(count for _, _, count in fits.values())
    best = [where for where, (_, _, count) in fits.items() if count == most]
    chosen = _one(best, f"{key}: {path}", sure=most > len(wanted) / 2)
    part, prefix, _ = fits[chosen]
    return _renamed(part, prefix, [where for where in best if where != chosen])


@dataclass(frozen=True)
class _Part:
    """Tensors that lie together in a file, and the keys that lead to them; `of` is the class of a pickled network."""

    place: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    of: str | None = None

    @property
    def where(self) -> str:
        """Return the keys as a person writes them."""
        return ".".join(self.place) or "the file itself"


class _Inert:
    """Stand in for a class or function that a pickled file names: take whatever is given, and do nothing with it."""

    def __new__(cls, *_: object, **__: object) -> Self:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            vars(self).update(state)


class _InertDict(_Inert):
    """The same for a class of dictionaries, of which the unpickler fills its own alone."""

    def __new__(cls, *_: object, **__: object) -> OrderedDict[object, object]:  # type: ignore[misc]
        return OrderedDict()


class _InertList(_Inert):
    """The same for a class of lists."""

    def __new__(cls, *_: object, **__: object) -> list[object]:  # type: ignore[misc]
        return []


_NAMED = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
_FILLED = re.compile(r"Can only (SETITEM|append|extend).* but got <class '([\w.]+)'>")
_FILLED_BY_OLDER = re.compile(r"'(\w+)' object does not support item assignment")
"""How older releases of torch say that they fill a class of dictionaries: by the last part of its name alone."""


def _unpickled(path: Path, key: str) -> object:
    """Return what torch.save wrote, with an inert object for each of a class that is not torch's own.

    The safe unpickler names one class at a time, in the error that it makes of it.
    """
    stand_ins: dict[str, type[_Inert]] = {}

    def add(name: str, kind: type[_Inert]) -> bool:
        """Let a kind of inert object stand in for a class. Returns whether that is new."""
        name = name if "." in name else f"builtins.{name}"
        module, _, last = name.rpartition(".")
        known = name in stand_ins and issubclass(stand_ins[name], kind)
        stand_ins[name] = type(last, (kind,), {"__module__": module})
        return not known

    for _ in range(_MOST_CLASSES):
        try:
            allowed = torch.serialization.safe_globals(list(stand_ins.values())) if stand_ins else nullcontext()
            with warnings.catch_warnings(), allowed:
                warnings.simplefilter("ignore")  # about pickles of other protocols, and TorchScript
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if (named := _NAMED.search(str(error))) and add(named[1], _Inert):
                continue
            filled = _FILLED.search(str(error))
            if filled and add(filled[2], _InertDict if filled[1] == "SETITEM" else _InertList):
                continue
            blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"names {blocked[1]}, which is not read" if blocked else "is no pickle that torch wrote"
            raise ArtifactError(f"{key}: {path} {what}; {_SAVE}") from None
        except Exception as error:  # of damaged bytes the unpickler makes errors of any kind
            if is_out_of_memory(error):
                raise
            filled = _FILLED_BY_OLDER.search(str(error))
            alike = [name for name in stand_ins if filled and name.rpartition(".")[2] == filled[1]]
            if any(add(name, _InertDict) for name in alike):
                continue
            what = "is a TorchScript archive" if "TorchScript" in str(error) else "is neither weights nor a checkpoint"
            raise ArtifactError(f"{key}: {path} {what}; {_SAVE}") from None
    raise ArtifactError(f"{key}: {path} names more than {_MOST_CLASSES} classes; {_SAVE}")


def _parts(value: object, place: tuple[str, ...], seen: set[int]) -> Iterator[_Part]:
    """Yield what lies together in a file and has tensors: dictionaries, and networks that were pickled whole."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, _Inert):
        if "_modules" in vars(value):
            if tensors := dict(_state_of(value)):
                yield _Part(place, tensors, f"{type(value).__module__}.{type(value).__qualname__}")
            return
        value = vars(value)
    if not isinstance(value, Mapping):
        return
    if tensors := {name: t for name, t in value.items() if isinstance(name, str) and isinstance(t, Tensor)}:
        yield _Part(place, tensors)
    for name, inner in value.items() if len(place) < _DEPTH else ():
        yield from _parts(inner, (*place, str(name)), seen)


def _state_of(network: _Inert) -> Iterator[tuple[str, Tensor]]:
    """Yield the state dict of a network that was pickled whole, from the attributes that every nn.Module has."""
    open_modules = [("", network)]
    for _ in range(_MOST_MODULES):
        if not open_modules:
            return
        prefix, module = open_modules.pop()
        transient = vars(module).get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _items(module, kind):
                if isinstance(tensor, Tensor) and name not in transient:
                    yield f"{prefix}{name}", tensor.detach()
        open_modules += [(f"{prefix}{name}.", m) for name, m in _items(module, "_modules") if isinstance(m, _Inert)]


def _items(module: _Inert, kind: str) -> Iterable[tuple[object, object]]:
    """Return the entries of one of a module's dictionaries, none if a file has something else there."""
    entries = vars(module).get(kind)
    return entries.items() if isinstance(entries, Mapping) else ()


def _one(networks: Collection[str], where: str, *, sure: bool) -> str:
    """Return which of some networks that fit alike is meant: the one that is no second copy.

    Raises ArtifactError if that cannot be told of networks that are `sure` to be those. Of others, which share a few
    names by chance, it is the one that is nearest: what it lacks is said later.
    """
    first, *others = sorted(networks, key=lambda name: (_is_averaged(name), len(name)))
    if sure and any(_is_averaged(first) == _is_averaged(other) for other in others):
        names = " and ".join(name or "names without a prefix" for name in networks)
        raise ArtifactError(f"{where} holds several networks that fit, {names}: save one of them alone")
    return first


def _prefix(names: Collection[str], wanted: Collection[str], where: str) -> tuple[str, int] | None:
    """Return what stands before most of the wanted names, and before how many; None if there are none."""
    wanted = set(wanted)
    counts: Counter[str] = Counter()
    for name in names:
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        counts.update(name[:start] for start in starts if name[start:] in wanted)
    if not counts:
        return None
    most = max(counts.values())
    best = [prefix for prefix, count in counts.items() if count == most]
    return _one(best, where, sure=most > len(wanted) / 2), most


def _is_averaged(name: str) -> bool:
    """Tell whether a name says that it is of a second copy of a network."""
    return any(word in re.split(r"[._]", name.lower()) for word in _AVERAGED)


def _renamed(part: _Part, prefix: str, left: list[str]) -> Weights:
    """Return a part's weights by the network's names, and what was done."""
    tensors = {name.removeprefix(prefix): t for name, t in part.tensors.items() if name.startswith(prefix)}
    outside = [name for name in part.tensors if not name.startswith(prefix)]
    done = [f"took {part.where}"] if part.place else []
    done += [f"read the tensors of a pickled {part.of}, running none of its code"] if part.of else []
    done += [f"took {prefix!r} off the names"] if prefix else []
    done += [f"left out {listed(outside, SHOWN)}"] if outside else []
    done += [f"left {' and '.join(left)}, which fits, too"] if left else []
    return Weights(tensors, tuple(done))
