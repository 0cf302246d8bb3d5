"""Run one network at any channels: its layers hold full-size tensors and compute with the first channels of them."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import Tensors, assemble, cut, on_device, resize, runs_in_use, sizes, tensors_of
from autoslim_cli.network.table import Channels, LayerRow, Range

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What BN measures."""


@dataclass(frozen=True)
class _Copy:
    """A running average in use that is no view of the full-size one but a copy of several runs of it."""

    in_use: Tensor
    as_cut: Tensor
    runs: list[Range]


class SupernetLayer:
    """One row of the layer table, over the module that holds its tensors at full size.

    The module stays what it is, registered tensors and state dict included. Attributes of the same names shadow its
    tensors and sizes with those in use, and its own code computes with them: the code that an extracted layer runs.
    """

    def __init__(self, body: nn.Module, row: LayerRow, full: Channels) -> None:
        place, self.only = row.place
        self.module, self.row, self.full = body.get_submodule(place), row, full
        self.copies: dict[str, _Copy] = {}

    def tensors(self, channels: Channels) -> Tensors:
        """Return the layer's tensors at `channels`, detached: views wherever the channels are one run."""
        self.keep_measured()
        return {
            name: cut(tensor, runs_in_use(self.row, name, tensor, self.full, channels))
            for name, tensor in tensors_of(self.module, self.only).items()
        }

    def activate(self, channels: Channels, *, batch_statistics: bool) -> None:
        """Compute at `channels` from now on; BN with the batch's statistics, keeping none, or with measured ones.

        Under autograd the active parameters are leaves that share memory with the full-size ones, and so do their
        gradients: the backward passes of several sub-networks add up in place, without a copy.
        """
        self.keep_measured()
        shadow, gradients = self.module.__dict__, torch.is_grad_enabled()
        shadow.update(sizes(self.row, channels))
        for name, tensor in (*self.module._parameters.items(), *self.module._buffers.items()):
            if tensor is None or self.only not in (None, name):
                continue
            if name in STATISTICS and self.row.kind == "norm" and batch_statistics:
                shadow[name] = None
                continue
            runs = runs_in_use(self.row, name, tensor, self.full, channels)
            leaf = gradients and isinstance(tensor, nn.Parameter) and tensor.requires_grad
            shadow[name] = _leaf(tensor, runs) if leaf else cut(tensor.detach(), runs)
        if not batch_statistics and self.row.kind == "norm":
            self._remember_copies([name for name in STATISTICS if name in self.module._buffers], channels)

    def _remember_copies(self, statistics: Iterable[str], channels: Channels) -> None:
        """Remember which running averages in use are copies: after a concat the channels in use are several runs."""
        for name in statistics:
            tensor = self.module._buffers[name]
            if tensor is None:
                continue
            runs = runs_in_use(self.row, name, tensor, self.full, channels).get(0, [])
            if len(runs) > 1:
                in_use = self.module.__dict__[name]
                self.copies[name] = _Copy(in_use, in_use.clone(), runs)

    def keep_measured(self) -> None:
        """Write running averages that were measured in copies to where they were cut from, as views do by themselves.

        What was not measured since it was cut is left: something else may have been loaded there.
        """
        for name, copied in self.copies.items():
            whole = self.module._buffers[name]
            if whole is not None and not torch.equal(copied.in_use, copied.as_cut):
                lengths = [stop - start for start, stop in copied.runs]
                for (start, stop), part in zip(copied.runs, torch.split(copied.in_use, lengths), strict=True):
                    whole[start:stop] = part
        self.copies = {}

    def adopt(self, private: nn.Module, channels: Channels) -> None:
        """Compute at `channels` with the very tensors of a layer of that size, running averages included."""
        self.module.__dict__.update({**sizes(self.row, channels), **private._parameters, **private._buffers})

    def private(self, channels: Channels) -> nn.Module:
        """Return a layer of the size of `channels` with its own copy of this one's first channels."""
        layer = copy.deepcopy(self.module)
        for name in (*self.module._parameters, *self.module._buffers, *sizes(self.row, channels)):
            layer.__dict__.pop(name, None)
        resize(layer, sizes(self.row, channels), {name: t.clone() for name, t in self.tensors(channels).items()})
        return layer


