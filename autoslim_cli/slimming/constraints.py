"""Constrain the search space as a recipe says, by patterns of layer names: pins, ties, and values unit by unit."""

import dataclasses
import fnmatch
import math
import re
from collections.abc import Mapping
from typing import TypeVar

from autoslim_cli.errors import UsageError
from autoslim_cli.near import listed, near
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import LayerTable, Layout, Segment, Unit
from autoslim_cli.recipe.schema import SpaceSettings, SupernetSettings
from autoslim_cli.slimming.space import Space

Value = TypeVar("Value")


def matching(table: LayerTable, pattern: str, key: str) -> list[Unit]:
    """Return the units that have a layer whose name matches the pattern (`*`, `?`, `[...]`).

    Raises UsageError naming the recipe key and the nearest layers if there is none.
    """
    found = [unit for unit in table.units if any(fnmatch.fnmatchcase(name, pattern) for name in unit.layers)]
    if not found:
        names = [name for unit in table.units for name in unit.layers]
        found_near = near(re.sub(r"[*?\[\]]", "", pattern), names, most=3, alike=0.5)  # a pattern is part of a name
        hint = f"the nearest are {', '.join(found_near)}" if found_near else f"there are {listed(names)}"
        raise UsageError(f"{key}: no layer matches {pattern!r}; {hint}")
    return found


def unit_by_unit(table: LayerTable, values: Value | Mapping[str, Value], default: Value, key: str) -> dict[str, Value]:
    """Return one value for each unit: the same for all, or that of the first pattern that matches, else the default."""
    if not isinstance(values, Mapping):
        return {unit.name: values for unit in table.units}
    chosen: dict[str, Value] = {}
    for pattern, value in values.items():
        for unit in matching(table, pattern, key):
            chosen.setdefault(unit.name, value)
    return {unit.name: chosen.get(unit.name, default) for unit in table.units}


def space_of(table: LayerTable, supernet: SupernetSettings, space: SpaceSettings) -> Space:
    """Return the search space that a recipe describes."""
    return Space.of(
        table,
        width=supernet.width,
        min_width=supernet.min_width,
        groups=unit_by_unit(table, space.groups, 12, "space.groups"),
        divisor=unit_by_unit(table, space.divisor, 8, "space.divisor"),
        least=unit_by_unit(table, space.min, 0, "space.min"),
    )


def constrained(reading: Reading, space: SpaceSettings) -> Reading:
    """Return the reading with units pinned at base width, and others tied to equal counts.

    Raises UsageError for a pattern that matches nothing, and for a tie of units whose base counts differ.
    """
    for group in space.tie:
        reading = _tied(reading, list(group))
    reasons = {unit.name: f"space.pin: {p}" for p in space.pin for unit in matching(reading.table, p, "space.pin")}
    units = tuple(
        dataclasses.replace(unit, pinned=unit.pinned or reasons.get(unit.name)) for unit in reading.table.units
    )
    return dataclasses.replace(reading, table=dataclasses.replace(reading.table, units=units))


def _tied(reading: Reading, patterns: list[str]) -> Reading:
    """Return the reading in which all matching units are one."""
    table = reading.table
    wanted = {unit.name for pattern in patterns for unit in matching(table, pattern, "space.tie")}
    first, *others = [unit for unit in table.units if unit.name in wanted]
    if odd := next((unit for unit in others if unit.base != first.base), None):
        raise UsageError(
            f"space.tie: {first.name} has {first.base} channels and {odd.name} has {odd.base}: only equals can be tied"
        )
    gone = {unit.name: first.name for unit in others}
    members = (first, *others)
    one = dataclasses.replace(
        first,
        layers=tuple(layer for unit in members for layer in unit.layers),
        granule=math.lcm(*(unit.granule for unit in members)),
        pinned=next((unit.pinned for unit in members if unit.pinned), None),
        capped=next((unit.capped for unit in members if unit.capped), None),
        sortable=all(unit.sortable for unit in members),
        tied=tuple(name for unit in members for name in (unit.name, *unit.tied) if name != first.name),
    )

    def renamed(layout: Layout) -> Layout:
        return tuple(Segment(gone.get(s.unit or "", s.unit), s.base, s.multiplicity) for s in layout)

    rows = tuple(
        dataclasses.replace(row, inputs=renamed(row.inputs), outputs=renamed(row.outputs)) for row in table.rows
    )
    units = tuple(one if unit is first else unit for unit in table.units if unit.name not in gone)
    layouts = {node: (dim, renamed(layout)) for node, (dim, layout) in reading.layouts.items()}
    return dataclasses.replace(reading, table=dataclasses.replace(table, rows=rows, units=units), layouts=layouts)
