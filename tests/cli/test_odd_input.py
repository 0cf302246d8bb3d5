"""Odd input ends in one line that a person can read, and soon: a corpus of what once ended otherwise.

A fault that is found joins the table of its kind: what is written, the exit code, and words of the line.
"""

import json
import signal
import struct
import zlib

import pytest
import safetensors.torch
import yaml

from autoslim_cli.errors import LONGEST_LINE, AutoslimError, legible

LONG, TOO_LONG_A_NAME = "x" * 100_000, "x" * 300
CONTROL = "\x1b[31m\x07\u202e"
"""Turns a terminal red, rings its bell, and writes backwards."""
MULTIPLIED = "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"
for number in range(8):
    MULTIPLIED = f"[&a{number} {MULTIPLIED}, {', '.join([f'*a{number}'] * 9)}]"
MERGED = "{a: 1, b: 2}"
for number in range(8):
    MERGED = f"{{x: &m{number} {MERGED}, <<: [{', '.join([f'*m{number}'] * 10)}]}}"
SEXAGESIMAL = "1" + ":1" * 100_000

LINES_OF_A_RECIPE = {
    "aliases that multiply": (f"about: {MULTIPLIED}", "more than 10,000 values"),
    "merged mappings that multiply": (f"about: {MERGED}", "more than 10,000 values"),
    "a value that holds itself": ("about: &a [*a]", "holds itself"),
    "nesting": (f"about: {'[' * 100_000}", "nested deeper than 32"),
    "nesting that YAML can read": (f"about: {'[' * 100}{']' * 100}", "nested deeper than 32"),
    "a number to the base of 60": (f"seed: {SEXAGESIMAL}", "more than 131,072 characters"),
    "a shorter one": (f"seed: {SEXAGESIMAL[:9001]}", "a number of 9,001 characters"),
    "an integer": (f"seed: {'9' * 5000}", "a number of 5,000 characters"),
    "a hexadecimal integer": (f"about: 0x{'f' * 5000}", "a number of 5,002 characters"),
    "a hexadecimal key": (f"? 0x{'f' * 120}\n: 1", "a number of 122 characters"),
    "a date": ("about: 2024-01-01", "timestamp values have no use here"),
    "a date that is none": ("about: 2024-99-99", "timestamp values have no use here"),
    "bytes": ("about: !!binary aGVsbG8=", "binary values have no use here"),
    "a long key": (f"? {LONG[:70_000]}\n: 1", "unknown key xxxx"),
    "a key of control characters": (json.dumps(CONTROL) + ": 1", r"unknown key \x1b[31m\x07\u202e"),
    "a text of control characters": (f"evaluate: {json.dumps(CONTROL)}", r"\x1b[31m\x07\u202e"),
}
"""Lines that end a recipe; they cannot be read, or have values that no recipe has."""

OVERRIDES = {
    # Bounds, each with its reason.
    "supernet.width=100": "4 at most (FLOPs and memory grow with its square",
    "supernet.width=1e300": "supernet.width: 4 at most",
    "supernet.min_width=1e300": "supernet.min_width: 4 at most",
    "supernet.samples=1000000000": "64 at most (each is a forward and a backward pass of every step)",
    "train.epochs=99999999999999999999": "100,000 at most (",
    "retrain.epochs=99999999999999999999": "100,000 at most (",
    "search.trial_epochs=1000000": "100,000 at most (",
    "train.batch=1000000000": "1,048,576 at most (",
    "train.micro_batch=1000000000": "1,048,576 at most (",
    "train.keep_states=1000000000": "100 at most (each is a file",
    "train.save_minutes=1e300": "10,080 at most (a week of work",
    "search.draws=1000000000": "100,000 at most (each is scored)",
    "search.refine=1000000000": "100,000 at most (each scores",
    "search.memory=1e300": "65,536 at most (no machine has more memory)",
    "data.memory=1e300": "65,536 at most (no machine has more memory)",
    "data.augment.padding=1000000000": "512 at most (images are padded in memory",
    "data.augment.color_jitter=[1e9, 1, 1]": "data.augment.color_jitter.0: 100 at most",
    "model.classes=1000000000": "1,048,576 at most (the last layer alone takes gigabytes)",
    "space.groups=99999999999": "space.groups: 2,147,483,647 at most (no tensor has more)",
    "space.divisor={conv1: 99999999999}": "space.divisor.conv1: 2,147,483,647 at most (no tensor has more)",
    "seed=99999999999999999999": "9,223,372,036,854,775,807 at most",
    "data.augment.scale=[1, 0.5]": "must rise",
    "data.augment.scale=[-1, 0.5]": "data.augment.scale.0: Input should be greater than 0",
    # Values that take time, or cannot be printed.
    f"seed={'9' * 5000}": "a number of 5,000 characters",
    f"seed=0x{'f' * 5000}": "a number of 5,002 characters",
    f"seed={SEXAGESIMAL}": "more than 131,072 characters",
    f"model.args={'[' * 100_000}": "nested deeper than 32",
    f"model.args={{x: {'[' * 270}{']' * 270}}}": "nested deeper than 32",
    f"space.pin={MULTIPLIED}": "more than 10,000 values",
    # Text that is quoted.
    LONG: "is not an override",
    f"{LONG}=1": "unknown key xxxx",
    f"train.epochs={LONG}": "train.epochs: Input should be a valid integer",
    "train.epochs" + CONTROL: r"\x1b[31m\x07\u202e' is not an override",
}
"""Values that are refused, and words of the line."""

