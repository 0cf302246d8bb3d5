"""Draw a report's figures as SVG: rows of bars along the network, the slimming curve, accuracy against a cost."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

from autoslim_cli.cost.budget import short
from autoslim_cli.files.metric import Metric
from autoslim_cli.report.facts import Facts, Network
from autoslim_cli.report.markup import element

WIDTH = 400.0
"""Of every figure, in its own units: a phone shows it at about its own size."""

LABELS, LANE, RIGHT = 112.0, 6.0, 14.0
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


def figures(facts: Facts) -> dict[str, Element]:
    """Return a report's figures by name; those that there is nothing for are left out."""
    drawn = {"channels": channels(facts)}
    if facts.steps:
        drawn["slimming"] = slimming(facts)
    measured = [network for network in facts.others if network.kind == "retrained" and "test" in network.scores]
    subnets = [network for network in facts.others if network.kind == "subnet" and "holdout" in network.scores]
    devices = [name for name in facts.base.costs if name.startswith("ms ")]
    if measured:
        drawn["accuracy"] = accuracy(facts.metric, measured, "flops", "test", "FLOPs (multiply-adds)")
        for name in devices:
            drawn[f"accuracy-{name}"] = accuracy(facts.metric, measured, name, "test", f"predicted {name}")
    if subnets:
        drawn["subnetworks"] = accuracy(facts.metric, subnets, "flops", "holdout", "FLOPs (multiply-adds)")
    several = (facts.base, *facts.found)
    if facts.curves:
        drawn["training"] = training(facts)
    drawn["flops"] = rows(facts, [network.flops for network in several], short, "FLOPs")
    drawn["params"] = rows(facts, [network.params for network in several], short, "parameters")
    for name in devices:
        drawn[name] = rows(facts, [network.ms[name] for network in several], "{:.3g} ms".format, name)
    return drawn


def channels(facts: Facts) -> Element:
    """Draw the channels of every layer along the network: base, supernet and found; brackets join equal counts."""
    counts = [network.outputs for network in (facts.base, *facts.found)]
    shown = [layer.name for layer in facts.layers if not layer.depthwise]
    return rows(facts, counts, str, "channels", shown=shown, largest=facts.supernet.outputs, ties=True)


def rows(
    facts: Facts,
    values: Sequence[Mapping[str, float]],
    show: Callable[[float], str],
    what: str,
    *,
    shown: Sequence[str] | None = None,
    largest: Mapping[str, float] | None = None,
    ties: bool = False,
) -> Element:
    """Draw a row for each layer: the first of `values` as a grey bar, the others as thin ones over it.

    `shown` names the layers, by default all that have a value; `largest` is drawn as an outline around the bars.
    """
    names = list(shown if shown is not None else values[0])
    base, *found = values
    lanes = _lanes(facts, names) if ties else {}
    left = LABELS + LANE * (1 + max((lane for lane, _ in lanes.values()), default=-1)) + 4
    height = max(13.0, 3.0 * len(found) + 5)
    most = max((one.get(name, 0) for one in (*values, largest or {}) for name in names), default=0) or 1
    scale = (WIDTH - left - RIGHT) / most
    legend, head = _legend([("base", "base"), *((f"bar {colour(n)}", one.name) for n, one in enumerate(facts.found))])
    first = head + 18  # below the numbers of the scale
    drawing = _drawing(what, first + 2 + height * len(names))
    drawing.extend(legend)
    for tick in _ticks(0, most, 4):
        x = left + tick * scale
        drawing.append(element("line", class_="line", x1=x, x2=x, y1=first - 2, y2=first + height * len(names)))
        text = show(int(tick) if what == "channels" else tick)
        drawing.append(element("text", text, class_="soft middle", x=x, y=first - 7))
    for place, name in enumerate(names):
        top = first + height * place
        said = [f"{name}: base {show(base.get(name, 0))}"]
        said += [f"supernet {show(largest[name])}"] if largest else []
        said += [f"{n.name} {show(one.get(name, 0))}" for n, one in zip(facts.found, found, strict=True)]
        row = element("g", element("title", f"{', '.join(said)} {what if what in ('channels',) else ''}".rstrip()))
        row.append(element("rect", class_="strip", x=0, y=top, width=WIDTH, height=height))
        row.append(element("text", _tail(name), class_="end", x=LABELS - 2, y=top + height / 2 + 3))
        if largest:
            width = largest[name] * scale
            row.append(element("rect", class_="largest", x=left, y=top + 1, width=width, height=height - 2))
        row.append(_bar("base", left, top + 1, base.get(name, 0) * scale, height - 2))
        thick = (height - 4) / max(len(found), 1)
        for number, one in enumerate(found):
            thin = min(thick * 0.75, 6)
            y = top + 2 + thick * number + (thick - thin) / 2
            row.append(_bar(f"bar {colour(number)}", left, y, one.get(name, 0) * scale, thin))
        drawing.append(row)
    for unit, (lane, members) in lanes.items():
        x = LABELS + LANE * lane + 4
        ys = [first + height * (place + 0.5) for place in members]
        path = f"M{x},{ys[0]:g}V{ys[-1]:g}" + "".join(f"M{x},{y:g}h{LANE * 0.6:g}" for y in ys)
        title = element("title", f"{unit}: {len(members)} layers whose counts are equal (tied by a sum or a recipe)")
        drawing.append(element("path", title, class_="tie", d=path))
    return drawing


