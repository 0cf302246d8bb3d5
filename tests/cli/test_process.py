"""The command line as a process: start-up, streams, signals, the wheel."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from autoslim_cli.recipe import catalogue

ROOT = Path(__file__).parents[2]


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "autoslim_cli", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["search", "--help"], ["recipes", "list"], ["recipes", "show", "digits"]]
)
def test_no_command_imports_torch_before_it_needs_it(arguments):
    code = f"import sys, runpy; sys.argv = {['autoslim', *arguments]}\n"
    code += "try: runpy.run_module('autoslim_cli', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'torchvision', 'numpy', 'matplotlib'} & set(sys.modules), 'imported'"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "autoslim" in done.stdout or "digits" in done.stdout


def test_the_demo_s_own_network_needs_no_torchvision(recipe):
    code = (
        "import sys, runpy; sys.argv = ['autoslim', 'info', 'autoslim/cifar_resnet', '--input', '3,32,32', '--json']\n"
    )
    code += "try: runpy.run_module('autoslim_cli', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "assert 'torchvision' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["flops"] == 40_876_544


def test_version_and_help_alone():
    assert process("--version").stdout.startswith("autoslim 0.")
    alone = process()
    assert alone.returncode == 0
    assert "train-supernet" in alone.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_exits_130(recipe, number):
    command = [sys.executable, "-m", "autoslim_cli", "train-supernet", "-r", str(recipe), "train.epochs=500", "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    state = recipe / "supernet.resume.pt"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(number)
    out, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert out == ""
    assert "--resume continues" in said
    assert said.endswith("error: interrupted\n")
    assert sorted(entry.name for entry in recipe.iterdir()) == ["recipe.yaml", "supernet.resume.pt"]


def test_the_wheel_holds_the_recipes_and_the_digits(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for recipe in catalogue.shipped():
        assert f"autoslim_cli/recipes/{recipe}/recipe.yaml" in names
    assert "autoslim_cli/data/digits.npz" in names
    assert not [
        name for name in names if name.endswith((".safetensors", ".jsonl")) or name.startswith(("tests", "data"))
    ]
    # Installed alone, it finds its recipes.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = process("recipes", "list", "--json", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")})
    listed = {row["name"] for row in json.loads(done.stdout)["recipes"]}
    assert listed == set(catalogue.shipped())


def test_the_command_reference_is_fresh():
    done = subprocess.run(
        [sys.executable, "scripts/commands.py", "--check"], check=False, cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_make_clean_leaves_what_a_person_made(worked, tmp_path):
    """In a copy: what the commands wrote goes; recipes, tables, edited configs and foreign weights stay."""
    copy, runs = tmp_path / "copy", tmp_path / "copy/runs/mine"
    (copy / "recipes").mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", copy / "scripts")
    shutil.copy(ROOT / "Makefile", copy)
    mine = Path(shutil.move(worked, copy / "recipes/mine"))
    (mine / "report.json").write_text("{}")
    (mine / ".supernet.safetensors.x.part").write_text("cut short")
    config = json.loads((mine / "arch-30pct.json").read_text())
    by_hand = {key: config[key] for key in ("format", "model", "channels")}
    stays = {
        "arch-mine.json": json.dumps(by_hand),
        "arch-copied.json": json.dumps(config),
        "arch-50pct.json": "{ half",
        "arch-20pct.json": json.dumps({**config, "found": None}),
        "weights.safetensors": "not even one",
        "latency-cpu.json": "{}",
        "report.md": "notes",
    }
    for name, text in stays.items():
        (mine / name).write_text(text)
    (mine / "published").mkdir()
    shutil.copy(mine / "arch-30pct.json", mine / "published")
    shutil.copytree(mine, runs)
    made = {"arch-30pct.json", "arch-60pct.json", "supernet.safetensors", "search.jsonl", "model-60pct.safetensors"}
    assert made <= {path.name for path in mine.iterdir()}
    subprocess.run(["make", "clean", f"PYTHON={sys.executable}"], check=True, cwd=copy, capture_output=True)
    for directory in (mine, runs):
        assert {path.name for path in directory.iterdir()} == {"recipe.yaml", "published", *stays}
        assert (directory / "published/arch-30pct.json").is_file()
