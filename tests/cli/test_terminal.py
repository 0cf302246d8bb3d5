"""What a person meets in a terminal: help, completion, hints, how much is told, colours, and work before torch."""

import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from autoslim_cli.cli.app import app
from autoslim_cli.cli.examples import EXAMPLES
from autoslim_cli.cli.printing import print_json

pytestmark = pytest.mark.slow

ROOT: typer.core.TyperGroup = typer.main.get_command(app)
COMMANDS = {name: command for name, command in ROOT.commands.items() if name != "recipes"}
COMMANDS |= {f"recipes {name}": command for name, command in ROOT.commands["recipes"].commands.items()}
ESCAPE = "\x1b["


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**kept, "TERM": "xterm-256color", **more}


def in_terminal(*command, **more):
    """Run a command whose three streams are a terminal of 80 columns; return its exit code and all that it wrote."""
    control, terminal = pty.openpty()
    env = environment(COLUMNS="80", LINES="24", **more)
    running = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env)
    os.close(terminal)
    written = b""
    while True:
        try:
            part = os.read(control, 65536)
        except OSError:  # what Linux says when the other side is closed
            break
        if not part:
            break
        written += part
    os.close(control)
    return running.wait(timeout=60), written.decode()


def autoslim_in_terminal(*arguments, **more):
    return in_terminal(sys.executable, "-m", "autoslim_cli", *map(str, arguments), **more)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_parse(name, autoslim):
    said = autoslim(*name.split(), "--help").stdout
    assert "Examples:" in said
    for example in EXAMPLES[name]:
        assert example in [line.strip() for line in said.splitlines()]  # in one line, to be copied
        program, *words = shlex.split(example.partition(" > ")[0])
        assert (program, " ".join(words[: len(name.split())])) == ("autoslim", name)
        COMMANDS[name].make_context(name, words[len(name.split()) :])  # refuses unknown options and wrong values
    for parameter in COMMANDS[name].params:
        assert parameter.help, parameter.name
        assert Text.from_markup(parameter.help).plain == parameter.help  # [brackets] are not shown


def test_examples_are_of_commands_that_are_there():
    assert set(EXAMPLES) == {"", "recipes", *COMMANDS}


def test_options_come_in_groups(autoslim):
    said = autoslim("search", "--help").stdout
    groups = {title: said.index(f"─ {title} ─") for title in ("Arguments", "Options", "Budgets", "Output")}
    budgets, output = said[groups["Budgets"] : groups["Output"]], said[groups["Output"] :]
    for option in ("--flops", "--params", "--latency", "--activation-memory", "--latency-table"):
        assert option in budgets
    for option in ("--json", "--verbose", "--quiet"):
        assert option in output
    said = autoslim("--help").stdout
    assert [title for title in ("From a recipe to a network", "Devices", "What is there") if title in said] == [
        "From a recipe to a network", "Devices", "What is there",
    ]  # fmt: skip


def completed(text, cwd):
    """Return what bash would offer after a text, and whether torch was imported for it."""
    words = shlex.split(text) + ([""] if text.endswith(" ") else [])
    code = "import atexit, runpy, sys; sys.argv = ['autoslim']\n"
    code += "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    code += "runpy.run_module('autoslim_cli', run_name='__main__')"
    bash = {"_AUTOSLIM_COMPLETE": "complete_bash", "COMP_WORDS": text, "COMP_CWORD": str(len(words) - 1)}
    env = environment(**bash)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=env, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr.strip() == "True"


def test_names_of_recipes_and_files_are_completed_without_torch(tmp_path):
    mine = tmp_path / "recipes" / "mine"
    mine.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for directory in (mine, tmp_path / "elsewhere"):
        for name in ("recipe.yaml", "arch-40M.json", "model-40M.safetensors", "latency-cpu.json", "notes.txt"):
            (directory / name).write_text("")
    offered = {
        "autoslim tr": ["train-base", "train-supernet"],
        "autoslim units -r mi": ["mine"],
        "autoslim units -r imagenet-mob": ["imagenet-mobilenet-v1", "imagenet-mobilenet-v2"],
        "autoslim units -r ./else": ["./elsewhere"],
        "autoslim recipes copy digits-s": ["digits-segmentation", "digits-super-resolution"],
        "autoslim retrain ": ["recipes/mine/arch-40M.json"],
        "autoslim retrain elsewhere/": ["elsewhere/arch-40M.json"],
        "autoslim evaluate ./elsewhere/m": ["./elsewhere/model-40M.safetensors"],
        "autoslim search --latency-table recipes/mine/": ["recipes/mine/latency-cpu.json"],
        "autoslim export --onnx elsewhere/": ["elsewhere/arch-40M.json", "elsewhere/model-40M.safetensors"],
        "autoslim info elsew": ["elsewhere"],
    }
    for text, expected in offered.items():
        found, torch_was_imported = completed(text, tmp_path)
        assert found == expected, text
        assert not torch_was_imported, text


