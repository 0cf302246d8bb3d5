"""The command line as a process: start-up, streams, signals, the wheel."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from autoslim_cli import __version__
from autoslim_cli.recipe import catalogue

pytestmark = pytest.mark.slow

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


def test_a_built_in_network_needs_no_torchvision():
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_saves_and_exits_130(recipe, number):
    command = [sys.executable, "-m", "autoslim_cli", "train-supernet", "-r", str(recipe), "train.epochs=500", "--json"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 - as a shell leaves it
    )
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
    assert sorted(entry.name for entry in recipe.iterdir()) == [
        "recipe.yaml",
        "supernet.metrics.jsonl",
        "supernet.resume.pt",
    ]


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


def test_the_sdist_holds_what_a_wheel_and_the_tests_need(tmp_path):
    """A wheel that is built from the sdist is the wheel that is built here, with one version for all."""
    build = [sys.executable, "-m", "hatchling", "build", "--directory"]
    subprocess.run(
        [*build, tmp_path, "--target", "sdist", "--target", "wheel"], check=True, capture_output=True, cwd=ROOT
    )
    (sdist,) = tmp_path.glob("*.tar.gz")
    (wheel,) = tmp_path.glob("*.whl")
    assert f"-{__version__}" in sdist.name
    assert f"-{__version__}-" in wheel.name
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (root,) = (tmp_path / "unpacked").iterdir()
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    kept = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "CONTRIBUTING.md", "Makefile")
    assert {*kept, "pyproject.toml", "autoslim_cli/py.typed", "autoslim_cli/data/digits.npz"} <= names
    assert {"docs/guide.md", "tests/conftest.py", "scripts/clean.py", "examples/slim-your-network.ipynb"} <= names
    assert {f"recipes/{name}/recipe.yaml" for name in catalogue.shipped()} <= names
    made = [name for name in names if not name.startswith("benchmarks/results/")]  # rows that figures are made of
    assert not [name for name in made if name.endswith((".safetensors", ".jsonl", ".pyc")) or name.startswith("data")]
    subprocess.run([*build, tmp_path / "again", "--target", "wheel"], check=True, capture_output=True, cwd=root)
    with zipfile.ZipFile(wheel) as here, zipfile.ZipFile(tmp_path / "again" / wheel.name) as again:
        assert {one.filename: one.CRC for one in here.infolist()} == {one.filename: one.CRC for one in again.infolist()}
        assert "autoslim_cli/py.typed" in here.namelist()


def test_the_version_is_said_in_one_place():
    assert process("--version").stdout == f"autoslim {__version__}\n"
    assert __version__ not in (ROOT / "pyproject.toml").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert "version" not in citation
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    for path in (*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"):
        assert yaml.safe_load(path.read_text()), path


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
    (mine / "report-flops.png").write_bytes(b"\x89PNG\r\n\x1a\n... tEXtSoftware\0autoslim")
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
        "report-mine.png": "a picture",
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


ENDS = """
import atexit, sys
from autoslim_cli.cli.processes import end_of_process

class Late:
    def __del__(self):
        print("taken apart")

late = Late()
atexit.register(print, "at exit")
with end_of_process():
    sys.exit({code})
"""


@pytest.mark.parametrize(("processes", "code", "said"), [(1, 0, 2), (2, 0, 1), (2, 3, 2)])
def test_a_process_of_a_job_that_is_done_is_not_taken_apart(processes, code, said):
    """Gloo's threads may hold tensors yet: one that lets them go meanwhile aborts the process."""
    job = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    job["MASTER_ADDR"] = "localhost"
    program = [sys.executable, "-c", ENDS.format(code=code)]
    done = subprocess.run(program, check=False, capture_output=True, text=True, env={**os.environ, **job})
    assert done.returncode == code
    assert done.stdout.splitlines() == ["at exit", "taken apart"][:said]
