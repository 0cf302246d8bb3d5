"""The report: one page of everything in a recipe's directory, whatever names and texts lie in it."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from PIL import Image

from autoslim_cli.files import checkpoint
from autoslim_cli.files.channel_config import read_config
from autoslim_cli.report.charts import training
from autoslim_cli.report.png import _style
from autoslim_cli.report.strokes import Axis
from autoslim_cli.stages.report import _chosen_by

HOSTILE = "\"><svg onload=alert(1)><img src=x onerror='alert(2)'>&amp;\x07"
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "section", "div", "span"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre", "code", "ul", "li"),
    *("svg", "g", "rect", "line", "circle", "path", "polyline", "text"),
}
"""What a report is made of: nothing that runs, loads or sends."""


class Page(HTMLParser):
    """Collect a page's elements, their attributes, its text and what opens without closing."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.words = set(), {}, []
        self.open = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)
        self.open += [] if tag == "meta" else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page_of(directory):
    page = Page((directory / "report.html").read_text(encoding="utf-8"))
    assert page.elements <= ELEMENTS
    assert not [name for name in page.attributes if name.startswith("on") or name in ("src", "href", "action")]
    assert "default-src 'none'; style-src 'unsafe-inline'" in page.attributes["content"]
    for file in directory.glob("report-*.svg"):
        names = {one.tag.rpartition("}")[2] for one in ElementTree.parse(file).iter()}
        assert names <= ELEMENTS
    return page


def test_the_page_shows_what_lies_in_the_directory(worked, autoslim, autoslim_json):
    autoslim("calibrate-bn", "--widths", "0.5,1.0", "-r", worked)
    autoslim("retrain", "--width", "0.5", "-r", worked, "retrain.epochs=1")
    result = autoslim_json("report", "-r", worked)
    assert result["page"] == str(worked / "report.html")
    assert set(result["figures"]) == {"channels", "slimming", "accuracy", "subnetworks", "training", "flops", "params"}
    assert result["left_out"] == []
    page = page_of(worked)
    text = " ".join(page.words)
    for path in (*worked.glob("arch-*.json"), *worked.glob("*.safetensors")):
        assert path.name in page.words, path
    config = read_config(worked / "arch-30pct.json")
    assert f"{config.cost.flops:,}" in text
    assert any(word.startswith("supernet: ") and "the last at a loss of" in word for word in page.words)
    assert "searched" in page.words
    assert "one width" in page.words
    # Every step of the search says its units under the pointer, and the ties of residual sums are drawn.
    said = [word for word in page.words if word.startswith("step ")]
    steps = [line for line in (worked / "search.jsonl").read_text().splitlines() if line.startswith('{"step"')]
    assert len(said) == 2 * len(steps)  # in the figure, and in a list for those without a pointer
    assert "conv1: 2 layers whose counts are equal (tied by a sum or a recipe)" in page.words
    assert "changed" not in page.attributes["class"]
    # One that was made from something else since is marked.
    (worked / "arch-60pct.json").write_text(json.dumps(json.loads((worked / "arch-60pct.json").read_text())))
    autoslim("report", "-r", worked)
    assert "arch-60pct.json (changed)" in page_of(worked).words


