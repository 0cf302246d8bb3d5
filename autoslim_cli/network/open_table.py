"""Collect the facts about a network while it is walked, and close them into its layer table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from torch import fx, nn

from autoslim_cli.network.facts import Enter, Fact, Mixes, NotUnderstood, Parts
from autoslim_cli.network.layouts import OpenLayout, OpenRow, OpenUnit, Tagged, resolve
from autoslim_cli.network.table import LayerRow, LayerTable, Layout, Segment, Unit
from autoslim_cli.network.units import change, merge

NOTHING_DECIDES = "no convolution or linear layer decides it"


@dataclass
class OpenTable:
    """The layer table under way: the one place where facts change anything."""

    rows: dict[str, OpenRow] = field(default_factory=dict)
    mixing: set[fx.Node] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def enter(self, node: fx.Node, fact: Fact) -> None:
        """Let a fact that an operation showed be so from now on."""
        match fact:
            case Enter(row):
                self._enter_row(str(node.target), row)
            case Mixes():
                self.mixing.add(node)
            case NotUnderstood(reason):
                self.notes.append(reason)
            case Parts():
                raise AssertionError("the parts of a value belong to its node")
            case _:
                change(fact)

    def _enter_row(self, name: str, row: OpenRow) -> None:
        """Enter a layer into the table, or meet the same layer again: both calls then share their units."""
        known = self.rows.setdefault(name, row)
        if known is not row:
            merge(known.inputs, row.inputs, f"the second call of {name}")
            merge(known.outputs, row.outputs, f"the second call of {name}")
            self.rows[name] = replace(known, positions=known.positions + row.positions)

    def closed(
        self, module: nn.Module, tags: Mapping[fx.Node, Tagged]
    ) -> tuple[LayerTable, dict[fx.Node, tuple[int, Layout]]]:
        """Name each unit after its first layer; return the table, and where the channels of each node lie."""
        named = _named(self.rows)
        names = {id(unit): closed.name for closed, unit in named}

        def close(layout: OpenLayout) -> Layout:
            return tuple(
                Segment(names[id(s.unit)] if s.unit else None, s.base, s.multiplicity) for s in resolve(layout)
            )

        def close_row(name: str, row: OpenRow) -> LayerRow:
            values = {column.name: getattr(row, column.name) for column in fields(row)}
            return LayerRow(name=name, **{**values, "inputs": close(row.inputs), "outputs": close(row.outputs)})

        rows = tuple(close_row(name, row) for name, row in self.rows.items())
        units = tuple(unit for unit, _ in named)
        base = {unit.name: unit.base for unit in units}
        other = sum(p.numel() for p in module.parameters()) - sum(row.params(base) for row in rows)
        table = LayerTable(rows, units, other, tuple(dict.fromkeys(self.notes)))
        return table, {node: (tag.dim, close(tag.layout)) for node, tag in tags.items()}


def _named(rows: Mapping[str, OpenRow]) -> list[tuple[Unit, OpenUnit]]:
    """Close every unit that stands, in the order of the table, under the name of its first layer where that is free."""
    order = {name: place for place, name in enumerate(rows)}
    found: dict[int, tuple[Unit, OpenUnit]] = {}
    taken: set[str] = set()
    for name, row in rows.items():
        for segment in resolve(row.outputs) + resolve(row.inputs):
            unit = segment.unit
            if unit is None or id(unit) in found:
                continue
            layers = tuple(sorted(set(unit.layers), key=order.__getitem__)) or (name,)
            free = [layer for layer in layers if layer not in taken]
            title = free[0] if free else f"{layers[0]}#{len(found)}"
            taken.add(title)
            pinned = unit.pinned or (None if unit.layers else NOTHING_DECIDES)  # bare parameters alone
            closed = Unit(title, layers, unit.base, unit.granule, pinned, unit.capped, not unit.rearranged)
            found[id(unit)] = (closed, unit)
    return list(found.values())
