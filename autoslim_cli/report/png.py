"""Draw a report's figures as PNG: the same elements and the same style as the SVG, in light colours, by matplotlib."""

import io
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from autoslim_cli.errors import UsageError, install
from autoslim_cli.report.strokes import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MADE_BY = "autoslim"
"""What such a file says of itself: `make clean` asks it."""

PIXELS = 2.5
"""Of an image, for each of a figure's units."""

RULE = re.compile(r"([^{}@]+)\{([^{}]*)\}")
SIZE = 10.0
"""Of letters, in a figure's units."""

Style = Mapping[str, str]


def png(drawing: Element) -> bytes:
    """Return a figure as the bytes of a PNG file. Raises UsageError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(f"--png needs matplotlib; {install('plot')}") from None
    *_, width, height = map(float, drawing.attrib["viewBox"].split())
    # A unit is a point, so that letters have the size that the style gives them.
    figure = Figure(figsize=(width / 72, height / 72), facecolor=_rules()[1]["--ground"])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    for order, shape in enumerate(drawing.iter()):
        _draw(axes, shape, _style(shape), order)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=72 * PIXELS, metadata={"Software": MADE_BY})
    return buffer.getvalue()


def _draw(axes: "Axes", shape: Element, style: Style, order: int) -> None:
    """Draw an element over those before it."""
    from matplotlib.patches import Circle, Polygon, Rectangle
    from matplotlib.patheffects import withStroke

    def number(name: str) -> float:
        return float(shape.get(name, 0))

    fill, stroke = style.get("fill", "#000"), style.get("stroke", "none")
    if fill == "transparent":  # what only a pointer sees
        return
    width = float(style.get("stroke-width", "1").removesuffix("px"))
    dashes = tuple(float(length) / width for length in style.get("stroke-dasharray", "").split())
    line: dict[str, Any] = {"linewidth": width, "linestyle": (0, dashes) if dashes else "-", "zorder": order}
    patch: dict[str, Any] = {"facecolor": fill, "edgecolor": stroke, **line}
    if shape.tag == "rect":
        axes.add_patch(Rectangle((number("x"), number("y")), number("width"), number("height"), **patch))
    elif shape.tag == "circle":
        axes.add_patch(Circle((number("cx"), number("cy")), number("r"), **patch))
    elif shape.tag == "line":
        axes.plot([number("x1"), number("x2")], [number("y1"), number("y2")], color=stroke, **line)
    elif shape.tag == "polyline":
        places = [point.split(",") for point in shape.get("points", "").split()]
        axes.plot([float(x) for x, _ in places], [float(y) for _, y in places], color=stroke, **line)
    elif shape.tag == "path":
        for points in _runs(shape.get("d", "")):
            axes.add_patch(Polygon(points, closed="z" in shape.get("d", ""), fill=fill != "none", **patch))
    elif shape.tag == "text" and shape.text:
        where = {"end": "right", "middle": "center"}.get(style.get("text-anchor", ""), "left")
        text = shape.text.replace("$", r"\$")  # no formula
        words = axes.text(
            number("x"), number("y"), text, color=fill, fontsize=SIZE, ha=where, va="baseline", zorder=order
        )
        if stroke != "none":  # around the letters, to keep them apart from what lies below
            words.set_path_effects([withStroke(linewidth=width, foreground=stroke)])


def _runs(path: str) -> Iterator[list[tuple[float, float]]]:
    """Yield the lines of a path of the commands that figures use: M, V, h and l, and z at the end."""
    points: list[tuple[float, float]] = []
    x = y = 0.0
    for command, text in re.findall(r"([MVhl])([^MVhlz]*)", path):
        if command == "M" and points:
            yield points
            points = []
        given = [float(one) for one in text.split(",")]
        if command == "M":
            x, y = given
        elif command == "V":
            (y,) = given
        else:
            x, y = x + given[0], y + sum(given[1:])
        points.append((x, y))
    yield points


def _style(shape: Element) -> Style:
    """Return what the style says of an element: later rules win."""
    rules, variables = _rules()
    classes, found = {"", *shape.get("class", "").split()}, dict[str, str]()
    for tag, name, said in rules:
        if tag in ("", shape.tag) and name in classes:
            found |= said
    return {key: re.sub(r"var\(([\w-]+)\)", lambda one: variables[one[1]], value) for key, value in found.items()}


@cache
def _rules() -> tuple[list[tuple[str, str, dict[str, str]]], dict[str, str]]:
    """Return the style's rules by tag and class, and its colours: of what does not depend on a pointer or the dark."""
    rules = []
    variables: dict[str, str] = {}
    light = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*\s*\}", "", STYLE)
    for selectors, text in RULE.findall(light):
        said = {key.strip(): value.strip() for key, _, value in (one.partition(":") for one in text.split(";")) if key}
        variables |= {key: value for key, value in said.items() if key.startswith("--")}
        for selector in selectors.split(","):
            if found := re.fullmatch(r"svg (\w*)(?:\.(\w+))?", selector.strip()):
                rules.append((found[1], found[2] or "", said))
    return rules, variables
