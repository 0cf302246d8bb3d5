"""What is not made from what the recipe now names is redone or refused, by name; nothing finished is lost."""

import json
import os
import shutil

import pytest
import safetensors.torch
import torch
from PIL import Image

from autoslim_cli import SlimmableNetwork, machine
from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.provenance import decisive
from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.searching import preparation
from autoslim_cli.stages.project import open_project
from autoslim_cli.stages.trial import conditions
from autoslim_cli.training.state import State

NET = """\
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8, momentum=0.1)
        self.act = nn.ReLU()
        self.b = nn.Conv2d(8, 8, 3, stride=1)
        self.fc = nn.Linear(8, num_classes)
    def forward(self, x):
        return self.fc(self.b(self.act(self.norm(self.a(x)))).mean((2, 3)))
"""
SHORT = ["model.name=./net.py:Net", "model.args={}", "train.epochs=1", "train.lr=0.02", "retrain.epochs=1"]

WEIGHTS = ["retrain.start=weights", "model.weights=model-base.safetensors"]


@pytest.fixture
def own(recipe):
    """A recipe of a network of one's own."""
    (recipe / "net.py").write_text(NET)
    return recipe


STARTS = {
    "the supernet teaches": (["retrain.teacher=supernet"], "calibrate.images=128", "evaluate.images=20"),
    "from the supernet": (["retrain.start=supernet"], "calibrate.batch=64", "space.groups=5"),
    "from weights, sorted": (WEIGHTS, "supernet.sort=false", "supernet.samples=3"),
    "from weights, pinned": (WEIGHTS, "space.pin=[conv1]", "space.groups=5"),
    "from weights, tied": (WEIGHTS, "space.tie=[[layer1.0.conv1, conv1]]", "calibrate.images=128"),
}


@pytest.mark.parametrize(("settings", "other", "indifferent"), STARTS.values(), ids=STARTS)
def test_what_a_start_and_a_teacher_depend_on_is_seen(autoslim, worked, settings, other, indifferent):
    command = ("retrain", "--width", "1", "-r", worked, "retrain.epochs=1", "retrain.calibrate=false")
    if "retrain.start=weights" in settings:
        autoslim(*command, "--name", "base")
    autoslim(*command, *settings)
    assert "is there and current" in autoslim(*command, *settings, indifferent, "--resume").stderr
    key = other.partition("=")[0]
    assert f"is stale: {key} was " in autoslim(*command, *settings, other, "--resume").stderr
    # One that starts from scratch depends on none of it.
    autoslim(*command, "--name", "scratch")
    assert "is there and current" in autoslim(*command, "--name", "scratch", other, "--resume").stderr


def test_what_a_trial_starts_from_is_seen(worked):
    (worked / "base.pt").write_bytes(b"")

    def of(*settings):
        return conditions(open_project(load_recipe(worked, list(settings)), worked, Reporter()))

    weights = ["retrain.start=weights", "model.weights=base.pt"]
    assert of(*weights) != of(*weights, "supernet.sort=false")
    assert of(*weights) == of(*weights, "supernet.samples=3")
    assert of() != of("calibrate.batch=64")
    assert of() == of("supernet.sort=false")


def test_what_judges_epochs_is_seen_where_the_best_is_kept(autoslim, recipe):
    command = ("train-supernet", "-r", recipe, "train.epochs=1")
    for settings in (["train.keep=best"], ["train.patience=2"]):
        autoslim(*command, *settings, "--force")
        assert "is there and current" in autoslim(*command, *settings, "calibrate.images=128", "--resume").stderr
        for key, value in (("evaluate.images", 20), ("calibrate.batch", 64)):
            said = autoslim(*command, *settings, f"{key}={value}", "--resume", code=2).stderr
            assert f"is stale: {key} was " in said
    autoslim(*command, "--force")
    assert "is there and current" in autoslim(*command, "evaluate.images=20", "calibrate.batch=64", "--resume").stderr