BUDGETS = {
    "9" * 400: "is not a budget: write 300M",
    "9" * 400 + "%": "is not a budget: write 300M",
    "9" * 5000: "is not a budget: write 300M",
    "9" * 100_000 + "G": "is not a budget: write 300M",
    "0." + "0" * 400 + "1": "is not a budget: write 300M",
    "3M" + CONTROL: r"'3M\x1b[31m\x07\u202e' is not a budget",
    "\u0663M": "is not a budget",
    "50%,,30%": "has nothing between two commas, or at an end: write 50%,30%",
    ",50%": "write 50%",
    "50%, ": "write 50%",
    "1,5G": "did you mean 1.5G or 1G,5G?",
    "200M,1,5M": "did you mean 1.5M or 1M,5M?",
    "1,234,567": "did you mean 1234567?",
}

COMMANDS = {
    "recipe": (["units", "-r", TOO_LONG_A_NAME], 2, "longer than a name may be"),
    "recipe, a path": (["units", "-r", "x/" * 5000], 2, "longer than a name may be"),
    "recipe to show": (["recipes", "show", LONG], 2, "longer than a name may be"),
    "recipe to copy": (["recipes", "copy", LONG], 2, "no shipped recipe 'xxxx"),
    "target": (["recipes", "copy", "digits", TOO_LONG_A_NAME], 2, "longer than a name may be"),
    "config": (["info", TOO_LONG_A_NAME + ".json"], 2, "longer than a name may be"),
    "checkpoint": (["info", TOO_LONG_A_NAME + ".safetensors"], 2, "longer than a name may be"),
    "networks": (["compare", LONG + ".json"], 2, "longer than a name may be"),
    "model": (["info", "autoslim/" + LONG], 2, "no built-in network 'xxxx"),
    "input": (["info", "autoslim/cifar_resnet", "--input", "9" * 5000], 2, "is not channels x height x width"),
    "side": (["info", "autoslim/cifar_resnet", "--input", f"3,{'9' * 30},8"], 2, "height and width are 1 to 65536"),
    "classes": (["info", "autoslim/cifar_resnet", "--classes", "9" * 18], 2, "model.classes: 1,048,576 at most"),
    "argument": (["info", "autoslim/cifar_resnet", "--arg", "x=" + "[" * 20_000], 2, "nested deeper than 32"),
    "option": (["units", "--" + LONG], 2, "No such option"),
    "control characters": (["info", f"arch{CONTROL}.json"], 4, r"arch\x1b[31m\x07\u202e.json"),
}
"""Commands whose words are too long, or are no words."""


