"""Estimate the memory of a training step in closed form: weights, optimizer, and what backward passes read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import fx

from autoslim_cli.errors import UsageError
from autoslim_cli.network.blocks import Block, blocks
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels
from autoslim_cli.network.tensors import TensorSize, tensor_size
from autoslim_cli.recipe.schema import TrainSettings

# What an operation keeps for its backward pass, by the beginning of its name.
_INPUT = (
    *("conv", "linear", "batchnorm", "batch_norm", "avgpool", "avg_pool", "maxpool", "max_pool", "silu", "hardswish"),
    *("hardsigmoid", "gelu", "relu6", "hardtanh", "leakyrelu", "leaky_relu", "prelu", "elu", "mish", "mul"),
)
_OUTPUT = ("relu", "sigmoid", "softmax", "tanh")
_NOTHING = (
    *("add", "iadd", "sub", "cat", "flatten", "view", "reshape", "permute", "transpose", "identity", "mean"),
    *("getitem", "chunk", "split", "pad", "contiguous", "upsample", "interpolate", "unsqueeze", "squeeze"),
)

_VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_OPTIMIZER_TENSORS = {"sgd": 1, "adamw": 2}
"""Tensors of the weights' size that an optimizer keeps."""


Kept = tuple[fx.Node, int]
"""A tensor that an operation keeps: the node that made its memory, and 0; or another number, for one of its own."""

Keeps = Mapping[fx.Node, Sequence[Kept]]
"""What every operation keeps for its backward pass."""

WORTH = 0.05
"""What activation checkpointing must save at least of a step's tensors."""


@dataclass(frozen=True)
class Moment:
    """What is held when an operation's backward pass runs.

    That is the first `kept` of the tensors that are kept, those that its block has computed anew, and the gradients of
    the tensors that were alive when its forward pass ran.
    """

    kept: int
    anew: tuple[fx.Node, ...]
    gradients: tuple[fx.Node, ...]


@dataclass(frozen=True)
class StepMemory:
    """What a training step holds at its peak, in closed form: tensors that backward passes read, and gradients.

    Which tensors an operation keeps is PyTorch's choice; of operations that are not known both input and output count.
    What a kernel needs for itself, and the fragments between tensors, are not counted. `saved` are kept from the
    forward pass on, in its order, and the backward pass lets go of the last ones first. With activation checkpointing
    they are what blocks take and what is read outside of them; the rest is computed anew, one block after the other.
    A tensor is named by the node that makes one of its size.
    """

    saved: tuple[fx.Node, ...]
    moments: tuple[Moment, ...]
    sizes: Mapping[fx.Node, TensorSize]
    reading: Reading

    @classmethod
    def of(cls, reading: Reading, checkpointed: Sequence[Block] = (), keeps: Keeps | None = None) -> "StepMemory":
        """Find the tensors that a step holds, in whose backward pass some blocks are computed anew."""
        keeps = keeps or kept_by_operations(reading)
        calls = {node: call for block in checkpointed for call in block.calls for node in call}
        sizes = {node: tensor_size(reading, node) for node in reading.shapes if node.op != "get_attr"}
        ends = {source: node for node in reading.graph.nodes for source in node.all_input_nodes}
        saved, anew, alive = dict[Kept, None](), dict[Kept, None](), dict[fx.Node, None]()
        moments, before = list[Moment](), frozenset[fx.Node]()
        for node in reading.graph.nodes:
            # 1. What it keeps: for good what was made outside of its block, if it is in one, and all if it is not.
            call = calls.get(node, frozenset[fx.Node]())
            anew, before = anew if call == before else {}, call
            taken = [(reading.memory.get(source, source), 0) for source in _inputs(reading, node)] if call else []
            saved.update((kept, None) for kept in (*taken, *keeps.get(node, ())) if kept[0] not in call)
            anew.update((kept, None) for kept in keeps.get(node, ()) if kept[0] in call)
            # 2. What is alive beside: gradients live as long as the tensors that they are of.
            alive.update({node: None} if node in sizes and node.op != "placeholder" else {})
            moments.append(Moment(len(saved), tuple(maker for maker, _ in anew), tuple(alive)))
            alive = {one: None for one in alive if ends.get(one) is not node}
        return cls(tuple(maker for maker, _ in saved), tuple(moments), sizes, reading)

    def values(self, channels: Channels, teacher: int = 0) -> int:
        """Return how many values are held at the peak for each image; `teacher` are those of a teacher's forward pass.

        It begins when the network's own is over, and is over before the backward pass begins.
        """
        count = {node: size.values(channels) for node, size in self.sizes.items()}
        kept = list(accumulate((count[node] for node in self.saved), initial=0))
        peak = max(
            kept[moment.kept] + sum(count[node] for node in (*moment.anew, *moment.gradients))
            for moment in self.moments
        )
        last = self.moments[-1]  # that of the outputs
        return max(peak, kept[last.kept] + sum(count[node] for node in last.gradients) + teacher)

    def __call__(self, channels: Channels, images: int, settings: TrainSettings, teacher: int = 0) -> int:
        """Return the bytes of a step over so many images at a time, with a teacher's values for each.

        Weights are those of the whole network, tensors those of the part that was traced; a teacher's weights are there
        before anything is asked.
        """
        table = self.reading.table
        layers = [row.params(channels) for row in table.rows]
        copies = 2 + _OPTIMIZER_TENSORS[settings.optimizer] + (settings.ema is not None)  # 2: weights, gradients
        # A layer's gradient is computed, then added.
        whole, value = sum(layers) + table.other_params, _VALUE_BYTES[settings.precision]
        weights = (whole * copies + max(layers)) * _VALUE_BYTES["fp32"]
        # Backward passes read the weights as autocast has made them.
        weights += whole * value if settings.precision != "fp32" else 0
        return self.values(channels, teacher) * images * value + weights