class Supernet(nn.Module):
    """A supernet: the network that was read, at its largest channels, every sub-network inside it.

    `body` is the plain network at `full` channels. In training mode BN uses batch statistics and keeps no running
    averages (US-Nets, section 3.3); in eval mode it uses those that the body holds. Each of `switches` has a BN of its
    own instead, weights and running averages, outside of the part that was read, too (switchable BN: Slimmable
    Networks, section 3.3).
    """

    reading: Reading

    def __init__(
        self, body: nn.Module, reading: Reading, full: Channels, switches: Mapping[str, Channels] | None = None
    ) -> None:
        super().__init__()
        object.__setattr__(self, "reading", reading)
        self.full = dict(full)
        self.body = body
        self.layers = {row.name: SupernetLayer(body, row, self.full) for row in reading.table.rows}
        self.switches = {name: dict(channels) for name, channels in (switches or {}).items()}
        self.switch: str | None = None
        norms = [layer for layer in self.layers.values() if layer.row.kind == "norm"]
        read = {id(layer.module) for layer in norms}
        modules = body.named_modules()
        self.other_norms = {name: m for name, m in modules if isinstance(m, _BatchNorm) and id(m) not in read}
        self.activate(self.full)
        self.private = nn.ModuleDict(
            {
                _key(switch): nn.ModuleDict(
                    {_key(layer.row.name): layer.private(channels) for layer in norms}
                    | {_key(name): _unshadowed(copy.deepcopy(norm)) for name, norm in self.other_norms.items()}
                )
                for switch, channels in self.switches.items()
            }
        )

    @property
    def kept(self) -> nn.Module:
        """Return the module whose tensors a checkpoint holds: the body alone, or with the switches' own BN."""
        return self if self.switches else self.body

    def switch_to(self, name: str) -> None:
        """Run at one of the switches, with its own BN, from now on."""
        self.activate(self.switches[name])
        self.switch = name
        private = cast(nn.ModuleDict, self.private[_key(name)])
        for layer in self.layers.values():
            if layer.row.kind == "norm":
                layer.adopt(private[_key(layer.row.name)], self.channels)
        for other, norm in self.other_norms.items():
            vars(norm).update({**private[_key(other)]._parameters, **private[_key(other)]._buffers})

    def activate(self, channels: Channels) -> None:
        """Run at `channels` from now on. In training, call it before every forward pass."""
        self.channels, self.switch = dict(channels), None
        gradients = torch.is_grad_enabled()
        # Calibration runs in inference mode: copies made in it could not be used by autograd afterwards.
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            for layer in self.layers.values():
                layer.activate(channels, batch_statistics=self.training)
        self.let_other_norms(batch_statistics=self.training)

    def let_other_norms(self, *, batch_statistics: bool) -> None:
        """Let BN outside of the part that was read use the batch's statistics, keeping none, or measured ones."""
        for norm in self.other_norms.values():
            _unshadowed(norm)
            if batch_statistics:
                vars(norm).update(dict.fromkeys(name for name in STATISTICS if name in norm._buffers))

    def train(self, mode: bool = True) -> "Supernet":
        """Switch between batch statistics (training) and measured ones (eval)."""
        super().train(mode)
        self.switch_to(self.switch) if self.switch else self.activate(self.channels)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Supernet":
        """Move all tensors, as `to` does, and compute with those that were moved: views stay on what they are of."""
        for layer in self.layers.values():
            layer.keep_measured()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.switch_to(self.switch) if self.switch else self.activate(self.channels)
        return self

    def forward(self, *inputs: Any) -> Any:
        """Compute what the network gives of its inputs, images (batch, channels, height, width), at active channels.

        Of a detector that is the losses of images and targets in training mode, detections in eval mode.
        """
        return self.body(*inputs)

    def zero_gradients(self) -> None:
        """Zero all gradients in place: those of the sub-networks are views of them. Frozen weights have none."""
        for parameter in self.parameters():
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()

    def extract(self, channels: Channels, switch: str | None = None) -> nn.Module:
        """Return the sub-network at `channels` as a plain network of its own, with a switch's BN if one is given."""
        private = cast(nn.ModuleDict, self.private[_key(switch)]) if switch else None

        def tensors(row: LayerRow) -> Tensors:
            active = self.layers[row.name].tensors(channels)
            if private is not None and row.kind == "norm":
                active = tensors_of(private[_key(row.name)])
            return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in active.items()}

        plain = assemble(self.reading.module, self.reading.table, channels, tensors)
        modules = dict(self.body.named_modules())
        modules |= {name: private[_key(name)] for name in self.other_norms} if private is not None else {}
        with torch.no_grad():
            for name, module in plain.named_modules():
                for key, tensor in tensors_of(module).items():
                    if (
                        not {name, f"{name}.{key}".lstrip(".")} & self.layers.keys()
                    ):  # weights of what was not understood
                        tensor.copy_(tensors_of(modules[name])[key])
        device = next(self.body.parameters()).device
        return on_device(plain, device, self.reading.part).train(self.training)


def largest(switches: Mapping[str, Channels]) -> dict[str, int]:
    """Return the channels that hold all switches."""
    units = dict.fromkeys(unit for channels in switches.values() for unit in channels)
    return {unit: max(channels[unit] for channels in switches.values()) for unit in units}


def _key(name: str) -> str:
    """Return a name fit for a ModuleDict: no dots, and none of nn.Module's own attributes (`half`)."""
    return "/" + name.replace(".", "/")


def _unshadowed(norm: nn.Module) -> nn.Module:
    """Let a layer compute with its registered tensors; return it."""
    for name in (*norm._parameters, *norm._buffers):
        vars(norm).pop(name, None)
    return norm


def _leaf(parameter: Tensor, runs: dict[int, list[Range]]) -> Tensor:
    """Return the used part of a parameter as leaves whose gradients are views of the parameter's."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return _joined_leaves(parameter.detach(), parameter.grad, list(runs.items()))


def _joined_leaves(tensor: Tensor, gradient: Tensor, runs: list[tuple[int, list[Range]]]) -> Tensor:
    """Return one leaf for each run (after a concat a layer's inputs are several), joined."""
    if not runs:
        leaf = tensor.requires_grad_()
        leaf.grad = gradient
        return leaf
    (dim, parts), *rest = runs
    spans = [(start, stop - start) for start, stop in parts]
    leaves = [_joined_leaves(tensor.narrow(dim, *span), gradient.narrow(dim, *span), rest) for span in spans]
    return leaves[0] if len(leaves) == 1 else torch.cat(leaves, dim)
