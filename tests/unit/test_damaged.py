"""What is wrong in a file ends in one line: inputs that `benchmarks/fuzz.py` found, and their like."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import yaml
from torch import nn

from autoslim_cli import load_model
from autoslim_cli.errors import ArtifactError, AutoslimError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.channel_config import read_config
from autoslim_cli.files.checkpoint import load_state, save_state
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.search.log import read_log
from autoslim_cli.stages.compare import compare
from autoslim_cli.training.state import State

ROOT = Path(__file__).parents[2]
DEEP = "[" * 100_000


def rewritten(path, change):
    """Change the facts of a checkpoint in place."""
    with safetensors.safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["autoslim"])
    change(facts)
    metadata = {"autoslim": json.dumps(facts)}
    path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), metadata))
    return path


def test_nesting_beyond_all_use(recipe):
    (recipe / "recipe.yaml").write_text(DEEP)
    with pytest.raises(UsageError, match="not valid YAML"):
        load_recipe(recipe)
    (recipe / "arch-1M.json").write_text(DEEP)
    with pytest.raises(ArtifactError, match="not valid JSON"):
        read_config(recipe / "arch-1M.json")
    (recipe / "search.jsonl").write_text(f"{{}}\n{DEEP}\n")
    with pytest.raises(ArtifactError, match="line 2 is damaged"):
        read_log(recipe / "search.jsonl")


def test_numbers_and_dates_beyond_all_use(recipe):
    (recipe / "arch-1M.json").write_text('{"format": ' + "9" * 5000 + "}")
    with pytest.raises(ArtifactError, match="not valid JSON"):
        read_config(recipe / "arch-1M.json")
    (recipe / "recipe.yaml").write_text("about: 2024-99-99")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_recipe(recipe)


def test_a_log_of_endless_work(worked, refuse):
    log = worked / "search.jsonl"
    log.write_text(re.sub(r'"multiply_adds": \d+', '"multiply_adds": Infinity', log.read_text(), count=1))
    assert "line 3 is damaged" in refuse(4, "search", "--flops", "60%,30%", "-r", worked, "--resume")


def test_a_log_of_no_recipe(worked, refuse):
    log = worked / "search.jsonl"
    header, *rows = log.read_text().splitlines()
    log.write_text("\n".join([json.dumps({**json.loads(header), "recipe": []}), *rows, ""]))
    assert "something else" in refuse(4, "search", "--flops", "60%,30%", "-r", worked, "--resume")


def test_half_a_character_cannot_be_read(recipe):
    (recipe / "arch-1M.json").write_text('{"format": "\\ud800"}')
    with pytest.raises(ArtifactError, match="not valid JSON"):
        read_config(recipe / "arch-1M.json")


def test_a_network_of_a_billion_layers_is_none(worked):
    config = json.loads((worked / "arch-30pct.json").read_text())
    config["model"]["args"]["depth"] = 6 * 10**9 + 2
    (worked / "arch-deep.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="depth must be 1202 at most"):
        compare([worked / "arch-deep.json"])


def test_an_image_of_a_billion_pixels_a_side_is_none(recipe):
    with pytest.raises(UsageError, match=r"model\.input\.1: .*65,536 at most"):
        load_recipe(recipe, ["model.input=[1, 1000000000, 8]"])


def test_what_is_wrong_is_said_in_a_line_that_a_person_reads(recipe):
    values = yaml.safe_load((recipe / "recipe.yaml").read_text())
    values["train"]["lr"] = "a" * 70_000
    values["b" * 70_000] = 1
    (recipe / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError) as error:
        load_recipe(recipe)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("config"),
        lambda facts: facts.update(config=None),
        lambda facts: facts["config"].update(channels={"conv1": "8"}),
        lambda facts: facts["config"]["model"].update(input=[1, 8]),
        lambda facts: facts.pop("made_from"),
        lambda facts: facts.update(made_from=[]),
        lambda facts: facts["made_from"].update(parents=1.5),
        lambda facts: facts["made_from"].update(recipe=0),
        lambda facts: facts["made_from"]["recipe"].update(retrain="x"),
        lambda facts: facts.update(test=0.5),
        lambda facts: facts.update(test={"top1": "all"}),
        lambda facts: facts.update(format=["autoslim.model/1"]),
    ],
)
def test_a_model_whose_facts_are_damaged(worked, change):
    path = rewritten(worked / "model-60pct.safetensors", change)
    for read in (load_model, lambda path: compare([path])):
        with pytest.raises(AutoslimError, match="model-60pct") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("channels"),
        lambda facts: facts.update(channels=[1]),
        lambda facts: facts["made_from"].update(contents={}),
        lambda facts: facts["made_from"]["recipe"].pop("data"),
        lambda facts: facts["made_from"]["recipe"].pop("seed"),
        lambda facts: facts["made_from"]["recipe"].pop("space"),
        lambda facts: facts["made_from"]["recipe"].update(space={"tie": None}),
        lambda facts: facts.update(holdout=[]),
    ],
)
def test_a_supernet_whose_facts_are_damaged(worked, refuse, change):
    path = rewritten(worked / "supernet.safetensors", change)
    assert "damaged" in refuse(4, "search", "--flops", "60%", "-r", worked)
    with pytest.raises(ArtifactError, match="damaged"):
        checkpoint.read_any(path)


def test_a_file_cannot_ask_for_more_memory_than_it_is_worth(worked):
    """A config of some kilobytes says a network of some gigabytes: its file holds no such weights."""

    def wider(facts):
        facts["config"]["channels"] = dict.fromkeys(facts["config"]["channels"], 4096) | {"fc": 10}
        del facts["config"]["cost"]

    path = rewritten(worked / "model-60pct.safetensors", wider)
    with pytest.raises(ArtifactError, match=r"its channels give [0-9,]+ parameters, but it holds [0-9,]+ values"):
        load_model(path)
    with pytest.raises(UsageError, match=r"the range is 1\.\.2147483647"):
        compare([rewritten(path, lambda facts: facts["config"]["channels"].update(conv1=10**30))])


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x02", b"PK\x03\x04", b"\x80\x02j\xff\xff\xff\x7f."])
def test_bytes_that_are_no_training_state(tmp_path, content):
    path = tmp_path / "supernet.resume.pt"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged training state") as error:
        load_state(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("optimizer"),
        lambda state: state.update(network=None),
        lambda state: state.update(scheduler=[1]),
        lambda state: state["optimizer"].update(param_groups=[]),
        lambda state: state.update(done="many"),
        lambda state: state.update(done=float("inf")),
        lambda state: state.update(decisive=torch.zeros(3)),
        lambda state: state["best"].pop("loss"),
    ],
)
def test_a_training_state_that_lacks_a_part(tmp_path, change):
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    state = State(network, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=False))
    job = SimpleNamespace(
        state=tmp_path / "state.pt", decisive={"recipe": {"seed": 0}}, settings=SimpleNamespace(keep_states=1)
    )
    state.save(job, 3)
    assert state.restore(job) == 3
    values = load_state(job.state)
    change(values)
    save_state(job.state, values)
    with pytest.raises(ArtifactError, match=r"state\.pt: "):
        state.restore(job)


def test_the_fuzzer_reads_its_own_corpus():
    """What is damaged could not show much, if what is sound were refused already."""
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--minutes", "0.01", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    counted = json.loads(done.stdout)
    assert counted["inputs"] > 0
    assert (counted["tracebacks"], counted["hangs"], counted["executions"]) == (0, 0, 0)
