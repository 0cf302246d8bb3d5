"""Write a report as one HTML page that needs nothing else: no script, no network, light and dark, on a phone too."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element

from autoslim_cli.files.measures import MEASURES
from autoslim_cli.files.metric import TOP1
from autoslim_cli.report.facts import Artifact, Facts, Network
from autoslim_cli.report.markup import element, html
from autoslim_cli.report.strokes import STYLE
from autoslim_cli.report.words import alike, said_of, spread

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The browser loads and runs nothing, whatever a name in the report may try."""

PAGE_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #667085; --line: #d6dae1; --ground: #fff; --card: #f6f7f9;
  --base: #c3c9d4; --c1: #c2410c; --c2: #1d4ed8; --c3: #15803d; --c4: #9333ea; --c5: #0e7490; --c6: #be185d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #343c4a; --ground: #14181f;
  --card: #1b212b; --base: #4d5768; --c1: #fb923c; --c2: #7aa7ff; --c3: #4ade80; --c4: #c99bff; --c5: #4dd4e6;
  --c6: #f98bbd; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 16px; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5em; margin: .3em 0 0; } h2 { font-size: 1.05em; margin: 0 0 .2em; }
p { margin: .2em 0 .7em; } .soft { color: var(--soft); }
.cards { columns: 2 400px; column-gap: 16px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px; min-width: 0;
  margin: 0 0 16px; break-inside: avoid; }