def test_the_report_shows_the_budget_the_uniform_network_and_test_top1(worked, autoslim_json):
    """And FLOPs grow to the right in every figure."""
    _, *found = autoslim_json("run", "--flops", "60%,30%", "-r", worked, "retrain.epochs=1")["networks"]
    assert not list(worked.glob("*.png"))  # the page and its figures are all that is drawn
    page = page_of(worked)
    text = " ".join(page.words)
    base = autoslim_json("info", worked / "arch-60pct.json")["base"]["flops"]
    assert "test top-1" in page.words
    for row in found:
        assert f"{row['top1']:.2%}" in page.words
        name = row["path"].rpartition("/")[2].removesuffix(".safetensors")
        assert name in text  # the searched networks and those of one width alike
    assert any(row["network"] == "uniform" for row in found)
    assert "one width" in page.words
    for share, row in ((0.6, found[0]), (0.3, found[2])):
        used = row["flops"] / int(share * base)
        assert f"flops<={share:.0%}, {used:.1%} used" in page.words
        assert any(word.startswith(f"budget flops<={share:.0%}: ") for word in page.words)
    # The two budgets' lines in the slimming figure: the larger lies to the right, and each holds its answer.
    svg = ElementTree.parse(worked / "report-slimming.svg").getroot()
    lines = [one for one in svg.iter() if one.tag.endswith("line") and "limit" in one.get("class", "").split()]
    answers = [one for one in svg.iter() if one.tag.endswith("line") and "wire" in one.get("class", "").split()]
    limits = {one.get("class").split()[0]: float(one.get("x1")) for one in lines}
    at = {one.get("class").split()[0]: float(one.get("x1")) for one in answers if one.get("x1")}
    assert len(limits) == 2
    assert limits["c1"] > limits["c2"]
    assert all(at[colour] <= limits[colour] for colour in limits)
    for name in ("slimming", "accuracy"):
        svg = ElementTree.parse(worked / f"report-{name}.svg").getroot()
        texts = [one for one in svg.iter() if one.tag.endswith("text") and one.text and one.text.endswith("K")]
        ticks = [(float(one.get("x")), float(one.text.removesuffix("K"))) for one in texts]
        assert len(ticks) > 1
        assert ticks == sorted(ticks, key=lambda tick: tick[1])


def test_accuracy_says_what_chose_the_channels_and_how_far_trainings_differ(worked, autoslim):
    """Searched, random, of one width and by hand, whatever has become of the config that a network was trained at."""
    random, hand = worked / "arch-30pct.json", worked / "arch-mine.json"
    autoslim("search", "--flops", "30%", "-r", worked, "search.strategy=random", "search.draws=2")  # of the same name
    for seed in (1, 2, 3):
        autoslim("retrain", random, "--name", f"random-{seed}", "retrain.epochs=1", f"seed={seed}")
    config = json.loads(random.read_text())
    hand.write_text(json.dumps({key: config[key] for key in ("format", "model", "channels")}))
    autoslim("retrain", hand, "retrain.epochs=1")
    autoslim("retrain", "--width", "0.5", "-r", worked, "retrain.epochs=1")
    random.unlink()
    autoslim("report", "-r", worked)
    marks = {mark.text: mark for mark in ElementTree.parse(worked / "report-accuracy.svg").iter() if mark.text}
    assert {"searched", "random", "one width", "by hand"} <= marks.keys()
    several = [text for text in marks if text.startswith("model-random-1, model-random-2, model-random-3: ")]
    assert len(several) == 1
    assert re.search(r": [\d.]+% ± [\d.]+%, 3 trainings at ", several[0])
    words = page_of(worked).words
    assert {"model-random-1 and 2 more", "3 trainings of 1 epochs from scratch"} <= set(words)


def test_other_trainings_do_not_share_a_row(worked, autoslim):
    """Only those that differ in their seed do; a copy is none."""
    for name, more in (("one", ()), ("two", ("retrain.lr=0.2",)), ("three", ("seed=1",))):
        autoslim("retrain", worked / "arch-30pct.json", "--name", name, "retrain.epochs=1", *more)
    shutil.copy(worked / "model-one.safetensors", worked / "model-copy.safetensors")
    autoslim("report", "-r", worked)
    words = page_of(worked).words
    assert "2 trainings of 1 epochs from scratch" in words
    assert not any(word.startswith(("3 trainings", "4 trainings")) for word in words)


