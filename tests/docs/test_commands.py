"""What the pages tell people to type works: tutorial and how-to pages run as they stand, with small settings.

A fence `sh` is run, `sh notest: REASON` only parsed; `python` is executed, and a fence with `file: NAME` is saved there
first. Commands in all other pages are parsed: their options and the recipe keys that they set must be there.
"""

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from conftest import run_autoslim

from autoslim_cli.cli.app import app
from autoslim_cli.latency import measuring, timing
from autoslim_cli.recipe.schema import Recipe
from autoslim_cli.stages import profile

pytestmark = pytest.mark.slow

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
RUN = [ROOT / "docs/tutorial.md", *sorted(ROOT.glob("docs/how-to/*.md"))]

SMALLER = {
    "epochs: 30": "epochs: 1",
    "epochs: 15": "epochs: 1",
    "holdout: 400": "holdout: 40",
    "groups: 24": "groups: 3",
    "groups: 12": "groups: 3",
    "groups: 8": "groups: 3",
    "samples: 4": "samples: 3",
    '("train", 600), ("test", 150)': '("train", 40), ("test", 5)',
}
"""What a page's own settings are replaced by, in every file that it makes: with them the pages take ten minutes."""

FENCE = re.compile(r"(?ms)^```(\w+)(?: (\w+): ([^\n]*))?\n(.*?)^```$")


def smaller(text):
    """The text of a file with small settings; once they are there, nothing is left to replace."""
    for whole, small in SMALLER.items():
        text = text.replace(whole, small)
    return text


def lines_of(block):
    """The commands of a block, each as its words, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def expanded(words):
    """Words with patterns of files replaced, as a shell does."""
    found = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
    return [word for part in found for word in part]


def run(words):
    """Run one command here: autoslim and python in this process, as importing torch takes longer than most commands."""
    if words[0] == "autoslim":
        run_autoslim(*expanded(words[1:]))
    elif words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
    else:
        subprocess.run(words, check=True)
    for recipe in Path().glob("recipes/*/recipe.yaml"):
        recipe.write_text(smaller(recipe.read_text()))


@pytest.fixture
def quick_profiles(monkeypatch):
    """Measure few networks, once, in short samples."""
    for module in (measuring, profile):
        monkeypatch.setattr(module, "FITTED", 3)
        monkeypatch.setattr(module, "CHECKED", 4)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(timing, "COLD_ROUNDS", 1)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch, quick_profiles):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, mark, value, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if mark == "file":
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text(smaller(block))
        elif language == "sh" and mark != "notest":
            for words in lines_of(block):
                run(words)
        elif language == "python" and mark != "notest":
            exec(compile(block, str(page), "exec"), names)


def test_a_page_says_why_a_command_is_not_run():
    marks = [found for page in PAGES for found in FENCE.findall(page.read_text(encoding="utf-8"))]
    assert not [
        (mark, value) for _, mark, value, _ in marks if mark not in ("", "file", "notest") or (mark and not value)
    ]


def test_every_replacement_is_of_something():
    text = "".join(page.read_text(encoding="utf-8") for page in RUN)
    text += (ROOT / "recipes/digits/recipe.yaml").read_text()
    assert not [whole for whole in SMALLER if whole not in text]


def commands_of(page):
    """All autoslim commands of a page: in fences, and in blocks that are indented by four."""
    text = page.read_text(encoding="utf-8")
    fenced = "".join(block for language, _, _, block in FENCE.findall(text) if language == "sh")
    indented = "\n".join(line[4:] for line in FENCE.sub("", text).splitlines() if line.startswith("    "))
    for line in f"{fenced}\n{indented}".replace("\\\n", " ").splitlines():
        if found := re.match(r"(?:torchrun .*-m autoslim_cli|(?:\.venv/bin/)?autoslim) ([^<]*)", line):
            yield re.sub(r"#.*|->.*", "", found[1])


KEYS = {
    f"{section}.{key}" if section else key
    for section, model in [("", Recipe), *((name, field.annotation) for name, field in Recipe.model_fields.items())]
    for key in getattr(model, "model_fields", {})
}


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands_of(page))], ids=lambda page: page.stem)
def test_options_and_keys_in_a_page_exist(page):
    for line in commands_of(page):
        if "[" in line.split("{")[0] or "..." in line:
            continue  # a usage line, not a command
        words, command = shlex.split(line), typer.main.get_command(app)
        context = typer.Context(command)
        if words[0].startswith("--"):
            continue
        while hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
            context = typer.Context(command, parent=context)
        _, rest, _ = command.make_parser(context).parse_args(words)
        for key in re.findall(r"(?:^| )([a-z][\w.]*)=", " ".join([*rest, *words])):
            assert key in KEYS or key.startswith(("data.augment.", "model.args")), f"{line}: no recipe key {key}"
