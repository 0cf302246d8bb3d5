"""Score many sub-networks that differ by one unit each: one shared forward pass, forked at the cut.

A candidate shrinks one unit of the current network. Every tensor before the first operation that mixes that unit's
channels is the current network's own, less the removed channels: it is sliced, not computed again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from autoslim_cli.network.supernet import Supernet
from autoslim_cli.network.table import Channels, ranges

Values = dict[fx.Node, Any]


@dataclass(frozen=True)
class Candidate:
    """The current channels with one unit at a smaller count."""

    unit: str
    count: int


class ForkedEvaluator:
    """Run a supernet's graph in eval mode (dropout and stochastic depth off), BN in batch statistics, and fork it.

    Layers are activated one by one as the graph reaches them: activate the supernet again before running it whole.
    """

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet.eval()
        self.nodes: list[fx.Node] = list(supernet.reading.graph.nodes)
        self.layouts = supernet.reading.layouts
        self.dying = self._last_uses()
        self.fork_at = self._fork_points()
        self.modules = dict(supernet.body.named_modules())

    def fork_place(self, unit: str) -> int:
        """Return the index of the node at which candidates of a unit leave the shared pass."""
        return self.fork_at.get(unit, len(self.nodes) - 1)

    @torch.inference_mode()
    def logits(self, images: Tensor, channels: Channels) -> Tensor:
        """Return the logits (images, classes) of one sub-network."""
        return self._finish(0, {self.nodes[0]: images}, channels)

    @torch.inference_mode()
    def forked_logits(
        self, images: Tensor, channels: Channels, candidates: Sequence[Candidate]
    ) -> Iterator[tuple[Candidate, Tensor]]:
        """Yield each candidate with its logits (images, classes), in the order of their cuts.

        Memory: the live tensors of two forward passes.
        """
        waiting = sorted(candidates, key=lambda candidate: self.fork_place(candidate.unit))
        values: Values = {self.nodes[0]: images}
        for place, node in enumerate(self.nodes):
            while waiting and self.fork_place(waiting[0].unit) == place:
                candidate = waiting.pop(0)
                fewer = {**channels, candidate.unit: candidate.count}
                yield candidate, self._finish(place, self._sliced(values, candidate, channels), fewer)
            if not waiting:
                return
            self._step(node, values, channels)

    def _finish(self, place: int, values: Values, channels: Channels) -> Tensor:
        """Run the graph from a node to its output."""
        for node in self.nodes[place:-1]:
            self._step(node, values, channels)
        output: Any = fx.node.map_arg(self.nodes[-1].args[0], values.__getitem__)
        return output  # type: ignore[no-any-return]

    def _step(self, node: fx.Node, values: Values, channels: Channels) -> None:
        """Compute one node and let go of the tensors that no later node needs."""
        if node.op != "placeholder":
            values[node] = self._compute(node, values, channels)
        for gone in self.dying[node]:
            values.pop(gone, None)

    def _compute(self, node: fx.Node, values: Values, channels: Channels) -> Any:
        """Compute one node at the given channels."""
        held: Any = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
        args, kwargs = held
        target: Any = node.target
        if node.op == "call_function":
            return target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if layer := self.supernet.layers.get(target):
            layer.activate(channels, batch_statistics=True)
        if node.op == "get_attr":
            return _attribute(self.supernet.body, target)
        module: Any = self.modules[target]
        if not getattr(module, "inplace", False):
            return module(*args, **kwargs)
        module.inplace = False  # forks share their tensors
        try:
            return module(*args, **kwargs)
        finally:
            module.inplace = True

    def _sliced(self, values: Values, candidate: Candidate, channels: Channels) -> Values:
        """Return the values of the shared pass as the candidate would have computed them."""
        fewer = {**channels, candidate.unit: candidate.count}
        return {node: self._slice(node, value, candidate, channels, fewer) for node, value in values.items()}

    def _slice(self, node: fx.Node, value: Any, candidate: Candidate, held: Channels, used: Channels) -> Any:
        """Drop the removed channels from one tensor."""
        dim, layout = self.layouts.get(node, (0, ()))
        if all(segment.unit != candidate.unit for segment in layout):
            return value
        pieces = [value.narrow(dim, start, stop - start) for start, stop in ranges(layout, held, used)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)

    def _last_uses(self) -> dict[fx.Node, list[fx.Node]]:
        """Return, for each node, the nodes whose values are not needed after it."""
        last: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            for source in (node, *node.all_input_nodes):
                last[source] = node
        dying: dict[fx.Node, list[fx.Node]] = {node: [] for node in self.nodes}
        for source, node in last.items():
            dying[node].append(source)
        return dying

    def _fork_points(self) -> dict[str, int]:
        """Find the first node per unit that mixes its channels, or that reads a size that depends on them."""
        mixing = self.supernet.reading.mixing
        tensors = self.layouts.keys()
        first: dict[str, int] = {}
        for place, node in enumerate(self.nodes):
            if node in mixing or node not in tensors:
                for source in node.all_input_nodes:
                    for segment in self.layouts.get(source, (0, ()))[1]:
                        if segment.unit is not None:
                            first.setdefault(segment.unit, place)
        return first


def _attribute(module: Any, target: str) -> Any:
    """Return a dotted attribute."""
    for part in target.split("."):
        module = getattr(module, part)
    return module