@pytest.mark.parametrize(
    "edit", [("nn.ReLU()", "nn.SiLU()"), ("stride=1", "stride=2"), ("momentum=0.1", "momentum=0.2")]
)
def test_an_edited_network_is_seen(autoslim, refuse, own, edit):
    recipe = ("-r", own, *SHORT)
    autoslim("run", "--flops", "60%", *recipe)
    assert autoslim("run", "--flops", "60%", *recipe).stderr.count("is there and current") == 3
    (own / "net.py").write_text(NET.replace(*edit))
    line = refuse(4, "search", "--flops", "60%", *recipe, "--resume")
    assert "supernet.safetensors: made with another network than ./net.py:Net is now" in line
    assert "another network" in refuse(4, "calibrate-bn", "--widths", "0.5", *recipe)
    assert "another network" in refuse(4, "evaluate", own / "model-60pct.safetensors", *SHORT)
    with pytest.raises(ArtifactError, match="another network"):
        SlimmableNetwork.load(own / "supernet.safetensors", trust=True)
    said = autoslim("run", "--flops", "60%", *recipe, "--force").stderr
    assert "supernet.safetensors is stale: " in said
    assert "is there and current" not in said
    stale = [row for row in said.splitlines() if " is stale: network was sha256:" in row]
    assert len(stale) >= 2  # the supernet, and what was retrained
    assert "searching anew: " in said


def test_a_mended_test_image_costs_no_training(autoslim, recipe):
    """One that cannot be read is met when all epochs are over: what was trained was refused once it was mended."""
    for part in ("train", "test"):
        for number in range(24):
            (recipe / part / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 10 * number).save(recipe / part / "ab"[number % 2] / f"{number}.png")
    sound = (recipe / "test/a/0.png").read_bytes()
    (recipe / "test/a/0.png").write_bytes(sound[:40])
    data = ["data.name=image-folder", "data.path=.", "data.holdout=8", "data.limit=null", "data.workers=0"]
    retrain = ("retrain", "--width", "1", "-r", recipe, *data, "model.classes=2", "retrain.epochs=2", "retrain.batch=8")
    assert "0.png cannot be read" in autoslim(*retrain, code=1).stderr
    (recipe / "test/a/0.png").write_bytes(sound)
    said = autoslim(*retrain, "--resume").stderr
    assert "resuming after step 6" in said
    assert not (recipe / "model-width-1.resume.pt").exists()


def test_a_stopped_training_of_an_edited_network_is_refused(autoslim, refuse, own):
    autoslim("train-supernet", "-r", own, *SHORT)
    state = {"decisive": facts_of(own / "supernet.safetensors"), "done": 1}
    torch.save(state, own / "supernet.resume.pt")
    (own / "supernet.safetensors").unlink()
    (own / "net.py").write_text(NET.replace("ReLU", "SiLU"))
    line = refuse(4, "train-supernet", "-r", own, *SHORT, "--resume")
    assert "a training with other settings (network was sha256:" in line


def interrupted(autoslim, monkeypatch, *command, saves=1):
    """Run a training that ends as by Ctrl-C once so many states are saved."""
    save, saved = State.save, []

    def save_and_die(*arguments):
        save(*arguments)
        saved.append(arguments)
        if len(saved) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "save", save_and_die)
        autoslim(*command, code=130)


@pytest.mark.parametrize("stage", ["retrain", "train-supernet"])
def test_a_stopped_training_of_other_settings_outlives_a_finished_one(autoslim, worked, monkeypatch, stage):
    """What is finished is current, and what is stopped beside it may have taken hours."""
    if stage == "retrain":
        command, state = ("retrain", worked / "arch-60pct.json"), worked / "model-60pct.resume.pt"
        longer = ("retrain.epochs=5",)
    else:
        command, state = ("train-supernet", "-r", worked), worked / "supernet.resume.pt"
        longer = ("train.epochs=5", "--force")
    interrupted(autoslim, monkeypatch, *command, *longer, saves=2)
    before = state.read_bytes()
    said = autoslim(*command, "--resume").stderr
    assert "is there and current" in said
    assert "epochs was 5, is 3" in next(row for row in said.splitlines() if f"{state.name} is kept: " in row)
    assert state.read_bytes() == before
    said = autoslim(*command, *longer, "--resume").stderr
    assert "resuming after step" in said
    assert "resuming after step 0" not in said
    assert not state.exists()  # its own is not needed any more


