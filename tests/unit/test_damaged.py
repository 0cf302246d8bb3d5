"""What is wrong in a file ends in one line: inputs that `benchmarks/fuzz.py` found, and their like."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors
import torch
import yaml
from artifacts import rewritten
from torch import nn

from autoslim_cli import SlimmableNetwork, load_model
from autoslim_cli.errors import ArtifactError, AutoslimError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.channel_config import read_config
from autoslim_cli.files.checkpoint import load_state, save_state
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.searching.log import read_log
from autoslim_cli.stages.compare import compare
from autoslim_cli.training.state import Averaged, State

ROOT = Path(__file__).parents[2]
DEEP = "[" * 100_000


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
        lambda facts: facts["made_from"]["recipe"].pop("supernet"),
        lambda facts: facts["made_from"]["recipe"]["supernet"].update(width=-1),
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


def test_a_supernet_cannot_ask_for_more_memory_than_it_is_worth(worked):
    path = worked / "supernet.safetensors"
    rewritten(path, lambda facts: facts.update(channels=dict.fromkeys(facts["channels"], 4096) | {"fc": 10}))
    with pytest.raises(ArtifactError, match=r"its channels give [0-9,]+ parameters, but it holds [0-9,]+ values"):
        SlimmableNetwork.load(path)
    rewritten(path, lambda facts: facts["channels"].pop("conv1"))
    with pytest.raises(UsageError, match="unit 'conv1' is missing"):
        SlimmableNetwork.load(path)


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x02", b"PK\x03\x04", b"\x80\x02j\xff\xff\xff\x7f."])
def test_bytes_that_are_no_training_state(tmp_path, content):
    path = tmp_path / "supernet.resume.pt"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged training state") as error:
        load_state(path)
    assert "\n" not in str(error.value)


def test_a_training_state_of_objects_is_refused_without_colours_or_advice(tmp_path):
    path = tmp_path / "supernet.resume.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ArtifactError, match="damaged training state") as error:
        load_state(path)
    assert "\x1b" not in str(error.value)
    assert "weights_only" not in str(error.value)


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
        lambda state: state["epochs"].pop("loss"),
        lambda state: state.update(epochs=3),
        # The schedule: it takes over whatever attributes it is given.
        lambda state: state["scheduler"].update(last_epoch="3"),
        lambda state: state["scheduler"].update(last_epoch=2),
        lambda state: state["scheduler"].update(last_epoch=True),
        lambda state: state["scheduler"].update(_last_lr=["0.1"]),
        lambda state: state["scheduler"].update(_last_lr=[float("nan")]),
        lambda state: state["scheduler"].update(_last_lr=[5.0]),
        lambda state: state["scheduler"].pop("_last_lr"),
        # The optimizer: it keeps what it is given until a step divides by it.
        lambda state: state["optimizer"].update(state=[]),
        lambda state: state["optimizer"].update(state={}),
        lambda state: state["optimizer"]["param_groups"][0].update(lr="fast"),
        lambda state: state["optimizer"]["param_groups"][0].update(lr=float("nan")),
        lambda state: state["optimizer"]["param_groups"][0].update(lr=-0.1),
        lambda state: state["optimizer"]["param_groups"][0].update(lr=0.2),
        lambda state: state["optimizer"]["param_groups"][0].update(params=[1, 0]),
        lambda state: state["optimizer"]["state"].update({7: {"momentum_buffer": torch.zeros(2)}}),
        lambda state: state["optimizer"]["state"].update({0: {}}),
        lambda state: state["optimizer"]["state"][0].update(momentum_buffer=None),
        lambda state: state["optimizer"]["state"][0].update(momentum_buffer="none"),
        lambda state: state["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(1)),
        lambda state: state["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(2, 2, dtype=torch.long)),
        lambda state: state["optimizer"]["state"][0]["momentum_buffer"].fill_(float("nan")),
        # The rest.
        lambda state: state["network"]["weight"].fill_(float("nan")),
        lambda state: state.update(network={**state["network"], "bias": torch.zeros(2, dtype=torch.long)}),
        lambda state: state.update(scaler={"scale": 2.0}),
        lambda state: state.update(averaged=[torch.zeros(())]),
        lambda state: state["averaged"][0].fill_(float("inf")),
        lambda state: state.update(done=True),
        lambda state: state.update(done=-3),
        lambda state: state.update(done=3.0),
        lambda state: state["epochs"].update(over="first"),
        lambda state: state["epochs"].update(best="first"),
        lambda state: state["epochs"].update(best=1),
        lambda state: state["epochs"].update(loss=float("nan")),
        lambda state: state["epochs"].update(loss=-1),
        lambda state: state["epochs"].update(tensors={"weight": torch.zeros(2, 2)}),
        lambda state: state["epochs"].update(tensors=[1]),
        lambda state: state.update(runs=["supernet"]),
        lambda state: state.update(runs={"wandb": 3}),
        lambda state: state.update(runs={"tensorboard": "../../elsewhere"}),
        lambda state: state.update(runs={"tensorboard": ".."}),
        lambda state: state.update(runs={"tensorboard": ""}),
    ],
)
def test_a_training_state_that_cannot_be(tmp_path, change):
    state = after_three_steps(torch.optim.SGD, momentum=0.9)
    job = saved(state, tmp_path)
    values = load_state(job.state)
    change(values)
    save_state(job.state, values)
    before = copy.deepcopy(state.optimizer.state_dict())
    with pytest.raises(ArtifactError, match=r"state\.pt: ") as error:
        state.restore(job)
    assert "\n" not in str(error.value)
    assert repr(state.optimizer.state_dict()) == repr(before)  # nothing was taken over


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("exp_avg"),
        lambda entry: entry["exp_avg_sq"].fill_(-1),
        lambda entry: entry["step"].fill_(4),
        lambda entry: entry["step"].fill_(0),
        lambda entry: entry["step"].fill_(float("nan")),
        lambda entry: entry.update(step="3"),
        lambda entry: entry.update(more=torch.zeros(1)),
    ],
)
def test_moments_that_cannot_be(tmp_path, change):
    state = after_three_steps(torch.optim.AdamW)
    job = saved(state, tmp_path)
    values = load_state(job.state)
    change(values["optimizer"]["state"][1])
    save_state(job.state, values)
    with pytest.raises(ArtifactError, match=r"damaged training state \(optimizer\.state\.1"):
        state.restore(job)


def test_where_steps_overflow_none_may_be_taken_yet(tmp_path):
    """A fused AdamW counts no step whose gradients overflow, as the first ones of fp16 may."""
    state = after_three_steps(torch.optim.AdamW, skips=True)
    job = saved(state, tmp_path)
    values = load_state(job.state)
    values["optimizer"]["state"][1]["step"].fill_(0)
    save_state(job.state, values)
    assert state.restore(job) == 3


def test_a_fused_optimizer_goes_on_from_what_a_plain_one_saved(tmp_path):
    """A plain one remembers nothing of a weight that had no gradient yet; a fused one failed at its first."""
    state = after_three_steps(torch.optim.SGD, momentum=0.9, fused=True)
    job = saved(state, tmp_path)
    values = load_state(job.state)
    del values["optimizer"]["state"][1]
    save_state(job.state, values)
    assert state.restore(job) == 3
    assert bool((state.optimizer.state[state.network.bias]["momentum_buffer"] == 0).all())
    state.step(None, 4)


def test_settings_in_a_state_do_not_count(tmp_path):
    """What the recipe says is not taken from a file: momentum, and whether a kernel of a device is used."""
    state = after_three_steps(torch.optim.SGD, momentum=0.9)
    job = saved(state, tmp_path)
    values = load_state(job.state)
    values["optimizer"]["param_groups"][0].update(momentum="much", fused=True, nesterov=7)
    values["scheduler"].update(base_lrs=["a"], step=3, optimizer=None, get_lr="no")
    save_state(job.state, values)
    assert state.restore(job) == 3
    assert state.optimizer.param_groups[0]["momentum"] == 0.9
    state.step(None, 4)
    assert state.scheduler.last_epoch == 4


def test_an_own_task_s_loss_may_be_below_zero(tmp_path):
    state = after_three_steps(torch.optim.SGD, momentum=0.9)
    state.note(-0.3, keep=False)
    assert saved(state, tmp_path)
    assert state.epochs.loss == -0.3


def after_three_steps(kind, *, skips=False, **settings):
    """Return a state after three steps; `skips` those whose gradients overflow."""
    network = nn.Linear(2, 2)
    optimizer = kind(network.parameters(), lr=0.1, **settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    averaged = Averaged(list(network.parameters()), 0.9)
    state = State(network, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=skips), averaged)
    for done in (1, 2, 3):
        state.scaler.scale(network(torch.ones(1, 2)).sum()).backward()
        state.step(None, done)
    return state


def saved(state, directory):
    """Save a state, and make sure that it is a sound one."""
    settings = SimpleNamespace(keep_states=1)
    job = SimpleNamespace(state=directory / "state.pt", decisive={"recipe": {"seed": 0}}, settings=settings)
    state.save(job, 3)
    assert state.restore(job) == 3
    return job


def test_a_state_of_more_steps_than_there_are(refuse, worked):
    from autoslim_cli.training import loop

    def stopped(*_):
        raise KeyboardInterrupt

    command = ("retrain", "--width", "0.5", "-r", worked, "retrain.epochs=1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_end", stopped)
        assert "interrupted" in refuse(130, *command)
    path = worked / "model-width-0.5.resume.pt"
    state = load_state(path)
    more = state["done"] + 1
    state.update(done=more)
    state["scheduler"].update(last_epoch=more)
    save_state(path, state)
    assert f"says {more} steps done of {more - 1}" in refuse(4, *command, "--resume")
    state.update(done=more - 1)
    state["scheduler"].update(last_epoch=more - 1)
    state["epochs"].update(over=3)
    save_state(path, state)
    assert f"says {more - 1} steps done in 3 epochs of {more - 1}" in refuse(4, *command, "--resume")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_var", "fc.bias"])
def test_a_checkpoint_with_weights_that_are_none(worked, refuse, value, name):
    def damaged(path):
        tensors, facts = checkpoint.load(path, checkpoint.read_any(path)["format"], "")
        tensors[name].view(-1)[0] = value
        checkpoint.save(path, facts.pop("format"), tensors, facts)
        return path

    model, supernet = damaged(worked / "model-60pct.safetensors"), damaged(worked / "supernet.safetensors")
    words = f"{name} holds values that are not finite"
    for command in (["evaluate", model], ["export", "--state-dict", model]):
        assert f"{model}: {words}" in refuse(4, *command)
    for command in (["search", "--flops", "50%"], ["calibrate-bn", "--widths", "0.5"]):
        assert f"{supernet}: {words}" in refuse(4, *command, "-r", worked)
    for start in (["--from", model], [f"retrain.teacher={model.name}"]):
        assert words in refuse(4, "retrain", worked / "arch-60pct.json", "--name", "again", *start)
    with pytest.raises(ArtifactError, match=words):
        load_model(model)
    with pytest.raises(ArtifactError, match=words):
        SlimmableNetwork.load(supernet)


def test_weights_of_another_kind(worked, tmp_path):
    path = worked / "model-60pct.safetensors"
    tensors, facts = checkpoint.load(path, checkpoint.MODEL, "")
    form = facts.pop("format")
    knows_complex = tuple(map(int, safetensors.__version__.split(".")[:2])) >= (0, 7)
    kind = torch.complex64 if knows_complex else torch.bool
    for name, change, words in (
        ("conv1.weight", lambda tensor: tensor.long(), "is of torch.int64"),
        ("conv1.weight", lambda tensor: tensor.to(kind), f"is of {kind}"),
        ("conv1.weight", lambda tensor: tensor.to(torch.float8_e5m2), "too coarse"),
        ("bn1.running_var", lambda tensor: -tensor, "negative variances"),
    ):
        checkpoint.save(path, form, {**tensors, name: change(tensors[name])}, facts)
        with pytest.raises(ArtifactError, match=words):
            load_model(path)
    checkpoint.save(path, form, {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}, facts)
    load_model(path)


@pytest.mark.parametrize(
    "score",
    [
        *((loss, 0.5) for loss in (1e308, 1e7, -0.1, -1e308, float("nan"), float("inf"), True, "0.1", None, [0.1], {})),
        *((1.0, top1) for top1 in (1.5, -0.1, float("nan"), True, "0.5", None, 10**400)),
    ],
    ids=str,
)
def test_scores_that_cannot_be(worked, refuse, score):
    """One of them would choose other channels, in silence."""
    log = worked / "search.jsonl"
    rows = log.read_text().splitlines()
    place = next(number for number, row in enumerate(rows) if '"scored"' in row)
    row = json.loads(rows[place])
    row["scored"][0][1:] = score
    command = ("search", "--flops", "60%,30%", "-r", worked, "--resume")
    log.write_text("\n".join([*rows[:place], json.dumps(row), *rows[place + 1 :], ""]))
    found = {path: path.read_bytes() for path in worked.glob("arch-*.json")}
    assert f"line {place + 1} is damaged" in refuse(4, *command)
    assert found == {path: path.read_bytes() for path in worked.glob("arch-*.json")}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("scored", {"draw": "0"}),
        ("scored", {"draw": -7}),
        ("scored", {"seconds": -1}),
        ("scored", {"multiply_adds": -1}),
        ("scored", {"multiply_adds": 1.5}),
        ("scored", {"at": "12"}),
        ("scored", {"scored": [[{"conv1": "4"}, 1.0, 0.5]]}),
        ("scored", {"scored": [[{"conv1": True}, 1.0, 0.5]]}),
        ("scored", {"scored": [[{"conv1": -4}, 1.0, 0.5]]}),
        ("scored", {"scored": [[{"conv1": 10**9}, 1.0, 0.5]]}),
        ("scored", {"scored": [[{"nothing": 4}, 1.0, 0.5]]}),
        ("step", {"step": "1"}),
        ("step", {"loss": 1e308}),
        ("step", {"flops": -1}),
        ("answer", {"top1": 7}),
        ("answer", {"answer": 3}),
        ("run", {"run": []}),
        (None, {"trial": [4], "of": "x", "loss": -1.0, "top1": 0.5}),
        (None, {"trial": ["4"], "of": "x", "loss": 1.0, "top1": 0.5}),
        (None, {"trial": [4], "of": 7, "loss": 1.0, "top1": 0.5}),
        (None, {"measured": [4], "table": "x", "ms": -1.0}),
        (None, {"measured": [4], "table": "x", "ms": "1"}),
        (None, {"measured": [4], "table": "x", "ms": 1e999}),
    ],
)
def test_lines_of_a_log_that_cannot_be(worked, refuse, kind, change):
    log = worked / "search.jsonl"
    rows = log.read_text().splitlines()
    place = next(n for n, row in enumerate(rows) if kind in json.loads(row) and n) if kind else len(rows)
    old = json.loads(rows[place]) if kind else {}
    log.write_text("\n".join([*rows[:place], json.dumps({**old, **change}), *rows[place + 1 :], ""]))
    line = refuse(4, "search", "--flops", "60%,30%", "-r", worked, "--resume")
    assert f"line {place + 1} is damaged (" in line


def test_a_supernet_that_diverged_is_not_searched(worked, refuse):
    """What a search would log is held to what a log may hold."""
    path = worked / "supernet.safetensors"
    tensors, facts = checkpoint.load(path, checkpoint.SUPERNET, "")
    tensors["fc.weight"] *= 1e9
    checkpoint.save(path, facts.pop("format"), tensors, facts)
    assert "beyond all use" in refuse(1, "search", "--flops", "60%", "-r", worked)


@pytest.mark.parametrize("change", [{"loss": 1e308}, {"loss": -1}, {"loss": True}, {"top1": 1.5}, {"top1": "0.5"}])
def test_a_config_whose_score_cannot_be(worked, refuse, change):
    path = worked / "arch-60pct.json"
    values = json.loads(path.read_text())
    values["found"].update(change)
    path.write_text(json.dumps(values))
    assert f"found.{next(iter(change))}" in refuse(2, "info", path)


@pytest.mark.parametrize(
    "score", [{"loss": -1.0, "top1": 0.5}, {"loss": 1.0, "top1": 7.0}, {"loss": 1.0, "top1": True}]
)
def test_a_checkpoint_whose_score_cannot_be(worked, score):
    path = rewritten(worked / "model-60pct.safetensors", lambda facts: facts.update(test=score))
    with pytest.raises(ArtifactError, match="damaged"):
        checkpoint.read_any(path)


def test_the_fuzzer_reads_its_own_corpus():
    """What is damaged could not show much, if what is sound were refused already."""
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--minutes", "0.01", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    counted = json.loads(done.stdout)
    assert counted["inputs"] > 0
    assert (counted["tracebacks"], counted["hangs"], counted["executions"]) == (0, 0, 0)