@pytest.fixture(autouse=True)
def _soon():
    """Fail instead of hanging."""

    def too_long(_number, _frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def refused(refuse):
    """Run a command that must fail with a line that a person can read."""

    def run(code, *arguments):
        line = refuse(code, *arguments).removeprefix("error: ")
        assert len(line) <= LONGEST_LINE
        assert line.isprintable()
        return line

    return run


@pytest.mark.parametrize(("lines", "words"), LINES_OF_A_RECIPE.values(), ids=LINES_OF_A_RECIPE)
def test_a_recipe(refused, autoslim_json, recipe, monkeypatch, lines, words):
    path = recipe / "recipe.yaml"
    path.write_text(path.read_text() + lines + "\n")
    line = refused(2, "recipes", "validate", recipe)
    assert words in line
    assert "recipe.yaml" in line
    # Beside others in a list it is only named.
    (recipe / "recipes").mkdir()
    (recipe / "recipes" / "odd").mkdir()
    (recipe / "recipes" / "odd" / "recipe.yaml").write_text(lines)
    monkeypatch.chdir(recipe)
    (odd,) = [row for row in autoslim_json("recipes", "list")["recipes"] if row["name"] == "odd"]
    assert len(odd["about"]) < 100


@pytest.mark.parametrize(("override", "words"), OVERRIDES.items(), ids=lambda text: text[:40])
def test_an_override(refused, recipe, override, words):
    assert words in refused(2, "recipes", "validate", recipe, override)


@pytest.mark.parametrize(("text", "words"), BUDGETS.items(), ids=lambda text: text[:40])
def test_a_budget(refused, worked, text, words):
    assert words in refused(2, "search", "--flops", text, "-r", worked)


def test_other_measures_have_slips_of_their_own(refused, worked):
    line = refused(2, "search", "--activation-memory", "1,5MB", "-r", worked)
    assert "did you mean 1.5MB or 1MB,5MB?" in line


def test_a_budget_above_the_base_network_is_said(autoslim, worked):
    said = autoslim("search", "--flops", "101%,50%", "-r", worked).stderr
    assert "--flops 101% is more than the base network's" in said
    assert "--flops 50%" not in said


@pytest.mark.parametrize(("arguments", "code", "words"), COMMANDS.values(), ids=COMMANDS)
def test_words(refused, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(code, *arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_quoted_from_a_recipe(refused, recipe):
    values = yaml.safe_load((recipe / "recipe.yaml").read_text())
    values["data"] = {"name": "image-folder", "path": f"nowhere\0{CONTROL}", "holdout": 10}
    (recipe / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert r"nowhere\x00\x1b[31m\x07\u202e has no directory train/" in refused(2, "train-supernet", "-r", recipe)
    assert "longer than a name may be" in refused(2, "train-supernet", "-r", recipe, f"data.path={TOO_LONG_A_NAME}")
    assert "no built-in network 'xxx" in refused(2, "units", "-r", recipe, f"model.name=autoslim/{LONG}")


def test_a_message_keeps_its_beginning_and_its_end():
    said = str(AutoslimError(f"--option '{'word ' * 50_000}': do this\ninstead"))
    assert said.startswith("--option 'word word")
    assert said.endswith("word ': do this instead")
    assert len(said) == LONGEST_LINE
    assert legible("a  b\tc\u00e9 /\u6f22/x") == "a  b c\u00e9 /\u6f22/x"


@pytest.mark.parametrize("place", [".", "./", "new/..", ".."])
def test_a_recipe_copied_to_where_one_is(autoslim, tmp_path, monkeypatch, place):
    (tmp_path / "in" / "new").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in")
    autoslim("recipes", "copy", "imagenet-resnet50", place)
    target = (tmp_path / "in" / place).resolve()
    assert sorted(entry.name for entry in target.iterdir() if entry.name not in ("in", "new")) == [
        "published",
        "recipe.yaml",
    ]


@pytest.mark.parametrize("length", [183, 230, 300])
def test_names_that_leave_no_room_for_files_beside_them(refused, worked, length):
    before = sorted(worked.iterdir())
    line = refused(2, "retrain", worked / "arch-60pct.json", "--name", "x" * length)
    assert "bytes; choose one of 200 at most" in line or "longer than a name may be" in line
    assert sorted(worked.iterdir()) == before


def test_an_override_longer_than_a_name_is_no_file(refused, worked):
    line = refused(2, "retrain", worked / "arch-60pct.json", f"space.pinned={'x' * 300}")
    assert "space.pinned" in line
    assert "longer than a name" not in line


def test_the_longest_name_works(autoslim, worked):
    autoslim("retrain", worked / "arch-60pct.json", "--name", "x" * 182, "retrain.epochs=1", "retrain.keep_states=12")
    assert (worked / f"model-{'x' * 182}.safetensors").exists()


def test_directories_where_files_should_be(refused, worked):
    for name in ("search.jsonl", "supernet.metrics.jsonl", ".search.jsonl.lock"):
        (worked / name).unlink(missing_ok=True)
        (worked / name).mkdir()
    assert "lock: Is a directory; move away what is there" in refused(
        1, "search", "--flops", "60%", "-r", worked, "--resume"
    )
    (worked / ".search.jsonl.lock").rmdir()
    assert "search.jsonl: cannot be read (Is a directory)" in refused(
        4, "search", "--flops", "60%", "-r", worked, "--resume"
    )
    assert "supernet.metrics.jsonl: Is a directory" in refused(1, "train-supernet", "-r", worked, "--force")


@pytest.mark.parametrize("odd", ["9" * 5000, "[" * 100_000])
def test_facts_of_a_checkpoint(refused, worked, odd):
    for name, command in (("supernet", ["search", "--flops", "60%", "-r", worked]), ("model-60pct", ["info"])):
        path = worked / f"{name}.safetensors"
        with safetensors.safe_open(path, framework="pt") as file:
            facts = file.metadata()["autoslim"]
        metadata = {"autoslim": f'{facts[:-1]}, "odd": {odd}}}'}
        path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), metadata))
        assert path.name in refused(4, *command, *([path] if name != "supernet" else []))


def png_of(width, height):
    """Return the beginning of a PNG file, of as many grey pixels as it says."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((20_000, 20_000), "400000000 pixels"),
        ((12_000, 9_000), "108000000 pixels"),
        ((9_000, 8_000), "72,000,000 pixels, of which"),
    ],
)
def test_images_of_too_many_pixels(refused, recipe, size, words):
    for part in ("train", "test"):
        for label in ("a", "b"):
            (recipe / part / label).mkdir(parents=True)
            for number in range(3):
                (recipe / part / label / f"{number}.png").write_bytes(png_of(*size))
    settings = ("data.name=image-folder", "data.path=.", "data.holdout=2", "data.workers=0")
    assert words in refused(1, "train-supernet", "-r", recipe, *settings)