@pytest.mark.parametrize("stage", ["retrain", "train-supernet"])
def test_force_gives_up_a_stopped_training(autoslim, refuse, recipe, monkeypatch, stage):
    kind = "train" if stage == "train-supernet" else "retrain"
    command = (stage, *(["--width", "0.5"] if stage == "retrain" else []), "-r", recipe, f"{kind}.epochs=1")
    made = recipe / ("model-width-0.5.safetensors" if stage == "retrain" else "supernet.safetensors")
    state = made.with_suffix(".resume.pt")
    longer = (*command[:-1], f"{kind}.epochs=4", f"{kind}.keep_states=2", f"{kind}.save_minutes=0.00001")
    interrupted(autoslim, monkeypatch, *longer, saves=3)
    assert "or --force to give it up" in refuse(2, *command)
    assert "or add --force to give it up" in refuse(4, *command, "--resume")
    autoslim(*command, f"{kind}.batch=999999", "model.weights=absent.pth", *start_of(stage), "--force", code=4)
    assert state.exists()  # nothing is lost to a training that does not begin
    said = autoslim(*command, "--force").stderr
    assert said.count(f"{state}: the stopped training that was there is given up (--force)") == 1
    assert made.exists()
    assert not list(recipe.glob("*.resume*.pt"))
    # With --resume, too: of other settings it is given up, of these it goes on.
    made.unlink()
    interrupted(autoslim, monkeypatch, *longer, saves=3)
    assert "is given up" in autoslim(*command, "--resume", "--force").stderr
    made.unlink()
    interrupted(autoslim, monkeypatch, *longer, saves=3)
    said = autoslim(*longer, "--resume", "--force").stderr
    assert "given up" not in said
    assert "resuming after step 3" in said


def start_of(stage):
    return ["retrain.start=weights"] if stage == "retrain" else []


def test_a_state_of_what_is_current_goes(autoslim, worked, monkeypatch):
    """As after a kill between the file and the removal of what it could be continued from."""
    command, state = ("retrain", worked / "arch-60pct.json"), worked / "model-60pct.resume.pt"
    interrupted(autoslim, monkeypatch, *command, saves=3)
    said = autoslim(*command, "--resume").stderr
    assert "is there and current" in said
    assert "is kept" not in said
    assert not state.exists()
    state.write_bytes(b"no state")
    assert f"{state.name} is kept: it cannot be read" in autoslim(*command, "--resume").stderr
    assert state.read_bytes() == b"no state"


def test_older_states_go_with_the_last_however_many_are_kept_now(autoslim, worked, monkeypatch):
    command = ("retrain", worked / "arch-30pct.json", "retrain.save_minutes=0.00001")
    interrupted(autoslim, monkeypatch, *command, "retrain.keep_states=3", saves=4)
    assert len(list(worked.glob("model-30pct.resume*.pt"))) == 3
    autoslim(*command, "retrain.keep_states=1", "--resume")
    assert not list(worked.glob("*.resume*.pt"))


def facts_of(path):
    """Return what a training's state says that it depends on, from the file that it ended in."""
    with safetensors.safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["autoslim"])
    return {**decisive(facts["made_from"]), "channels": {path.name: facts["channels"]}}


def test_edited_weights_are_seen(autoslim, own):
    autoslim("retrain", "--width", "1", "-r", own, *SHORT)
    weights = own / "model-width-1.safetensors"
    start = ("train-supernet", "-r", own, *SHORT, f"model.weights={weights.name}", "--resume")
    autoslim(*start)
    assert "is there and current" in autoslim(*start).stderr
    tensors = safetensors.torch.load_file(weights)
    safetensors.torch.save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, weights)
    assert "supernet.safetensors is stale: weights was sha256:" in autoslim(*start, "--force").stderr