def test_a_supernet_and_a_search_of_another_network_are_left_out(worked, autoslim_json):
    """Their scores were shown at the costs of the recipe as it is now."""
    left = autoslim_json("report", "-r", worked, "supernet.width=1.0")["left_out"]
    assert {note.partition(":")[0].rpartition("/")[2] for note in left} == {"supernet.safetensors", "search.jsonl"}
    assert all("than the recipe's supernet has now" in note for note in left)


def test_what_lies_in_a_directory_below_is_there(worked, autoslim):
    """As the channel lists that come with a recipe do."""
    (worked / "published").mkdir()
    (worked / "arch-30pct.json").rename(worked / "published/arch-listed.json")
    autoslim("retrain", worked / "published/arch-listed.json", "retrain.epochs=1")
    autoslim("report", "-r", worked)
    assert "arch-listed.json (missing)" not in " ".join(page_of(worked).words)


def test_a_network_of_a_config_that_was_kept_is_shown(worked, autoslim):
    (worked / "arch-30pct.json").rename(worked / "arch-30pct.old-1.json")
    autoslim("retrain", worked / "arch-30pct.old-1.json", "retrain.epochs=1")
    assert (worked / "model-30pct-old-1.safetensors").exists()
    autoslim("report", "-r", worked)
    assert "model-30pct-old-1" in " ".join(page_of(worked).words)


def test_every_step_is_seen_and_says_its_channels(worked, autoslim):
    """Draws and filled budgets are rings, and not of the ground's colour all through."""
    autoslim("search", "--flops", "30%", "-r", worked, "search.strategy=random", "search.draws=3")
    autoslim("report", "-r", worked)
    steps = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    steps = [step for step in steps if "step" in step]
    drawing = ElementTree.parse(worked / "report-slimming.svg").getroot()
    for shape in drawing.iter():
        shape.tag = shape.tag.rpartition("}")[2]
    dots = list(drawing.iter("circle"))
    assert len(dots) == 2 * len(steps)
    for dot in dots:
        style = _style(dot)
        assert style["fill"] != "#fff" or (style["stroke"] not in ("none", "#fff") and float(style["stroke-width"]) > 0)
    channels = ", ".join(f"{unit} {count}" for unit, count in steps[0]["channels"].items())
    assert any(f"draw: {channels}; " in (title.text or "") for title in drawing.iter("title"))


def test_a_dozen_and_a_half_of_trainings_are_told_apart():
    curves = {f"training {number}": [(0.0, 2.0), (100.0, 1.0 / (1 + number))] for number in range(18)}
    lines = training(SimpleNamespace(curves=curves)).findall("polyline")
    looks = [_style(line) for line in lines]
    told_apart = [(look["stroke"], look.get("stroke-dasharray")) for look in looks]
    assert told_apart[:18] == told_apart[18:]  # the key, then the curves
    assert len(set(told_apart)) == 18


def test_figures_as_png(worked, autoslim, refuse, monkeypatch):
    pytest.importorskip("matplotlib")
    autoslim("report", "-r", worked, "--png")
    files = sorted(worked.glob("report-*.svg"))
    assert [path.with_suffix(".png") for path in files] == sorted(worked.glob("report-*.png"))
    for path in files:
        *_, width, height = map(float, ElementTree.parse(path).getroot().get("viewBox").split())
        with Image.open(path.with_suffix(".png")) as picture:
            assert picture.info["Software"] == "autoslim"
            assert picture.size == pytest.approx((2.5 * width, 2.5 * height), abs=1)
            colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24)}
        assert {(255, 255, 255), (0x66, 0x70, 0x85)} < colours  # the ground, and letters beside an axis
        assert ((0xC2, 0x41, 0x0C) in colours) == ("c1" in path.read_text().partition("</style>")[2])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install '.[plot]'" in refuse(2, "report", "-r", worked, "--png")


