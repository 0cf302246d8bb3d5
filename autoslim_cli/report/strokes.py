"""Say in SVG elements what figures are made of: bars, lines and marks in a series' colours, keys, axes.

A figure is WIDTH units wide; x grows to the right, y downwards.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from autoslim_cli.report.markup import element

WIDTH = 400.0
"""Of every figure, in its own units: a phone shows it at about its own size."""

COLOURS = 6
DASHES = ("", "second", "third")
"""Of the first six curves, the next six, and those after them."""

STYLE = """
svg { --ink: #1d2430; --soft: #667085; --line: #d6dae1; --base: #c3c9d4; --ground: #fff;
  --c1: #c2410c; --c2: #1d4ed8; --c3: #15803d; --c4: #9333ea; --c5: #0e7490; --c6: #be185d; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6e9ef; --soft: #98a2b3; --line: #343c4a; --base: #4d5768;
  --ground: #14181f; --c1: #fb923c; --c2: #7aa7ff; --c3: #4ade80; --c4: #c99bff; --c5: #4dd4e6; --c6: #f98bbd; } }
svg text { font: 10px system-ui, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); } svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .line { stroke: var(--line); fill: none; } svg .tie { stroke: var(--soft); stroke-width: 1.5; fill: none; }
svg .base { fill: var(--base); } svg .largest { fill: none; stroke: var(--line); stroke-dasharray: 2 2; }
svg .path { fill: none; stroke: var(--soft); stroke-width: 1.3; }
svg .dot { fill: var(--soft); stroke: var(--soft); stroke-width: 0; }
svg .strip { fill: transparent; } svg .strip:hover { fill: var(--line); fill-opacity: .6; }
svg .c1 { fill: var(--c1); stroke: var(--c1); } svg .c2 { fill: var(--c2); stroke: var(--c2); }
svg .c3 { fill: var(--c3); stroke: var(--c3); } svg .c4 { fill: var(--c4); stroke: var(--c4); }
svg .c5 { fill: var(--c5); stroke: var(--c5); } svg .c6 { fill: var(--c6); stroke: var(--c6); }
svg .clear { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; }
svg .limit { stroke-dasharray: 3 3; } svg .second { stroke-dasharray: 5 2; } svg .third { stroke-dasharray: 1.5 2; }
svg .bar { stroke: none; } svg .open { fill: var(--ground); stroke-width: 1.6; } svg .wire { fill: none; }
svg text.c1, svg text.c2, svg text.c3, svg text.c4, svg text.c5, svg text.c6 { stroke: none; }
""".strip()


def sheet(what: str, height: float) -> Element:
    """Return a figure with nothing in it yet."""
    return element("svg", viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=what)


def bar(class_: str, x: float, y: float, width: float, height: float) -> Element:
    """Return a bar."""
    return element("rect", class_=class_, x=x, y=y, width=max(width, 0.0), height=height)


def polyline(class_: str, points: Iterable[tuple[float, float]]) -> Element:
    """Return a line through points."""
    return element("polyline", class_=class_, points=" ".join(f"{x:.2f},{y:.2f}" for x, y in points))


def mark(number: int, class_: str, x: float, y: float, said: str) -> Element:
    """Return the mark of a point: series differ in their shape, not by colour alone."""
    title = element("title", said)
    if number % 3 == 0:
        return element("circle", title, class_=class_, cx=x, cy=y, r=4)
    if number % 3 == 1:
        return element("rect", title, class_=f"{class_} open", x=x - 3.5, y=y - 3.5, width=7, height=7)
    return element("path", title, class_=class_, d=f"M{x - 4.5:g},{y + 3.5:g}h9l-4.5,-8z")


def keys(names: Iterable[tuple[str, str]]) -> tuple[list[Element], float]:
    """Return keys, given as classes of bars or wires and names, and how much height they take."""
    drawn, x, y = list[Element](), 0.0, 0.0
    for class_, name in names:
        width = 22 + 5.6 * len(name)
        if x and x + width > WIDTH:
            x, y = 0.0, y + 14
        is_wire = "wire" in class_.split()
        key = polyline(class_, [(x, y + 6), (x + 9, y + 6)]) if is_wire else bar(class_, x, y + 2, 8, 8)
        drawn.append(key)
        drawn.append(element("text", name, x=x + 12, y=y + 10))
        x += width
    return drawn, y + 16


def colour(number: int) -> str:
    """Return the class that colours a series."""
    return f"c{number % COLOURS + 1}"


def stroke(number: int) -> str:
    """Return the classes of a curve: where colours are at their end, dashes tell curves apart."""
    return f"{colour(number)} wire {DASHES[number // COLOURS % len(DASHES)]}".rstrip()


@dataclass(frozen=True)
class Axis:
    """Where values lie between two places of a figure."""

    low: float
    high: float
    start: float
    stop: float

    @classmethod
    def around(cls, values: Iterable[float], start: float, stop: float) -> "Axis":
        """Return an axis of finite values, with some room around them."""
        given = [value for value in values if math.isfinite(value)]
        low, high = min(given), max(given)
        room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        return cls(low - room, high + room, start, stop)

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values between the ends."""
        raw = (self.high - self.low) / about
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
        return [step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def across(x: Axis, top: float, bottom: float, show: Callable[[float], str], title: str) -> Iterator[Element]:
    """Yield an axis below a field: a line up at every tick, its value, and what the values are."""
    for tick in x.ticks():
        yield element("line", class_="line", x1=x(tick), x2=x(tick), y1=top, y2=bottom)
        yield element("text", show(tick), class_="soft middle", x=x(tick), y=bottom + 13)
    yield element("text", title, class_="soft middle", x=(x.start + x.stop) / 2, y=bottom + 27)


def upwards(y: Axis, left: float, right: float, show: Callable[[float], str]) -> Iterator[Element]:
    """Yield an axis to the left of a field: a line across at every tick, and its value."""
    for tick in y.ticks():
        yield element("line", class_="line", x1=left, x2=right, y1=y(tick), y2=y(tick))
        yield element("text", show(tick), class_="soft end", x=left - 4, y=y(tick) + 3)