def test_an_added_image_is_seen(autoslim, refuse, recipe):
    for part in ("train", "test"):
        for number in range(24):
            (recipe / part / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 10 * number).save(recipe / part / "ab"[number % 2] / f"{number}.png")
    data = ["data.name=image-folder", "data.path=.", "data.holdout=8", "data.limit=null", "data.workers=0"]
    data += ["model.classes=2", "train.epochs=1", "train.batch=8"]
    autoslim("train-supernet", "-r", recipe, *data)
    assert "is there and current" in autoslim("train-supernet", "-r", recipe, *data, "--resume").stderr
    Image.new("L", (8, 8), 99).save(recipe / "train/a/one-more.png")
    assert "trained with other images" in refuse(4, "search", "--flops", "60%", "-r", recipe, *data)
    said = autoslim("train-supernet", "-r", recipe, *data, "--resume", "--force").stderr
    assert "supernet.safetensors is stale: images was sha256:" in said
    retrain = ("retrain", "--width", "1", "-r", recipe, *data, "retrain.epochs=1", "retrain.batch=8", "--resume")
    autoslim(*retrain)
    Image.new("L", (8, 8), 98).save(recipe / "test/a/one-more.png")
    assert "model-width-1.safetensors is stale: test images was sha256:" in autoslim(*retrain).stderr


def test_a_search_anew_keeps_the_old_log(autoslim, worked):
    before = (worked / "search.jsonl").read_bytes()
    said = autoslim("search", "--flops", "60%", "-r", worked, "search.strategy=uniform").stderr
    assert "search.jsonl: the one that was there is kept as search.old-1.jsonl" in said
    assert (worked / "search.old-1.jsonl").read_bytes() == before
    autoslim("search", "--flops", "60%", "-r", worked, "search.strategy=uniform")
    assert (worked / "search.old-1.jsonl").read_bytes() == before
    assert (worked / "search.old-2.jsonl").exists()


def test_a_finished_supernet_is_not_trained_over_unless_that_is_asked_for(autoslim, refuse, worked):
    path = worked / "supernet.safetensors"
    before = path.read_bytes()
    assert "--force makes it anew" in refuse(2, "train-supernet", "-r", worked, "train.epochs=1")
    # `run` says which key differs, and neither searches nor retrains.
    done = autoslim("run", "--flops", "50%", "-r", worked, "train.epochs=1", code=2)
    assert "supernet.safetensors is stale: train.epochs was 3, is 1" in done.stderr
    assert "--force" in done.stderr.splitlines()[-1]
    assert path.read_bytes() == before
    assert not (worked / "arch-50pct.json").exists()
    said = autoslim("train-supernet", "-r", worked, "train.epochs=1", "--force").stderr
    assert "the one that was there is kept as supernet.old-1.safetensors" in said
    assert (worked / "supernet.old-1.safetensors").read_bytes() == before
    assert path.read_bytes() != before


def test_a_data_set_that_moved_is_the_same(autoslim, recipe, tmp_path):
    rng = torch.Generator().manual_seed(0)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "here" / place).mkdir(parents=True)
        for number in range(40):
            pixels = torch.randint(0, 256, (8, 8), generator=rng, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "here" / place / f"{number}.png")
    settings = ["data.name=image-folder", "data.holdout=20", "model.classes=2", "train.epochs=1"]
    autoslim("train-supernet", "-r", recipe, *settings, f"data.path={tmp_path / 'here'}")
    (tmp_path / "here").rename(tmp_path / "there")
    said = autoslim("run", "--flops", "50%", "-r", recipe, *settings, "retrain.epochs=1", "data.path=../there").stderr
    assert "supernet.safetensors is there and current" in said


