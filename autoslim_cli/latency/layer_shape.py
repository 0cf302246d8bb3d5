"""Say what a piece of the graph computes, in words that are equal where nothing but channel counts differs."""

from collections.abc import Mapping, Sequence

from torch import fx, nn

from autoslim_cli.latency.axes import Axis
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Layout


def layer_shape(reading: Reading, nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], axes: tuple[Axis, ...]) -> str:
    """Return what some nodes compute on inputs of which sizes for one image; `a` and `b` are counts along the axes.

    Latency tables find a layer's times by it: `%0=ax14x14; %1=Conv2d(kernel_size=(1, 1), ...)(%0); ...; ->bx14x14`.
    """
    names = {node: f"%{number}" for number, node in enumerate((*inputs, *nodes))}
    lines = [f"{names[node]}={_tensor(reading, node, axes)}" for node in inputs]
    for node in nodes:
        arguments = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: names.get(n, _origin(n, names)))
        values = [str(value) for value in arguments[0]]
        values += [f"{key}={value}" for key, value in arguments[1].items() if key != "inplace"]
        lines.append(f"{names[node]}={_operation(reading, node)}({', '.join(values)})")
    return "; ".join([*lines, "->" + _tensor(reading, nodes[-1], axes)])


def _origin(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    """Say where an argument that is no tensor of the piece comes from: a size, a part of a tuple, a parameter."""
    sources = ", ".join(names.get(source, "?") for source in node.all_input_nodes)
    return f"{getattr(node.target, '__name__', node.target) if node.op != 'get_attr' else 'parameter'}({sources})"


def _tensor(reading: Reading, node: fx.Node, axes: tuple[Axis, ...]) -> str:
    """Write a tensor's shape for one image."""
    sizes: list[int | str] = list(reading.shapes[node])
    if node in reading.layouts:
        dim, layout = reading.layouts[node]
        sizes[dim] = _count(layout, axes)
    return "x".join(map(str, sizes[1:])) or "1"


def _count(layout: Layout, axes: tuple[Axis, ...]) -> str:
    """Name a channel count by its axis; where several layouts share one, by what each is of the whole."""
    for letter, axis in zip("ab", axes, strict=False):
        if axis == (layout,):
            multiplicities = {s.multiplicity for s in layout if s.unit}
            return letter if multiplicities == {1} else f"{letter}({','.join(map(str, sorted(multiplicities)))})"
        if layout in axis:
            return f"{letter}({'+'.join(f'{s.unit or s.base}*{s.multiplicity}' for s in layout)})"
    return str(sum(s.base for s in layout))


def _operation(reading: Reading, node: fx.Node) -> str:
    """Name an operation with all that matters but channel counts."""
    if node.op != "call_module":
        return str(getattr(node.target, "__name__", node.target))
    module = reading.module.get_submodule(str(node.target))
    row, kind = reading.row_of(node), type(module).__name__
    if row is None:
        return f"{kind}({', '.join([*_settings(module), *_inside(module)])})"
    names = ("kernel_size", "stride", "padding", "dilation", "output_padding")
    facts = [f"{name}={value}" for name in names if (value := getattr(module, name, None)) is not None]
    facts += [f"padding_mode={mode}"] if (mode := getattr(module, "padding_mode", "zeros")) != "zeros" else []
    facts += [f"group_inputs={row.group_inputs}"] if row.group_inputs else []
    facts += [f"groups={row.groups}"] if row.groups > 1 else []
    facts += ["bias"] if row.bias and row.multiplies else []
    return f"{kind}({', '.join([*facts, *_own(module, names), *_inside(module)])})"


COUNTS = {
    *("in_channels", "out_channels", "in_features", "out_features"),
    *("num_features", "num_channels", "num_parameters", "normalized_shape"),
}
"""Attributes of layers that follow their channel counts."""


def _own(module: nn.Module, named: Sequence[str]) -> list[str]:
    """Return the settings of a layer whose class is not torch's: which of them cost time, nobody can know."""
    if type(module).__module__.startswith("torch."):
        return []
    said = {*COUNTS, *named, "groups", "num_groups", "padding_mode", "inplace", "training"}
    own = {name: value for name, value in vars(module).items() if name[0] != "_" and name not in said}
    return [f"{name}={own[name]}" for name in sorted(own) if isinstance(own[name], (int, float, str, tuple))]


def _settings(module: nn.Module) -> list[str]:
    """Return what a module says of itself, but for whether it works in place."""
    said = module.extra_repr().replace("inplace=True", "").strip(", ")
    return [said] if said else []


def _inside(module: nn.Module) -> list[str]:
    """Name the modules in one that is read as a whole, as the activation in a norm layer of timm's: they take time."""
    inner = [one for one in module.modules() if one is not module]
    return [f"{type(one).__name__}({', '.join(_settings(one))})" for one in inner]
