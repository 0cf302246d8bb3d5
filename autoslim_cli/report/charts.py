"""Draw a report's figures: rows of bars along the network, the slimming curve, accuracy against a cost."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from xml.etree.ElementTree import Element

from autoslim_cli.cost.budget import short
from autoslim_cli.files.metric import Metric
from autoslim_cli.report.facts import Facts, Network
from autoslim_cli.report.markup import element
from autoslim_cli.report.strokes import WIDTH, Axis, across, bar, colour, keys, mark, polyline, sheet, stroke, upwards
from autoslim_cli.report.words import alike, said_of, spread

LEFT, RIGHT = 44.0, 14.0
"""Room beside a field: for the values of its axis, and for half of the last one below."""

LABELS, LANE = 112.0, 6.0
"""Room for the names of layers, and for each lane of brackets."""

FLOPS = "FLOPs (multiply-adds)"


def figures(facts: Facts) -> dict[str, Element]:
    """Return a report's figures by name; those that there is nothing for are left out."""
    drawn = {"channels": channels(facts)}
    if facts.steps:
        drawn["slimming"] = slimming(facts)
    measured = [network for network in facts.others if network.kind == "retrained" and "test" in network.scores]
    subnets = [network for network in facts.others if network.kind == "subnet" and "holdout" in network.scores]
    devices = [name for name in facts.base.costs if name.startswith("ms ")]
    if measured:
        drawn["accuracy"] = accuracy(facts.metric, measured, "flops", "test", FLOPS)
        for name in devices:
            drawn[f"accuracy-{name}"] = accuracy(facts.metric, measured, name, "test", f"predicted {name}")
    if subnets:
        drawn["subnetworks"] = accuracy(facts.metric, subnets, "flops", "holdout", FLOPS)
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
    x = Axis(0, most, left, WIDTH - RIGHT)
    legend, head = keys([("base", "base"), *((f"bar {colour(n)}", one.name) for n, one in enumerate(facts.found))])
    first = head + 18  # below the numbers of the scale
    drawing = sheet(what, first + 2 + height * len(names))
    drawing.extend(legend)
    for tick in (tick for tick in x.ticks(4) if what != "channels" or tick == int(tick)):
        at = {"x1": x(tick), "x2": x(tick), "y1": first - 2, "y2": first + height * len(names)}
        drawing.append(element("line", class_="line", **at))
        text = show(int(tick) if what == "channels" else tick)
        drawing.append(element("text", text, class_="soft middle", x=x(tick), y=first - 7))
    for place, name in enumerate(names):
        top = first + height * place
        said = [f"{name}: base {show(base.get(name, 0))}"]
        said += [f"supernet {show(largest[name])}"] if largest else []
        said += [f"{n.name} {show(one.get(name, 0))}" for n, one in zip(facts.found, found, strict=True)]
        row = element("g", element("title", f"{', '.join(said)} {what if what == 'channels' else ''}".rstrip()))
        row.append(element("rect", class_="strip", x=0, y=top, width=WIDTH, height=height))
        row.append(element("text", _tail(name), class_="end", x=LABELS - 2, y=top + height / 2 + 3))
        if largest:
            width = x(largest[name]) - left
            row.append(element("rect", class_="largest", x=left, y=top + 1, width=width, height=height - 2))
        row.append(bar("base", left, top + 1, x(base.get(name, 0)) - left, height - 2))
        thick = (height - 4) / max(len(found), 1)
        for number, one in enumerate(found):
            thin = min(thick * 0.75, 6)
            y = top + 2 + thick * number + (thick - thin) / 2
            row.append(bar(f"bar {colour(number)}", left, y, x(one.get(name, 0)) - left, thin))
        drawing.append(row)
    for unit, (lane, members) in lanes.items():
        rail = LABELS + LANE * lane + 4
        ys = [first + height * (place + 0.5) for place in members]
        path = f"M{rail},{ys[0]:g}V{ys[-1]:g}" + "".join(f"M{rail},{y:g}h{LANE * 0.6:g}" for y in ys)
        title = element("title", f"{unit}: {len(members)} layers whose counts are equal (tied by a sum or a recipe)")
        drawing.append(element("path", title, class_="tie", d=path))
    return drawing