def test_run_does_not_search_anew_on_a_damaged_log(autoslim, refuse, worked):
    log = worked / "search.jsonl"
    damaged = log.read_text() + "{}\n"
    log.write_text(damaged)
    assert "is damaged" in refuse(4, "run", "--flops", "60%,30%", "-r", worked)
    assert log.read_text() == damaged
    log.write_text(damaged.removesuffix("{}\n"))
    said = autoslim("run", "--flops", "60%", "-r", worked, "search.precision=bf16", "retrain.epochs=1").stderr
    assert "searching anew: " in said
    assert "search.precision was fp32, is bf16" in said
    assert (worked / "search.old-1.jsonl").read_text() == damaged.removesuffix("{}\n")


def test_a_search_does_not_depend_on_free_memory(autoslim, worked, monkeypatch):
    command = ("search", "--flops", "60%", "-r", worked, "search.batch=150", "search.strategy=uniform")
    autoslim(*command)
    header = json.loads((worked / "search.jsonl").read_text().splitlines()[0])
    config = (worked / "arch-60pct.json").read_bytes()
    for module in (machine, preparation):
        monkeypatch.setattr(module, "free_memory", lambda *_: 300_000)
    said = autoslim(*command).stderr
    assert "GiB are free" in said
    assert json.loads((worked / "search.jsonl").read_text().splitlines()[0]) == header
    assert (worked / "arch-60pct.json").read_bytes() == config


SLOW_BN = ["model.name=./net.py:Net", "model.args={}", "retrain.epochs=3", "retrain.lr=0.05"]


def test_statistics_of_a_low_momentum_are_measured_at_the_end(autoslim_json, own):
    """A momentum of 0.0003, as torchvision's MNASNet has, keeps 99 % of the initial statistics after 27 steps."""
    (own / "net.py").write_text(NET.replace("momentum=0.1", "momentum=0.0003"))
    command = ("retrain", "--width", "1", "-r", own, *SLOW_BN)
    initial = autoslim_json(*command, "retrain.calibrate=false")
    assert statistics_of(initial["path"]) == pytest.approx(1.0, abs=0.02)
    measured = autoslim_json(*command)
    assert abs(statistics_of(measured["path"]) - 1.0) > 0.1
    assert measured["loss"] < initial["loss"]
    (own / "net.py").write_text(NET)
    command = (*command, "retrain.epochs=6")  # 54 steps of a momentum of 0.1 leave 0.3 %
    running = statistics_of(autoslim_json(*command)["path"])
    assert running == statistics_of(autoslim_json(*command, "retrain.calibrate=false")["path"])
    assert running != statistics_of(autoslim_json(*command, "retrain.calibrate=true")["path"])


def statistics_of(path):
    """Return the mean running variance of a model's BN."""
    return float(safetensors.torch.load_file(path)["norm.running_var"].mean())


def test_jointly_trained_networks_may_learn_from_the_largest(autoslim_json, worked):
    configs = [worked / "arch-60pct.json", worked / "arch-30pct.json"]
    tensors = []
    for distill in ("false", "true"):
        settings = ["retrain.epochs=1", f"retrain.distill={distill}"]
        rows = autoslim_json("retrain", *configs, "--joint", *settings)["networks"]
        tensors.append([safetensors.torch.load_file(row["path"]) for row in rows])
    (alone, _), (teacher, _) = tensors
    assert not torch.equal(alone["conv1.weight"], teacher["conv1.weight"])
    again = autoslim_json("retrain", *configs, "--joint", *settings, "--resume")["networks"]
    assert again == rows


def test_a_config_that_a_person_wrote_is_not_overwritten_by_a_search(autoslim, worked):
    path = worked / "arch-45pct.json"
    own = json.loads((worked / "arch-60pct.json").read_text())
    path.write_text(json.dumps({key: own[key] for key in ("format", "model", "channels")}))
    written = path.read_bytes()
    said = autoslim("search", "--flops", "45%", "-r", worked).stderr
    assert "arch-45pct.old-1.json" in said
    assert (worked / "arch-45pct.old-1.json").read_bytes() == written
    # What a search finds again is no other config.
    autoslim("search", "--flops", "45%", "-r", worked)
    assert not (worked / "arch-45pct.old-2.json").exists()