def slimming(facts: Facts) -> Element:
    """Draw loss and score on the holdout against FLOPs, step by step; each step says its units under the pointer."""
    steps, left, right = facts.steps, 44.0, WIDTH - RIGHT
    limits = [one.limits["flops"] for one in facts.found if "flops" in one.limits]
    found = [one.costs["flops"] for one in facts.found]
    x, ticks = _scale([*(step["flops"] for step in steps), *found, *limits], left, right)
    # 1. What was found: a line each, beside its budget's broken one, its name above in the first row with room for it.
    ends: list[float] = []
    marks = []
    for number, one in sorted(enumerate(facts.found), key=lambda pair: pair[1].costs["flops"]):
        at = x(one.costs["flops"])
        row = next((row for row, end in enumerate(ends) if end < at), len(ends))
        ends[row : row + 1] = [at + 8 + 5.6 * len(one.name)]
        marks.append((number, one.name, at, row))
    head = 14.0 + 12 * len(ends)
    foot = head + 244
    drawing = _drawing("slimming", foot + 30)
    # 2. Loss and score, one above the other.
    for tick in ticks:
        drawing.append(element("line", class_="line", x1=x(tick), x2=x(tick), y1=head, y2=foot))
        drawing.append(element("text", short(tick), class_="soft middle", x=x(tick), y=foot + 13))
    drawing.append(element("text", "FLOPs (multiply-adds)", class_="soft middle", x=(left + right) / 2, y=foot + 27))
    for key, top, bottom in (("loss", head, head + 112), (facts.metric.name, head + 136, foot)):
        y, ticks = _scale([step[key] for step in steps], bottom, top)
        for tick in ticks:
            drawing.append(element("line", class_="line", x1=left, x2=right, y1=y(tick), y2=y(tick)))
            text = f"{tick:.4g}" if key == "loss" else _tick(facts.metric, tick)
            drawing.append(element("text", text, class_="soft end", x=left - 4, y=y(tick) + 3))
        path = [(x(step["flops"]), y(step[key])) for step in steps if step["kind"] == "slim"]
        drawing.append(_line("path", path))
        for step in steps:
            kind = "dot" if step["kind"] == "slim" else "dot open"
            drawing.append(element("circle", class_=kind, cx=x(step["flops"]), cy=y(step[key]), r=1.7))
    for number, name, at, row in marks:
        drawing.append(element("line", class_=f"{colour(number)} wire", x1=at, x2=at, y1=4 + 12 * row, y2=foot))
        drawing.append(element("text", name, class_=colour(number), x=at + 3, y=10 + 12 * row))
        if (limit := facts.found[number].limits.get("flops")) is not None:
            said = element("title", f"budget {facts.found[number].budget}: {short(limit)} FLOPs")
            line = element("line", said, class_=f"{colour(number)} limit", x1=x(limit), x2=x(limit), y1=head, y2=foot)
            drawing.append(line)
    for title, top in (("loss", head), (facts.metric.title, head + 136)):
        words = f"{title} on the holdout, before training"
        drawing.append(element("text", words, class_="clear", x=left, y=top - 4))
    # 3. A strip for each step, which says its units.
    ordered = sorted(steps, key=lambda step: float(step["flops"]))
    places = [x(step["flops"]) for step in ordered]
    edges = [left, *((a + b) / 2 for a, b in pairwise(places)), right]
    for place, step in enumerate(ordered):
        width = max(edges[place + 1] - edges[place], 0.5)
        strip = element("rect", element("title", said_of(step, facts.metric)), class_="strip", x=edges[place], y=head)
        strip.attrib |= {"width": f"{width:.2f}", "height": f"{foot - head:g}"}
        drawing.append(strip)
    return drawing


