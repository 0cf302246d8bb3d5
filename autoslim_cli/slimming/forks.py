"""Run many sub-networks that differ by a few units: one shared forward pass, forked at the cut.

A candidate changes some units of the current network. A tensor that does not depend on the changed channels is the
current network's own; one that holds channels that go is it, less those: sliced, not computed again. So the shared pass
is left at the first operation that mixes channels of a slimmed unit, and only what follows from it is computed anew:
parallel branches are shared, too. Where that operation is linear, its result is the current network's, less what the
channels that go add to it. A unit that grows is left where its channels are first made.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from autoslim_cli.network.table import Channels, ranges
from autoslim_cli.network.tensors import tensors_in
from autoslim_cli.network.traced_part import given_to, judged_with, with_outputs
from autoslim_cli.slimming import subtract
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.slimming.dependence import Dependence
from autoslim_cli.slimming.supernet import Supernet

Values = dict[fx.Node, Any]
Fetch = Callable[[fx.Node], Any]
Inputs = Any
"""Images (images, channels, height, width), or a tuple of all that the network takes."""


class ForkedEvaluator:
    """Run a supernet's graph in eval mode (dropout and stochastic depth off), BN in batch statistics, and fork it.

    Layers are activated one by one as the graph reaches them: activate the supernet again before running it whole.
    `multiply_adds` counts what was done so far, over all images.
    """

    def __init__(self, supernet: Supernet) -> None:
        self.supernet, self.part = supernet.eval(), supernet.reading.part
        supernet.let_other_norms(batch_statistics=True)
        self.nodes: list[fx.Node] = list(supernet.reading.graph.nodes)
        self.place = {node: place for place, node in enumerate(self.nodes)}
        self.layouts = supernet.reading.layouts
        self.dependence = Dependence(supernet.reading)
        self.freed_after = self._last_uses()
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
        self.images, self.multiply_adds = 0, 0
        self.measuring, self.peak = False, 0

    def fork_place(self, candidate: Candidate, channels: Channels) -> int:
        """Return the index of the node at which a candidate leaves the shared pass."""
        departing = self.dependence.departing(candidate, channels)
        return min((self.place[node] for node in departing), default=len(self.nodes) - 1)

    def work(self, candidate: Candidate, channels: Channels) -> tuple[int, int]:
        """Return the multiply-adds per image that a candidate needs of the shared pass, and of its own."""
        place, recomputed = self.fork_place(candidate, channels), self.dependence.recomputed(candidate, channels)
        changed = candidate.applied(channels)
        subtracted = {node for node in recomputed if self._is_subtracted(node, recomputed, channels, changed)}
        for_itself = sum(self._subtraction_cost(node, channels, changed) for node in subtracted)
        for_itself += sum(self._cost(node, changed) for node in recomputed - subtracted)
        shared = {*self.nodes[:place], *subtracted}
        for node in reversed(self.nodes):
            if node in recomputed or node in shared or node is self.nodes[-1]:
                shared.update(source for source in node.all_input_nodes if source not in recomputed)
        return sum(self._cost(node, channels) for node in shared), for_itself

    @torch.inference_mode()
    def logits(self, images: Inputs, channels: Channels, targets: Any = None) -> Any:
        """Return what one sub-network gives: logits (images, classes) of a classifier.

        With targets, of a network that computes its losses itself, a `Judged`.
        """
        self.active.clear()
        inputs = _all(images)
        values = self._given(inputs)
        for node in self.nodes[:-1]:
            self._step(node, values, channels)
        return self._finished(self._output(values.__getitem__), inputs, targets)

    @torch.inference_mode()
    def forked_logits(
        self, images: Inputs, channels: Channels, candidates: Sequence[Candidate], targets: Any = None
    ) -> Iterator[tuple[Candidate, Any]]:
        """Yield each candidate with what it gives, as `logits`, in the order of their cuts.

        Memory: the live tensors of two forward passes, and of branches that run beside a cut.
        """
        cuts = {candidate: self.fork_place(candidate, channels) for candidate in candidates}
        waiting = sorted(candidates, key=cuts.__getitem__)
        self.active.clear()
        inputs = _all(images)
        values = self._given(inputs)
        for place, node in enumerate(self.nodes):
            while waiting and cuts[waiting[0]] == place:
                candidate = waiting.pop(0)
                yield candidate, self._finished(self._fork(place, values, candidate, channels), inputs, targets)
            if not waiting:
                return
            self._step(node, values, channels)

    def _given(self, inputs: tuple[Any, ...]) -> Values:
        """Return the values of the graph's inputs: what the network, or its part that was read, is given."""
        self.images = len(inputs[0])
        given = given_to(self.supernet.body, self.part, *inputs) if self.part else inputs
        return dict(zip(self.supernet.reading.placeholders, given, strict=True))

    def _finished(self, outputs: Any, inputs: tuple[Any, ...], targets: Any) -> Any:
        """Return what the network gives where its part, if it has one, gives `outputs`."""
        if not self.part:
            return outputs
        if targets is None:
            return with_outputs(self.supernet.body, self.part, outputs, *inputs)
        return judged_with(self.supernet.body, self.part, outputs, inputs, targets)

    def peak_bytes(self, images: Inputs, channels: Channels, candidates: Sequence[Candidate]) -> float:
        """Return the most bytes per image that live tensors hold at a time while candidates are scored."""
        self.measuring, self.peak = True, 0
        for _ in self.forked_logits(images, channels, candidates):
            pass
        self.measuring = False
        return self.peak / len(_all(images)[0])

    def _live_bytes(self, *kept: Values) -> int:
        """Return the bytes that some values occupy, each memory once."""
        tensors = [tensor for values in kept for tensor in tensors_in(values)]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    def _fork(self, place: int, values: Values, candidate: Candidate, channels: Channels) -> Any:
        """Run what a candidate computes differently, from its cut to the output."""
        changed, recomputed = candidate.applied(channels), self.dependence.recomputed(candidate, channels)
        forked: Values = {}

        def fetch(node: fx.Node) -> Any:
            if node not in forked:
                forked[node] = self._slice(node, self._shared(node, values, channels), channels, changed, candidate)
            return forked[node]

        for node in self.nodes[place:-1]:
            if node in recomputed:
                if self._is_subtracted(node, recomputed, channels, changed):
                    forked[node] = self._subtract(node, values, candidate, channels, changed)
                else:
                    forked[node] = self._compute(node, fetch, changed)
                self.peak = max(self.peak, self._live_bytes(values, forked)) if self.measuring else 0
                for gone in self.freed_after[node]:
                    forked.pop(gone, None)
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
                self.peak = max(self.peak, self._live_bytes(values)) if self.measuring else 0
        return values[node]

    def _step(self, node: fx.Node, values: Values, channels: Channels) -> None:
        """Compute one node of the shared pass and let go of the tensors that no later node needs."""
        self._shared(node, values, channels)
        for gone in self.freed_after[node]:
            values.pop(gone, None)

    def _output(self, fetch: Fetch) -> Any:
        """Return what the graph gives."""
        return fx.node.map_arg(self.nodes[-1].args[0], fetch)

    def _compute(self, node: fx.Node, fetch: Fetch, channels: Channels) -> Any:
        """Compute one node at the given channels."""
        arguments: Any = fx.node.map_arg((node.args, dict(node.kwargs)), fetch)
        args, kwargs = arguments
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
            self.multiply_adds += self.images * self._cost(node, channels) if args else 0
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

    def _is_subtracted(self, node: fx.Node, recomputed: set[fx.Node], channels: Channels, changed: Channels) -> bool:
        """Tell whether a node that a candidate computes itself is the shared pass's, less what some inputs add."""
        layer = self.linear.get(node)
        return layer is not None and node.args[0] not in recomputed and subtract.saves(layer, channels, changed)

    def _subtract(
        self, node: fx.Node, values: Values, candidate: Candidate, channels: Channels, changed: Channels
    ) -> Tensor:
        """Compute a node from the shared pass's."""
        (source,) = node.all_input_nodes
        inputs, outputs = self._shared(source, values, channels), self._shared(node, values, channels)
        outputs = self._slice(node, outputs, channels, changed, candidate)
        self.multiply_adds += self.images * self._subtraction_cost(node, channels, changed)
        return subtract.subtracted(self.linear[node], inputs, outputs, self.layouts[source][0], channels, changed)

    def _subtraction_cost(self, node: fx.Node, channels: Channels, changed: Channels) -> int:
        """Return the multiply-adds for one image of a node that is computed from the shared pass's own."""
        return subtract.cost(self.linear[node], channels, changed) // self.calls[str(node.target)]

    def _slice(self, node: fx.Node, value: Any, current: Channels, changed: Channels, candidate: Candidate) -> Any:
        """Drop the channels that go from one tensor of the shared pass."""
        dim, layout = self.layouts.get(node, (0, ()))
        if all(segment.unit not in candidate.units for segment in layout):
            return value
        pieces = [value.narrow(dim, start, stop - start) for start, stop in ranges(layout, current, changed)]
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


def _all(images: Inputs) -> tuple[Any, ...]:
    """Return all that the network takes."""
    return images if isinstance(images, tuple) else (images,)


def _attribute(module: Any, target: str) -> Any:
    """Return a dotted attribute."""
    for part in target.split("."):
        module = getattr(module, part)
    return module