svg { display: block; width: 100%; height: auto; } section svg { --ground: var(--card); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .88em; overflow-wrap: normal; }
th, td { text-align: right; padding: 4px 8px; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { font-weight: 600; color: var(--soft); }
td.left, th.left { text-align: left; } td.wrap { white-space: normal; min-width: 9em; overflow-wrap: anywhere; }
code, pre { font: .9em ui-monospace, monospace; } pre { overflow-x: auto; white-space: pre-wrap; }
.changed { color: var(--c1); font-weight: 600; } summary { cursor: pointer; color: var(--soft); }
details > * + * { margin-top: .5em; }
""".strip()


def page(facts: Facts, figures: Mapping[str, Element]) -> str:
    """Write the page; `figures` are those of `charts.figures`."""
    devices = [name for name in facts.base.costs if name.startswith("ms ")]
    score = facts.metric.title
    headed = "Accuracy" if facts.metric == TOP1 else score
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="generator", content=f"autoslim {facts.version}"),
        element("title", f"{facts.title}: autoslim report"),
        element("style", PAGE_STYLE + "\n" + STYLE),
    )
    cards = [_section("Channels along the network", _CHANNELS, figures["channels"], _units(facts))]
    if "slimming" in figures:
        cards.append(_section("Slimming", facts.search, figures["slimming"], _steps(facts)))
    for name, title, text in (
        ("accuracy", f"{headed} against FLOPs", f"Test {score} of retrained networks, by what chose their channels."),
        *((f"accuracy-{name}", f"{headed} against {name}", "As its latency table predicts it.") for name in devices),
        ("subnetworks", "The supernet's sub-networks", f"Holdout {score} with BN calibrated, without training."),
        ("training", "Training", "Training loss; the supernet's is that of its largest sub-network."),
        ("flops", "Where FLOPs go", "Layer by layer."),
        ("params", "Where parameters go", "Layer by layer."),
        *((name, f"Where {name} go", "Layers timed alone; a network's sum is corrected.") for name in devices),
    ):
        if name in figures:
            cards.append(_section(title, text, figures[name]))
    body = element(
        "body",
        element("h1", facts.title),
        element("p", facts.about, class_="soft"),
        _section("Networks", facts.model, *_networks(facts, devices)),
        element("div", *cards, class_="cards"),
        _section("Where it comes from", _PROVENANCE, _provenance(facts.artifacts)),
        _section("Left out", "", _list(facts.notes)) if facts.notes else None,
        _section("Recipe", "", _folded("recipe.yaml with every default", element("pre", facts.recipe))),
        element(
            "p",
            f"autoslim {facts.version}; FLOPs are multiply-adds of convolutions and linear layers, batch 1",
            class_="soft",
        ),
    )
    return html(element("html", head, body, lang="en"))


_CHANNELS = (
    "Grey: the base network; dashed: the supernet. Brackets join layers whose counts must be equal, as those that a "
    "residual sum adds."
)
_PROVENANCE = "Every artifact records what it was made from; a parent that has changed since is marked."


def _section(title: str, text: str, *parts: Element) -> Element:
    """Return a card: a heading, a sentence, and what it shows."""
    return element("section", element("h2", title), element("p", text, class_="soft") if text else None, *parts)


def _table(heads: Sequence[str], rows: Iterable[Iterable[Element | str]], *, left: int = 1) -> Element:
    """Return a table; the first `left` columns are text, the others figures."""
    head = element("tr", *(element("th", text, class_="left" if n < left else None) for n, text in enumerate(heads)))
    body = [
        element("tr", *(element("td", cell, class_="left wrap" if n < left else None) for n, cell in enumerate(row)))
        for row in rows
    ]
    table = element("table", element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll")


def _networks(facts: Facts, devices: Sequence[str]) -> Iterator[Element]:
    """List the networks with their costs, and what was measured of them; the supernet's sub-networks are folded."""
    each = ([one] for one in (facts.base, facts.supernet, *facts.found))
    yield _costs_and_scores(facts, devices, [*each, *alike(one for one in facts.others if one.kind == "retrained")])
    if subnets := [[one] for one in facts.others if one.kind == "subnet"]:
        several = "s" if len(subnets) > 1 else ""
        title = f"{len(subnets)} sub-network{several} of the supernet"
        yield _folded(title, _costs_and_scores(facts, devices, subnets))


def _costs_and_scores(facts: Facts, devices: Sequence[str], several: Sequence[Sequence[Network]]) -> Element:
    """List networks; those of equal channels that were trained alike share a row."""
    every = [network for same in several for network in same]
    measured = [where for where in ("holdout", "test") if any(where in network.scores for network in every)]
    memory = [name for name in ("activation_memory",) if name in facts.base.costs]
    heads = ["network", "FLOPs", "params", *("activations" for _ in memory), *devices]
    heads += [f"{where} {facts.metric.title}" for where in measured]

    def row(same: Sequence[Network]) -> Iterable[Element | str]:
        network, costs = same[0], same[0].costs
        name = min((one.name for one in same), key=len)
        several = f"{len(same)} trainings of " if len(same) > 1 else ""
        said = [_budget(network)] if network.budget else [several + network.trained] if network.trained else []
        others = f" and {len(same) - 1} more" if len(same) > 1 else ""
        yield element("span", name + others, *(element("div", text, class_="soft") for text in said))
        yield f"{costs['flops']:,.0f} ({costs['flops'] / facts.base.costs['flops']:.0%})"
        yield f"{costs['params']:,.0f}"
        yield from (MEASURES[name].show(costs[name]) for name in memory)
        yield from (f"{costs[name]:.4g}" for name in devices)
        yield from (spread([n.scores[where] for n in same if where in n.scores], facts.metric) for where in measured)

    return _table(heads, map(row, several))


def _budget(network: Network) -> str:
    """Write what a search was given, and how much of it the network that it found uses."""
    shares = [network.costs[name] / limit for name, limit in network.limits.items() if limit > 0]
    return f"{network.budget}{f', {max(shares):.1%} used' if shares else ''}"


def _units(facts: Facts) -> Element:
    """List the counts of every unit."""
    networks = [facts.base, facts.supernet, *facts.found]
    rows = ([unit, *(str(network.channels[unit]) for network in networks)] for unit in facts.base.channels)
    return _folded("Counts of every unit", _table(["unit", *(network.name for network in networks)], rows))


def _steps(facts: Facts) -> Element:
    """List the steps of the search: what the pointer shows, for those who have none."""
    return _folded(
        f"All {len(facts.steps)} steps", _list(said_of(step, facts.metric) for step in facts.steps if "flops" in step)
    )


def _provenance(artifacts: Sequence[Artifact]) -> Element:
    """List artifacts, what they were made from, and all that they say of it."""

    def row(artifact: Artifact) -> Iterable[Element | str]:
        yield artifact.name
        parents = element("span")
        for parent in artifact.parents:
            marked = "changed" if parent.now != "same" else None
            text = parent.name if parent.now == "same" else f"{parent.name} ({parent.now})"
            parents.append(element("div", element("span", text, class_=marked)))
        yield parents
        origin = json.dumps(artifact.origin, indent=1, ensure_ascii=False)
        yield _folded(artifact.what, element("pre", origin)) if artifact.origin else artifact.what
        yield ", ".join(f"{name} {version}" for name, version in artifact.versions.items())
        yield element("code", artifact.digest.removeprefix("sha256:")[:12])

    return _table(["file", "made from", "what it is", "versions", "sha256"], map(row, artifacts), left=4)


def _folded(title: str, content: Element) -> Element:
    """Return what opens at a click."""
    return element("details", element("summary", title), content)


def _list(lines: Iterable[str]) -> Element:
    """Return lines one below the other."""
    return element("ul", *(element("li", line) for line in lines))