def said_of(step: Mapping[str, object], metric: Metric) -> str:
    """Say a step's units, its FLOPs and its scores."""
    changes = step.get("changes") or ([[step["unit"], step["before"], step["after"]]] if "unit" in step else [])
    assert isinstance(changes, list)
    text = ", ".join(f"{unit} {before}\u2192{after}" for unit, before, after in changes)
    if not text:  # other channels altogether
        channels = step.get("channels")
        text = ", ".join(f"{unit} {count}" for unit, count in channels.items()) if isinstance(channels, Mapping) else ""
    return (
        f"step {step['step']}, {step['kind']}: {text or 'all units'}; {short(_number(step['flops']))} FLOPs, "
        f"loss {_number(step['loss']):.4g}, {metric.title} {metric.show(_number(step[metric.name]))}"
    )


def training(facts: Facts) -> Element:
    """Draw the loss of every training against its steps, the supernet's that of its largest sub-network."""
    legend, head = _legend((_stroke(number), name) for number, name in enumerate(facts.curves))
    top = head + 6
    drawing, left, right, bottom = _drawing("training", top + 210), 44.0, WIDTH - RIGHT, top + 176
    drawing.extend(legend)
    x, ticks = _scale([step for points in facts.curves.values() for step, _ in points], left, right)
    for tick in ticks:
        drawing.append(element("line", class_="line", x1=x(tick), x2=x(tick), y1=top, y2=bottom))
        drawing.append(element("text", short(tick), class_="soft middle", x=x(tick), y=bottom + 13))
    y, ticks = _scale([loss for points in facts.curves.values() for _, loss in points], bottom, top)
    for tick in ticks:
        drawing.append(element("line", class_="line", x1=left, x2=right, y1=y(tick), y2=y(tick)))
        drawing.append(element("text", f"{tick:.4g}", class_="soft end", x=left - 4, y=y(tick) + 3))
    drawing.append(element("text", "steps", class_="soft middle", x=(left + right) / 2, y=bottom + 28))
    for number, (name, points) in enumerate(facts.curves.items()):
        line = _line(_stroke(number), [(x(step), y(loss)) for step, loss in points])
        line.append(element("title", f"{name}: {len(points)} looks, the last at a loss of {points[-1][1]:.4g}"))
        drawing.append(line)
    return drawing


def accuracy(metric: Metric, networks: Sequence[Network], cost: str, images: str, title: str) -> Element:
    """Draw a score against a cost, by what chose the channels; networks of equal channels: a mean and a deviation."""
    points: dict[str, list[Sequence[Network]]] = {}
    for same in alike(networks):
        points.setdefault(same[0].channels_by, []).append(same)
    drawing, left, right, top, bottom = _drawing(title, 230), 44.0, WIDTH - RIGHT, 30.0, 196.0
    x, ticks = _scale([network.costs[cost] for network in networks], left, right)
    for tick in ticks:
        drawing.append(element("line", class_="line", x1=x(tick), x2=x(tick), y1=top, y2=bottom))
        text = short(tick) if cost == "flops" else f"{tick:.4g}"
        drawing.append(element("text", text, class_="soft middle", x=x(tick), y=bottom + 13))
    y, ticks = _scale([network.scores[images] for network in networks], bottom, top)
    for tick in ticks:
        drawing.append(element("line", class_="line", x1=left, x2=right, y1=y(tick), y2=y(tick)))
        drawing.append(element("text", _tick(metric, tick), class_="soft end", x=left - 4, y=y(tick) + 3))
    drawing.append(element("text", title, class_="soft middle", x=(left + right) / 2, y=bottom + 28))
    legend = left
    for number, (name, groups) in enumerate(points.items()):
        shape, at = colour(number), sorted(groups, key=lambda same: same[0].costs[cost])
        means = [(x(same[0].costs[cost]), y(statistics.fmean(n.scores[images] for n in same))) for same in at]
        drawing.append(_line(f"{shape} wire", means))
        for same, (px, py) in zip(at, means, strict=True):
            scores = [one.scores[images] for one in same]
            mean, deviation = statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0
            said = f"{', '.join(one.name for one in same)}: {spread(scores, metric)}"
            said += f", {len(same)} trainings" if len(same) > 1 else ""
            said += f" at {short(same[0].costs[cost]) if cost == 'flops' else format(same[0].costs[cost], '.4g')}"
            if deviation:
                line = element("line", class_=shape, x1=px, x2=px, y1=y(mean - deviation), y2=y(mean + deviation))
                drawing.append(line)
            drawing.append(_mark(number, shape, px, py, said))
        drawing.append(_mark(number, shape, legend + 4, 12, name))
        drawing.append(element("text", name, x=legend + 12, y=15.5))
        legend += 24 + 5.6 * len(name)
    return drawing