def blocks_to_checkpoint(reading: Reading) -> list[Block]:
    """Return the blocks that are best computed anew: those with which a step of the base network holds least.

    They are the outermost ones that each compute no more than some limit anew. Raises UsageError if they save less than
    `WORTH`.
    """
    keeps, base, found = kept_by_operations(reading), reading.table.base, blocks(reading)

    def computed(block: Block) -> int:
        kept = (_within(call, keeps) for call in block.calls)
        return max(sum(tensor_size(reading, maker).values(base) for maker, _ in one) for one in kept)

    sizes = {block.name: computed(block) for block in found}
    best, least = list[Block](), (1 - WORTH) * StepMemory.of(reading, (), keeps).values(base)
    for limit in sorted(set(sizes.values())):
        chosen = list[Block]()
        for block in found:  # outer ones first
            if sizes[block.name] <= limit and not any(block.name.startswith(f"{one.name}.") for one in chosen):
                chosen.append(block)
        if (most := StepMemory.of(reading, chosen, keeps).values(base)) < least:
            best, least = chosen, most
    if not best:
        raise UsageError(
            f"activation_checkpointing: no blocks of this network save {WORTH:.0%} of a step's tensors (a block is a "
            "module that runs several layers and is given nothing that is changed in place); leave it out, or set "
            "micro_batch"
        )
    return best


def kept_by_operations(reading: Reading) -> dict[fx.Node, list[Kept]]:
    """Return what every operation keeps for its backward pass."""
    keeps: dict[fx.Node, list[Kept]] = {}
    for node in reading.graph.nodes:
        if node.op not in ("call_module", "call_function", "call_method") or node not in reading.shapes:
            continue
        kind, inputs = _kind(reading, node), _inputs(reading, node)
        if not kind.startswith(_NOTHING):
            saves_input = kind.startswith(_INPUT) or not kind.startswith(_OUTPUT)
            saves_output = not kind.startswith(_INPUT)
            own = 0
            if saves_input and reading.memory.get(node) in {reading.memory.get(i, i) for i in inputs}:
                own += 1  # it writes over its input, and keeps a copy of it
            if kind.startswith(("maxpool", "max_pool")):
                own += 2  # where the largest values were: 8 bytes for each
            kept = (*(inputs if saves_input else ()), *((node,) if saves_output else ()))
            keeps[node] = [(reading.memory.get(tensor, tensor), 0) for tensor in kept]
            keeps[node] += [(node, number) for number in range(1, own + 1)]
    return keeps


def _inputs(reading: Reading, node: fx.Node) -> list[fx.Node]:
    """Return the tensors that an operation takes, without parameters."""
    return [source for source in node.all_input_nodes if source in reading.shapes and source.op != "get_attr"]


def _within(call: frozenset[fx.Node], keeps: Keeps) -> set[Kept]:
    """Return what a block's operations keep of what they make."""
    return {kept for node in call for kept in keeps.get(node, ()) if kept[0] in call}


def _kind(reading: Reading, node: fx.Node) -> str:
    """Return the name of the operation of a node, as `conv2d` and `batchnorm2d`."""
    if node.op == "call_module":
        return type(reading.module.get_submodule(str(node.target))).__name__.lower().removeprefix("adaptive")
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return str(name).lower().removeprefix("adaptive_")
