"""Run many sub-networks that differ by a few units: one shared forward pass, forked at the cut.

A candidate changes some units of the current network. A tensor that does not depend on the changed channels is the
current network's own; one that holds channels that go is it, less those: sliced, not computed again. So the shared pass
is left at the first operation that mixes channels of a slimmed unit, and only what follows from it is computed anew:
parallel branches are shared, too. Where that operation is linear, its result is the current network's, less what the
channels that go add to it. A unit that grows is left where its channels are first made.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

from autoslim_cli.network.table import Channels, ranges
from autoslim_cli.slimming import subtract
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.slimming.supernet import Supernet

Values = dict[fx.Node, Any]
Fetch = Callable[[fx.Node], Any]


class ForkedEvaluator:
    """Run a supernet's graph in eval mode (dropout and stochastic depth off), BN in batch statistics, and fork it.

    Layers are activated one by one as the graph reaches them: activate the supernet again before running it whole.
    `multiply_adds` counts what was done so far, over all images.
    """

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet.eval()
        self.nodes: list[fx.Node] = list(supernet.reading.graph.nodes)
        self.place = {node: place for place, node in enumerate(self.nodes)}
        self.layouts = supernet.reading.layouts
        self.dying = self._last_uses()
        self.modules = dict(supernet.body.named_modules())
        self.calls = Counter(str(node.target) for node in self.nodes if node.op == "call_module")
        self.units = {name: sorted(layer.row.units) for name, layer in supernet.layers.items()}
        self.linear = {
            node: layer
            for node in self.nodes
            if node.op == "call_module"
            and len(node.args) == 1
            and (layer := supernet.layers.get(str(node.target)))
            and subtract.is_linear(layer)
        }
        self.active: dict[str, tuple[int, ...]] = {}  # at which counts a layer computes, within one call
        self.multiply_adds = 0
        self.measuring, self.most = False, 0
        self._departing = cache(self._find_departing)
        self._tainted = cache(self._find_tainted)

    def fork_place(self, candidate: Candidate, channels: Channels) -> int:
        """Return the index of the node at which a candidate leaves the shared pass."""
        departing = self._departures(candidate, channels)
        return min((self.place[node] for node in departing), default=len(self.nodes) - 1)

    def work(self, candidate: Candidate, channels: Channels) -> tuple[int, int]:
        """Return the multiply-adds per image that a candidate needs of the shared pass, and of its own."""
        place, tainted = self.fork_place(candidate, channels), self._taint(candidate, channels)
        changed = candidate.applied(channels)
        less = {node for node in tainted if self._is_less(node, tainted, channels, changed)}
        own = sum(self._less_cost(node, channels, changed) for node in less)
        own += sum(self._cost(node, changed) for node in tainted - less)
        shared = {*self.nodes[:place], *less}
        for node in reversed(self.nodes):
            if node in less or node in tainted or node in shared or node is self.nodes[-1]:
                shared.update(source for source in node.all_input_nodes if source not in tainted)
        return sum(self._cost(node, channels) for node in shared), own

    @torch.inference_mode()
    def logits(self, images: Tensor, channels: Channels) -> Tensor:
        """Return the logits (images, classes) of one sub-network."""
        self.active.clear()
        values: Values = {self.nodes[0]: images}
        for node in self.nodes[:-1]:
            self._step(node, values, channels)
        return self._output(values.__getitem__)

    @torch.inference_mode()
    def forked_logits(
        self, images: Tensor, channels: Channels, candidates: Sequence[Candidate]
    ) -> Iterator[tuple[Candidate, Tensor]]:
        """Yield each candidate with its logits (images, classes), in the order of their cuts.

        Memory: the live tensors of two forward passes, and of branches that run beside a cut.
        """
        cuts = {candidate: self.fork_place(candidate, channels) for candidate in candidates}
        waiting = sorted(candidates, key=cuts.__getitem__)
        self.active.clear()
        values: Values = {self.nodes[0]: images}
        for place, node in enumerate(self.nodes):
            while waiting and cuts[waiting[0]] == place:
                candidate = waiting.pop(0)
                yield candidate, self._fork(place, values, candidate, channels)
            if not waiting:
                return
            self._step(node, values, channels)

    def peak_bytes(self, images: Tensor, channels: Channels, candidates: Sequence[Candidate]) -> float:
        """Return the most bytes per image that live tensors hold at a time while candidates are scored."""
        self.measuring, self.most = True, 0
        for _ in self.forked_logits(images, channels, candidates):
            pass
        self.measuring = False
        return self.most / len(images)

    def _live(self, *held: Values) -> int:
        """Return the bytes that some values hold, each memory once."""
        tensors = [tensor for values in held for tensor in _tensors(values.values())]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    def _fork(self, place: int, values: Values, candidate: Candidate, channels: Channels) -> Tensor:
        """Run what a candidate computes differently, from its cut to the output."""
        changed, tainted = candidate.applied(channels), self._taint(candidate, channels)
        own: Values = {}

        def fetch(node: fx.Node) -> Any:
            if node not in own:
                own[node] = self._slice(node, self._shared(node, values, channels), channels, changed, candidate)
            return own[node]

        for node in self.nodes[place:-1]:
            if node in tainted:
                if self._is_less(node, tainted, channels, changed):
                    own[node] = self._less(node, values, candidate, channels, changed)
                else:
                    own[node] = self._compute(node, fetch, changed)
                self.most = max(self.most, self._live(values, own)) if self.measuring else 0
                for gone in self.dying[node]:
                    own.pop(gone, None)
        return self._output(fetch)

    def _shared(self, node: fx.Node, values: Values, channels: Channels) -> Any:
        """Return a value of the shared pass, which may be ahead of where that pass is."""
        if node not in values:
            missing, waiting = {node}, [node]
            while waiting:
                new = [n for n in waiting.pop().all_input_nodes if n not in values and n not in missing]
                missing.update(new)
                waiting.extend(new)
            for source in sorted(missing, key=self.place.__getitem__):
                values[source] = self._compute(source, values.__getitem__, channels)
                self.most = max(self.most, self._live(values)) if self.measuring else 0
        return values[node]

    def _step(self, node: fx.Node, values: Values, channels: Channels) -> None:
        """Compute one node of the shared pass and let go of the tensors that no later node needs."""
        self._shared(node, values, channels)
        for gone in self.dying[node]:
            values.pop(gone, None)

    def _output(self, fetch: Fetch) -> Tensor:
        """Return what the graph gives."""
        output: Any = fx.node.map_arg(self.nodes[-1].args[0], fetch)
        return output  # type: ignore[no-any-return]

    def _compute(self, node: fx.Node, fetch: Fetch, channels: Channels) -> Any:
        """Compute one node at the given channels."""
        held: Any = fx.node.map_arg((node.args, dict(node.kwargs)), fetch)
        args, kwargs = held
        target: Any = node.target
        if node.op == "placeholder":  # of an argument that no caller gives
            return args[0]
        if node.op == "call_function":
            return target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if layer := self.supernet.layers.get(target):
            counts = tuple(channels[unit] for unit in self.units[target])
            if self.active.get(target) != counts:
                layer.activate(channels, batch_statistics=True)
                self.active[target] = counts
            self.multiply_adds += len(args[0]) * self._cost(node, channels) if args else 0
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

    def _cost(self, node: fx.Node, channels: Channels) -> int:
        """Return a node's multiply-adds for one image."""
        layer = self.supernet.layers.get(str(node.target)) if node.op == "call_module" else None
        return layer.row.flops(channels) // self.calls[str(node.target)] if layer else 0

    def _is_less(self, node: fx.Node, tainted: set[fx.Node], channels: Channels, changed: Channels) -> bool:
        """Tell whether a node a candidate computes itself is the shared pass's own less what some inputs add to it."""
        layer = self.linear.get(node)
        return layer is not None and node.args[0] not in tainted and subtract.saves(layer, channels, changed)

    def _less(
        self, node: fx.Node, values: Values, candidate: Candidate, channels: Channels, changed: Channels
    ) -> Tensor:
        """Compute a node from the shared pass's own."""
        (source,) = node.all_input_nodes
        inputs, outputs = self._shared(source, values, channels), self._shared(node, values, channels)
        outputs = self._slice(node, outputs, channels, changed, candidate)
        self.multiply_adds += len(inputs) * self._less_cost(node, channels, changed)
        return subtract.subtracted(self.linear[node], inputs, outputs, self.layouts[source][0], channels, changed)

    def _less_cost(self, node: fx.Node, channels: Channels, changed: Channels) -> int:
        """Return the multiply-adds for one image of a node that is computed from the shared pass's own."""
        return subtract.cost(self.linear[node], channels, changed) // self.calls[str(node.target)]

    def _slice(self, node: fx.Node, value: Any, held: Channels, used: Channels, candidate: Candidate) -> Any:
        """Drop the channels that go from one tensor of the shared pass."""
        dim, layout = self.layouts.get(node, (0, ()))
        if all(segment.unit not in candidate.units for segment in layout):
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

    def _departures(self, candidate: Candidate, channels: Channels) -> set[fx.Node]:
        """Return the nodes at which what a candidate computes first differs from the shared pass."""
        return set().union(*(self._departing(unit, count > channels[unit]) for unit, count in candidate.changes))

    def _taint(self, candidate: Candidate, channels: Channels) -> set[fx.Node]:
        """Return the nodes that a candidate computes itself."""
        return set().union(*(self._tainted(unit, count > channels[unit]) for unit, count in candidate.changes))

    def _find_departing(self, unit: str, grows: bool) -> frozenset[fx.Node]:
        """Find the nodes that mix a unit's channels, or read a size that depends on them; or all that hold them."""

        def holds(node: fx.Node) -> bool:
            return any(segment.unit == unit for segment in self.layouts.get(node, (0, ()))[1])

        mixing = self.supernet.reading.mixing
        return frozenset(
            node
            for node in self.nodes[:-1]
            if (grows and holds(node))
            or ((node in mixing or node not in self.layouts) and any(map(holds, node.all_input_nodes)))
        )

    def _find_tainted(self, unit: str, grows: bool) -> frozenset[fx.Node]:
        """Find the nodes that depend on a unit's count by more than a slice."""
        tainted = set(self._departing(unit, grows))
        for node in self.nodes[:-1]:
            if not tainted.isdisjoint(node.all_input_nodes):
                tainted.add(node)
        return frozenset(tainted)


def _tensors(values: Any) -> Iterator[Tensor]:
    """Iterate over the tensors among some values, and in their tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _attribute(module: Any, target: str) -> Any:
    """Return a dotted attribute."""
    for part in target.split("."):
        module = getattr(module, part)
    return module