def _legend(names: Iterable[tuple[str, str]]) -> tuple[list[Element], float]:
    """Return keys, given as classes of bars or wires and names, and how much height they take."""
    drawn, x, y = list[Element](), 0.0, 0.0
    for class_, name in names:
        width = 22 + 5.6 * len(name)
        if x and x + width > WIDTH:
            x, y = 0.0, y + 14
        is_wire = "wire" in class_.split()
        key = _line(class_, [(x, y + 6), (x + 9, y + 6)]) if is_wire else _bar(class_, x, y + 2, 8, 8)
        drawn.append(key)
        drawn.append(element("text", name, x=x + 12, y=y + 10))
        x += width
    return drawn, y + 16


def alike(networks: Iterable[Network]) -> list[Sequence[Network]]:
    """Return networks by what they have in common: channels, what chose them, and how they were trained."""
    groups: dict[tuple[object, ...], list[Network]] = {}
    for network in networks:
        key = (tuple(network.channels.items()), network.channels_by, network.trained)
        groups.setdefault(key, []).append(network)
    return list(groups.values())


def spread(scores: Sequence[float], metric: Metric) -> str:
    """Write a score, of several their mean and deviation."""
    if not scores:
        return ""
    deviation = f" \u00b1 {metric.show(statistics.stdev(scores))}" if len(scores) > 1 else ""
    return metric.show(statistics.fmean(scores)) + deviation


def colour(number: int) -> str:
    """Return the class that colours a series."""
    return f"c{number % COLOURS + 1}"


def _stroke(number: int) -> str:
    """Return the classes of a curve: where colours are at their end, dashes tell curves apart."""
    return f"{colour(number)} wire {DASHES[number // COLOURS % len(DASHES)]}".rstrip()


def _tick(metric: Metric, value: float) -> str:
    """Write a value beside an axis."""
    return f"{100 * value:.4g}%" if metric.unit == "%" else f"{value:.4g}"


def _number(value: object) -> float:
    """Return a number of a log."""
    return float(value) if isinstance(value, int | float) else math.nan


def _drawing(what: str, height: float) -> Element:
    """Return an empty drawing."""
    return element("svg", viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=what)


def _bar(class_: str, x: float, y: float, width: float, height: float) -> Element:
    """Return a bar."""
    return element("rect", class_=class_, x=x, y=y, width=max(width, 0.0), height=height)


def _line(class_: str, points: Iterable[tuple[float, float]]) -> Element:
    """Return a line through points."""
    return element("polyline", class_=class_, points=" ".join(f"{x:.2f},{y:.2f}" for x, y in points))


def _mark(number: int, class_: str, x: float, y: float, said: str) -> Element:
    """Return the mark of a point: series differ in their shape, not by colour alone."""
    title = element("title", said)
    if number % 3 == 0:
        return element("circle", title, class_=class_, cx=x, cy=y, r=4)
    if number % 3 == 1:
        return element("rect", title, class_=f"{class_} open", x=x - 3.5, y=y - 3.5, width=7, height=7)
    return element("path", title, class_=class_, d=f"M{x - 4.5:g},{y + 3.5:g}h9l-4.5,-8z")


def _tail(name: str, most: int = 20) -> str:
    """Return the end of a long name, which tells layers apart."""
    return name if len(name) <= most else f"\u2026{name[1 - most :]}"


def _lanes(facts: Facts, names: Sequence[str]) -> dict[str, tuple[int, list[int]]]:
    """Return the units of several layers, each with a lane in which no other's bracket is, and its layers' places."""
    members: dict[str, list[int]] = {}
    units = {layer.name: layer.units for layer in facts.layers}
    for place, name in enumerate(names):
        for unit in units[name]:
            members.setdefault(unit, []).append(place)
    ends: list[int] = []
    lanes: dict[str, tuple[int, list[int]]] = {}
    for unit, places in members.items():
        if len(places) > 1:
            lane = next((lane for lane, end in enumerate(ends) if end < places[0]), len(ends))
            ends[lane : lane + 1] = [places[-1]]
            lanes[unit] = (lane, places)
    return lanes


def _scale(values: Iterable[float], start: float, stop: float) -> tuple[Callable[[float], float], list[float]]:
    """Return where values lie between two places, with some room around them, and where ticks stand."""
    given = [value for value in values if math.isfinite(value)]
    low, high = min(given), max(given)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return start + (value - low) / (high - low) * (stop - start)

    return place, _ticks(low, high, 5)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers between two values."""
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