def test_a_stale_sub_network_is_kept_when_it_is_cut_anew(autoslim, worked):
    cut = ("calibrate-bn", "--widths", "0.5", "--channels", worked / "arch-60pct.json", "-r", worked)
    autoslim(*cut)
    before = {name: (worked / f"{name}.safetensors").read_bytes() for name in ("subnet-width-0.5", "subnet-60pct")}
    assert "kept as" not in autoslim(*cut).stderr  # the same bytes: nothing is lost
    assert not list(worked.glob("subnet-*.old-*"))
    autoslim("train-supernet", "-r", worked, "train.epochs=1", "--force")
    said = autoslim(*cut, "train.epochs=1", "--resume").stderr
    for name, old in before.items():
        assert f"{name}.safetensors: the one that was there is kept as {name}.old-1.safetensors" in said
        assert (worked / f"{name}.old-1.safetensors").read_bytes() == old
        assert (worked / f"{name}.safetensors").read_bytes() != old


def test_the_umask_decides_for_all_files_alike(autoslim, recipe, tmp_path):
    (recipe / "recipe.yaml").chmod(0o640)
    before = os.umask(0o027)
    try:
        autoslim("run", "--flops", "60%", "-r", recipe, "train.epochs=1", "retrain.epochs=1", "search.strategy=uniform")
        autoslim("calibrate-bn", "--widths", "0.5:1.0:0.25", "-r", recipe, "train.epochs=1")
        autoslim("export", "--state-dict", recipe / "model-60pct.safetensors")
        autoslim("recipes", "copy", "imagenet-mobilenet-v2", tmp_path / "copy")
    finally:
        os.umask(before)
    made = [path for path in (*recipe.iterdir(), *(tmp_path / "copy").rglob("*")) if path.is_file()]
    assert len(made) > 15
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in made} == dict.fromkeys(
        (path.name for path in made), "0o640"
    )


def test_a_symbolic_link_is_followed(autoslim, worked, tmp_path):
    """Artifacts may lie on another disk, with links in the recipe's directory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    names = ("arch-45pct.json", "search.jsonl", "subnet-width-0.5.safetensors")
    config = json.loads((worked / "arch-60pct.json").read_text())
    (worked / "arch-45pct.json").write_text(json.dumps({key: config[key] for key in ("format", "model", "channels")}))
    written = (worked / "arch-45pct.json").read_bytes()
    for name in names:
        if (worked / name).exists():
            shutil.move(worked / name, disk / name)
        (worked / name).symlink_to(disk / name)
    autoslim("search", "--flops", "45%", "-r", worked, "search.strategy=uniform")
    autoslim("calibrate-bn", "--widths", "0.5", "-r", worked)
    assert all((worked / name).is_symlink() for name in names)
    assert (disk / "arch-45pct.old-1.json").read_bytes() == written
    assert json.loads((disk / "arch-45pct.json").read_text())["found"]["strategy"] == "uniform"
    assert (disk / "search.old-1.jsonl").exists()
    assert (disk / "subnet-width-0.5.safetensors").exists()


@pytest.mark.parametrize("command", [("search", "--flops", "60%"), ("calibrate-bn", "--widths", "0.5")])
def test_a_supernet_that_was_trained_with_other_settings_is_taken_and_that_is_said(autoslim, worked, command):
    assert "other settings" not in autoslim(*command, "-r", worked, "train.save_minutes=3").stderr
    said = autoslim(*command, "-r", worked, "train.lr=0.2").stderr
    assert (
        "supernet.safetensors was trained with other settings, and is taken as it is: train.lr was 0.1, is 0.2" in said
    )


def test_the_refusal_of_another_supernet_says_what_changed(refuse, worked):
    assert "(model.args.width was 8, is 12)" in refuse(
        4, "search", "--flops", "60%", "-r", worked, "model.args.width=12"
    )
    assert "(channels.conv1 was 12, is 8)" in refuse(4, "search", "--flops", "60%", "-r", worked, "supernet.width=1")