def next_of(result):
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("next: ")]
    assert result.stderr.rstrip().splitlines()[-1] == line
    assert "next: " not in result.stdout
    return line


def test_each_command_says_what_comes_next(worked, autoslim):
    """What it names is a command that parses."""
    made = worked / "model-60pct.safetensors"
    lines = [
        next_of(autoslim("units", "-r", worked)),
        next_of(autoslim("train-supernet", "-r", worked, "--resume")),
        next_of(autoslim("search", "--flops", "60%,30%", "-r", worked, "--resume")),
        next_of(autoslim("retrain", worked / "arch-60pct.json", "--resume")),
        next_of(autoslim("calibrate-bn", "--widths", "0.5", "-r", worked)),
        next_of(autoslim("evaluate", made)),
        next_of(autoslim("info", worked)),
        next_of(autoslim("info", worked / "arch-60pct.json")),
        next_of(autoslim("info", made)),
        next_of(autoslim("compare", worked / "arch-60pct.json", made)),
        next_of(autoslim("recipes", "list")),
        next_of(autoslim("recipes", "show", worked)),
        next_of(autoslim("recipes", "validate", worked)),
        next_of(autoslim("recipes", "copy", "digits", worked.parent / "copied")),
    ]
    for line in lines:
        program, name, *words = shlex.split(line.removeprefix("next: ").partition("  # ")[0])
        name = f"recipes {words.pop(0)}" if name == "recipes" else name
        assert program == "autoslim"
        COMMANDS[name].make_context(name, words)
    assert f"retrain {worked / 'arch-60pct.json'}" in lines[2]
    assert f"export --onnx {made}" in lines[3]
    assert "in a browser" in next_of(autoslim("report", "-r", worked))


def test_quiet_tells_nothing_and_verbose_every_step(worked, autoslim):
    assert autoslim("search", "--flops", "60%", "-r", worked, "-q").stderr == ""
    assert autoslim("retrain", worked / "arch-60pct.json", "-q", "retrain.epochs=1").stderr == ""
    plain = autoslim("search", "--flops", "60%", "-r", worked).stderr
    told = autoslim("search", "--flops", "60%", "-r", worked, "-v").stderr
    steps = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    said = [line for line in told.splitlines() if re.match(r"step \d+, ", line)]
    assert len(said) == sum("step" in step for step in steps) > 0
    assert not [line for line in plain.splitlines() if re.match(r"step \d+, ", line)]
    told = autoslim("retrain", worked / "arch-60pct.json", "-v", "retrain.epochs=1").stderr
    assert re.search(r"^step \d+/\d+  loss ", told, re.MULTILINE)
    assert autoslim("units", "-r", worked / "nowhere", "-q", code=2).stderr.startswith("error: ")