def slimming(facts: Facts) -> Element:
    """Draw loss and score on the holdout against FLOPs, step by step; each step says its units under the pointer."""
    steps, metric, left, right = facts.steps, facts.metric, LEFT, WIDTH - RIGHT
    limits = [one.limits["flops"] for one in facts.found if "flops" in one.limits]
    found = [one.costs["flops"] for one in facts.found]
    x = Axis.around([*(step["flops"] for step in steps), *found, *limits], left, right)
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
    drawing = sheet("slimming", foot + 30)
    # 2. Loss and score, one above the other.
    drawing.extend(across(x, head, foot, short, FLOPS))
    for key, top, bottom, show in (
        ("loss", head, head + 112, _loss),
        (metric.name, head + 136, foot, partial(_score, metric)),
    ):
        y = Axis.around([step[key] for step in steps], bottom, top)
        drawing.extend(upwards(y, left, right, show))
        path = [(x(step["flops"]), y(step[key])) for step in steps if step["kind"] == "slim"]
        drawing.append(polyline("path", path))
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
    for title, top in (("loss", head), (metric.title, head + 136)):
        words = f"{title} on the holdout, before training"
        drawing.append(element("text", words, class_="clear", x=left, y=top - 4))
    # 3. A strip for each step, which says its units.
    ordered = sorted(steps, key=lambda step: float(step["flops"]))
    places = [x(step["flops"]) for step in ordered]
    edges = [left, *((a + b) / 2 for a, b in pairwise(places)), right]
    for place, step in enumerate(ordered):
        width = max(edges[place + 1] - edges[place], 0.5)
        strip = element("rect", element("title", said_of(step, metric)), class_="strip", x=edges[place], y=head)
        strip.attrib |= {"width": f"{width:.2f}", "height": f"{foot - head:g}"}
        drawing.append(strip)
    return drawing


def training(facts: Facts) -> Element:
    """Draw the loss of every training against its steps, the supernet's that of its largest sub-network."""
    legend, head = keys((stroke(number), name) for number, name in enumerate(facts.curves))
    top, bottom = head + 6, head + 182
    drawing = sheet("training", bottom + 34)
    drawing.extend(legend)
    points = [point for curve in facts.curves.values() for point in curve]
    x = Axis.around([step for step, _ in points], LEFT, WIDTH - RIGHT)
    y = Axis.around([loss for _, loss in points], bottom, top)
    drawing.extend((*across(x, top, bottom, short, "steps"), *upwards(y, x.start, x.stop, _loss)))
    for number, (name, curve) in enumerate(facts.curves.items()):
        line = polyline(stroke(number), [(x(step), y(loss)) for step, loss in curve])
        line.append(element("title", f"{name}: {len(curve)} looks, the last at a loss of {curve[-1][1]:.4g}"))
        drawing.append(line)
    return drawing


def accuracy(metric: Metric, networks: Sequence[Network], cost: str, images: str, title: str) -> Element:
    """Draw a score against a cost, by what chose the channels; networks of equal channels: a mean and a deviation."""
    points: dict[str, list[Sequence[Network]]] = {}
    for same in alike(networks):
        points.setdefault(same[0].channels_by, []).append(same)
    drawing, left, right, top, bottom = sheet(title, 230), LEFT, WIDTH - RIGHT, 30.0, 196.0
    show = short if cost == "flops" else "{:.4g}".format
    x = Axis.around([network.costs[cost] for network in networks], left, right)
    y = Axis.around([network.scores[images] for network in networks], bottom, top)
    drawing.extend((*across(x, top, bottom, show, title), *upwards(y, left, right, partial(_score, metric))))
    legend = left
    for number, (name, groups) in enumerate(points.items()):
        shape, at = colour(number), sorted(groups, key=lambda same: same[0].costs[cost])
        means = [(x(same[0].costs[cost]), y(statistics.fmean(n.scores[images] for n in same))) for same in at]
        drawing.append(polyline(f"{shape} wire", means))
        for same, (px, py) in zip(at, means, strict=True):
            scores = [one.scores[images] for one in same]
            mean, deviation = statistics.fmean(scores), statistics.stdev(scores) if len(scores) > 1 else 0.0
            said = f"{', '.join(one.name for one in same)}: {spread(scores, metric)}"
            said += f", {len(same)} trainings" if len(same) > 1 else ""
            said += f" at {show(same[0].costs[cost])}"
            if deviation:
                line = element("line", class_=shape, x1=px, x2=px, y1=y(mean - deviation), y2=y(mean + deviation))
                drawing.append(line)
            drawing.append(mark(number, shape, px, py, said))
        drawing.append(mark(number, shape, legend + 4, 12, name))
        drawing.append(element("text", name, x=legend + 12, y=15.5))
        legend += 24 + 5.6 * len(name)
    return drawing


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


def _loss(value: float) -> str:
    """Write a loss beside an axis."""
    return f"{value:.4g}"


def _score(metric: Metric, value: float) -> str:
    """Write a score beside an axis."""
    return f"{100 * value:.4g}%" if metric.unit == "%" else f"{value:.4g}"
