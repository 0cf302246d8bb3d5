"""Run one network at any channels: slimmable layers hold full-size weights and use the first k channels."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoslim_cli.network.pointwise import convolve
from autoslim_cli.network.rebuild import Tensors, assemble, cut, replace, runs_in_use, tensors_of
from autoslim_cli.network.table import Channels, LayerRow, Range
from autoslim_cli.network.trace import Reading


class SlimmableLayer(nn.Module):
    """Hold one layer's tensors at full size and compute with the channels that are active.

    It takes over the plain layer's tensors under their names, so a supernet's state dict reads like the network's.
    In training mode BN uses batch statistics and keeps no running averages (US-Nets, section 3.3).
    """

    plain: Any

    def __init__(self, plain: nn.Module, row: LayerRow, full: Channels) -> None:
        super().__init__()
        self.row = row
        self.full = full
        object.__setattr__(self, "plain", plain)  # kept for its options (stride, eps, ...), not as a submodule
        for name, parameter in plain._parameters.items():
            self.register_parameter(name, parameter)
        for name, buffer in plain._buffers.items():
            self.register_buffer(name, buffer)
        self.active: Tensors = {}

    def tensors(self, channels: Channels) -> Tensors:
        """Return the layer's tensors at `channels`, detached: views wherever the channels are one run."""
        return {
            name: cut(tensor, runs_in_use(self.row, name, tensor, self.full, channels))
            for name, tensor in tensors_of(self).items()
        }

    def activate(self, channels: Channels) -> None:
        """Compute at `channels` from now on.

        Under autograd the active parameters are leaves that share memory with the full-size ones, and so do their
        gradients: the backward passes of several sub-networks add up in place, without a copy.
        """
        self.active = self.tensors(channels)
        if torch.is_grad_enabled():
            for name, parameter in self._parameters.items():
                if parameter is not None and parameter.requires_grad:
                    self.active[name] = _leaf(parameter, runs_in_use(self.row, name, parameter, self.full, channels))

    def compute(self, x: Tensor, tensors: Tensors, *, batch_statistics: bool) -> Tensor:
        """Compute the layer on `x` with tensors of some channels."""
        weight, bias = tensors.get("weight"), tensors.get("bias")
        if self.row.kind == "norm":
            eps = self.plain.eps
            if batch_statistics or "running_mean" not in tensors:
                return F.batch_norm(x, None, None, weight, bias, training=True, momentum=0.0, eps=eps)
            mean, variance = tensors["running_mean"], tensors["running_var"]
            return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        assert weight is not None
        if self.row.kind == "linear":
            return F.linear(x, weight, bias)
        groups = x.shape[1] // self.row.group_inputs if self.row.group_inputs else 1
        return convolve(self.plain, x, weight, bias, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Compute with the active channels."""
        return self.compute(x, self.active, batch_statistics=self.training)


class SlimmableNetwork(nn.Module):
    """A supernet: the network that was read, at its largest channels, every sub-network inside it.

    `body` is the plain network at `full` channels; its layers are replaced by slimmable ones.
    """

    reading: Reading

    def __init__(self, body: nn.Module, reading: Reading, full: Channels) -> None:
        super().__init__()
        object.__setattr__(self, "reading", reading)
        self.full = dict(full)
        self.body = body
        modules: Iterator[Any] = body.modules()
        for module in modules:
            if getattr(module, "inplace", False):  # forks of an evaluation share their tensors
                module.inplace = False
        self.layers: dict[str, SlimmableLayer] = {}
        for row in reading.table.rows:
            self.layers[row.name] = SlimmableLayer(body.get_submodule(row.name), row, self.full)
            replace(body, row.name, self.layers[row.name])
        self.activate(self.full)

    def activate(self, channels: Channels) -> None:
        """Run at `channels` from now on. In training, call it before every forward pass."""
        self.channels = dict(channels)
        for layer in self.layers.values():
            layer.activate(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (batch, classes) of images (batch, channels, height, width) at the active channels."""
        logits: Tensor = self.body(images)
        return logits

    def zero_gradients(self) -> None:
        """Zero all gradients in place: those of the sub-networks are views of them."""
        for parameter in self.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()

    def extract(self, channels: Channels) -> nn.Module:
        """Return the sub-network at `channels` as a plain network with its own copy of the weights."""

        def tensors(row: LayerRow) -> Tensors:
            own = self.layers[row.name].tensors(channels)
            return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in own.items()}

        plain = assemble(self.reading.module, self.reading.table, channels, tensors)
        read = tuple(f"{row.name}." for row in self.reading.table.rows)
        here = self.body.state_dict()
        with torch.no_grad():
            for name, tensor in plain.state_dict().items():
                if not name.startswith(read):  # weights of operations that were not understood
                    tensor.copy_(here[name])
        device = next(self.body.parameters()).device
        plain.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return plain.train(self.training)


def _leaf(parameter: nn.Parameter, dims: list[list[Range]]) -> Tensor:
    """Return the used part of a parameter as leaves whose gradients are views of the parameter's.

    After a concat a layer's inputs are several runs: one leaf each, joined (at most one dimension has several).
    """
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    several = next((dim for dim, runs in enumerate(dims) if len(runs) > 1), 0)
    leaves = []
    for run in dims[several]:
        one = [*dims[:several], [run], *dims[several + 1 :]]
        leaf = cut(parameter.detach(), one).requires_grad_()
        leaf.grad = cut(parameter.grad, one)
        leaves.append(leaf)
    return leaves[0] if len(leaves) == 1 else torch.cat(leaves, several)