def test_colours_obey_no_color_and_what_a_terminal_can():
    """Tables have bold heads where there are colours."""
    colours = re.compile(r"\x1b\[[0-9;]*m")
    code, written = autoslim_in_terminal("search", "--help")
    assert code == 0
    assert re.search(r"\x1b\[[0-9;]*3[1-7]m", written)  # a colour of the foreground
    _, written = autoslim_in_terminal("search", "--help", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*[34][1-7]m", written)
    for more in ({"TERM": "dumb"}, {"TERM": "dumb", "NO_COLOR": "1"}):
        code, written = autoslim_in_terminal("recipes", "list", **more)
        assert code == 0
        assert not colours.search(written), more
        assert "digits" in written


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_terminal_is_told_what_it_waits_for_before_torch_is_loaded(recipe, term):
    code = "import os, runpy, sys\n"
    code += "class Finder:\n    def find_spec(self, name, path=None, target=None):\n"
    code += "        if name == 'torch': os.write(2, b'<torch>')\n"
    code += f"sys.meta_path.insert(0, Finder())\nsys.argv = ['autoslim', 'units', '-r', {str(recipe)!r}]\n"
    code += "runpy.run_module('autoslim_cli', run_name='__main__')"
    status, written = in_terminal(sys.executable, "-c", code, TERM=term)
    assert status == 0, written
    assert "loading PyTorch" in written.partition("<torch>")[0]
    assert (ESCAPE in written) == (term != "dumb")


def test_work_without_any_terminal(recipe, tmp_path):
    """No streams but a file, no TERM, no HOME: as under cron."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    out = tmp_path / "out"
    with out.open("w") as file:
        command = [sys.executable, "-m", "autoslim_cli", "units", "-r", recipe]
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env)
    assert done.returncode == 0, out.read_text()
    assert ESCAPE not in out.read_text()
    assert "next: autoslim train-supernet" in out.read_text()


def test_a_search_says_what_is_left_to_slim(worked, autoslim, monkeypatch):
    from autoslim_cli import progress

    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    said = autoslim("search", "--flops", "60%,30%", "-r", worked).stderr
    lines = [line for line in said.splitlines() if line.startswith("searching: ")]
    left = [float(match[1]) for line in lines if (match := re.search(r"FLOPs, ([\d.]+)K? FLOPs left", line))]
    assert len(left) > 3
    assert left[-1] < left[0]
    trained = autoslim("retrain", worked / "arch-30pct.json", "retrain.epochs=2").stderr
    assert re.search(r"training 2 epochs: \d+/\d+  .* left  ", trained)


def test_info_takes_a_recipe_and_sizes_as_people_write_them(recipe, autoslim_json, autoslim, tmp_path, monkeypatch):
    told = autoslim_json("info", recipe)
    assert told["flops"] == told["base"]["flops"] == told["fvcore_flops"] > 0
    other = ("info", "autoslim/cifar_resnet", "--arg", "in_channels=1", "--classes", "10")
    sizes = [autoslim_json(*other, "--input", text)["flops"] for text in ("1x28x28", "1X28X28", "1,28,28")]
    assert len(set(sizes)) == 1
    (recipe / "net.py").write_text(
        "from autoslim_cli.models.built_in import FACTORIES\nnet = FACTORIES['cifar_resnet']\n"
    )
    text = (recipe / "recipe.yaml").read_text()
    (recipe / "recipe.yaml").write_text(text.replace("autoslim/cifar_resnet", "./net.py:net"))
    assert autoslim_json("info", recipe)["flops"] == told["flops"]  # a network of the recipe's own directory, too
    (tmp_path / "a:b").symlink_to(recipe)
    monkeypatch.chdir(tmp_path)
    assert autoslim_json("info", "a:b")["flops"] == told["flops"]  # a directory before a factory
    assert autoslim_json("info", "digits")["flops"] > 0  # a shipped one is not copied for that
    assert not (tmp_path / "recipes").exists()


@pytest.mark.parametrize("option", ["--arg=width_mult=2", "--trace=body", "--classes=10"])
def test_info_refuses_what_a_recipe_or_a_file_says_itself(worked, refuse, option):
    for what in (worked, worked / "arch-60pct.json"):
        assert f"--arg, --trace and --classes are for a model name: {what} says" in refuse(2, "info", what, option)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_names_in_letters_that_stdout_lacks_end_no_command(encoding, monkeypatch):
    written = io.BytesIO()
    names = {"classes": ["\u732b", "caf\u00e9", "a\udcff"]}
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    print_json(names)
    sys.stdout.flush()
    assert json.loads(written.getvalue().decode(encoding)) == names
    told = subprocess.run(
        [sys.executable, "-c", "from autoslim_cli.streams import steady_streams as s; s(); print('\\u732b \\udcff')"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    first = "\u732b" if encoding == "utf-8" else "\\u732b"
    assert told.stdout.decode(encoding) == f"{first} \\udcff\n"


def test_json_stands_alone_whatever_a_network_s_code_prints(without_norms, autoslim):
    net = without_norms / "net.py"
    net.write_text("print('imported')\n" + net.read_text().replace("    layers", "    print('built')\n    layers", 1))
    said = autoslim("units", "-r", without_norms, "--json")
    assert json.loads(said.stdout)["units"]
    assert said.stderr.splitlines()[:2] == ["imported", "built"]
    said = autoslim("info", without_norms)  # of the next command in this process stdout is its own again
    assert "FLOPs" in said.stdout or "flops" in said.stdout


def test_stdout_is_given_back_whatever_ends_a_command(refuse, autoslim):
    before = sys.stdout
    for words in (("info", "--json"), ("recipes", "list", "--json", "extra"), ("info", "nothing", "--json")):
        CliRunner().invoke(app, words)
        assert sys.stdout is before
    autoslim("recipes", "list", "--json")
    assert sys.stdout is before


def test_without_a_recipe_the_demo_is_named_before_it_is_taken(autoslim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # when it is copied, and whenever it is there
        said = autoslim("units").stderr
        assert "digits, the demo on embedded digits, is taken" in said