def test_nothing_in_a_name_or_a_text_runs(worked, autoslim):
    directory = worked.rename(worked.with_name(HOSTILE.replace("\x07", "")))
    recipe = directory / "recipe.yaml"
    about = json.dumps("</style><script>alert(3)</script>" + HOSTILE.replace("\x07", ""))
    recipe.write_text(recipe.read_text() + f"\nabout: {about}\n")
    config = json.loads((directory / "arch-30pct.json").read_text())
    config["found"] |= {"budget": f"flops<=1{HOSTILE}", "strategy": HOSTILE}
    (directory / f"arch-{HOSTILE}.json").write_text(json.dumps(config))
    rows = (directory / "search.jsonl").read_text().splitlines()
    rows = [row.replace('"unit": "conv1"', f'"unit": {json.dumps(HOSTILE)}') for row in rows]
    (directory / "search.jsonl").write_text("\n".join(rows) + "\n")
    autoslim("report", "-r", directory)
    page = page_of(directory)
    assert any("<script>alert(3)</script>" in word for word in page.words)
    assert any("<svg onload=alert(1)>" in word for word in page.words)
    assert not any("\x07" in word for word in page.words)


def test_what_cannot_be_shown_is_named(worked, autoslim_json, tmp_path):
    """A directory with little in it has a report, too; files that are damaged or foreign are left out."""
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(worked / "recipe.yaml", alone)
    assert set(autoslim_json("report", "-r", alone)["figures"]) == {"channels", "flops", "params"}
    (alone / "arch-half.json").write_text("{ half")
    (alone / "supernet.metrics.jsonl").write_text('{"step": 1, "loss": {"a": "b"}}\n{"step": 2}\n[[\n')
    (alone / "foreign.safetensors").write_text("not even one")
    (alone / "gone.safetensors").symlink_to(tmp_path / "purged.safetensors")
    (alone / "search.jsonl").write_text('{"format": 1}\nnot a line\n')
    result = autoslim_json("report", "-r", alone)
    assert [note.partition(":")[0].rpartition("/")[2] for note in result["left_out"]] == [
        "arch-half.json", "foreign.safetensors", "gone.safetensors", "search.jsonl",
    ]  # fmt: skip
    assert "Left out" in page_of(alone).words


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [1e-9, 2e-9], [3e9, 3.1e9]])
def test_ticks_lie_on_the_axis(values):
    axis = Axis.around(values, 10.0, 90.0)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 12
    assert all(10 <= axis(tick) <= 90 for tick in (*ticks, *values))


@pytest.mark.parametrize(
    ("strategy", "name"),
    [("magnitude", "magnitude"), ("uniform", "one width"), ("lazy", "searched"), (None, "searched")],
)
def test_what_chose_channels_is_said_of_sub_networks_too(strategy, name):
    of_config = {"parents": {"supernet.safetensors": "", "arch-60pct.json": ""}}
    facts = {"format": checkpoint.MODEL, "chosen_by": strategy}
    assert _chosen_by({**facts, "made_from": {"parents": {"supernet.safetensors": ""}}}) == name
    assert _chosen_by({**facts, "test": {}, "made_from": of_config}) == name
    assert _chosen_by({**facts, "test": {}, "made_from": {}}) == "one width"


def test_a_sub_network_records_what_chose_its_channels(worked, autoslim_json):
    by_hand = worked / "arch-mine.json"
    config = json.loads((worked / "arch-60pct.json").read_text())
    config["model"]["weights"] = "trained.safetensors"  # as in a recipe: what it started from sets no network apart
    by_hand.write_text(json.dumps({key: config[key] for key in ("format", "model", "channels")}))
    rows = autoslim_json(
        "calibrate-bn", "--widths", "0.5", "--channels", worked / "arch-60pct.json", "--channels", by_hand
    )
    facts = [checkpoint.read_any(Path(row["path"])) for row in rows["subnetworks"]]
    assert [one.get("chosen_by") for one in facts] == [None, "lazy", "by hand"]
    assert autoslim_json("report", "-r", worked)["left_out"] == []
