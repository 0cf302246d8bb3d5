"""A base network that is trained first, for the supernet to start from."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from autoslim_cli.recipe.loading import load_recipe

QUICK = ("train.epochs=1", "retrain.epochs=1", "supernet.width=1.0")


@pytest.fixture
def based(recipe):
    """The tiny recipe, whose base network is trained first."""
    text = (recipe / "recipe.yaml").read_text()
    (recipe / "recipe.yaml").write_text(text + "base: {epochs: 2, batch: 64, lr: 0.1}\n")
    return recipe


def facts_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["autoslim"])


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_run_trains_the_base_network_first_and_starts_the_supernet_from_it(autoslim, autoslim_json, based):
    settings = ("--flops", "60%", "-r", based, "--from", "supernet", *QUICK)
    said = autoslim("run", *settings).stderr
    assert said.index("training base") < said.index("starting from model-base.safetensors") < said.index("supernet of")
    assert "--retrain-base" not in said
    base, searched, uniform = autoslim_json("run", *settings)["networks"]
    assert base["path"] == str(based / "model-base.safetensors")
    assert (base["start"], base["epochs"]) == ("scratch", 2)
    assert base["top1"] == autoslim_json("evaluate", base["path"])["top1"]
    assert {searched["start"], uniform["start"]} == {"supernet"}
    again = autoslim("run", *settings)
    assert f"{base['path']} is there and current" in again.stderr
    assert "1 epochs from supernet; the base network 2 from scratch" in again.stdout
    # Retrained as what was found, it is a network of its own.
    retrained, *_ = autoslim_json("run", *settings, "--retrain-base")["networks"]
    assert retrained["path"].endswith("model-width-1-from-supernet.safetensors")


def test_the_base_network_does_not_see_the_holdout(autoslim, based):
    autoslim("train-base", "-r", based)
    base = load_file(based / "model-base.safetensors")
    settings = ("--width", "1", "-r", based, "retrain={epochs: 2, batch: 64, lr: 0.1}")
    autoslim("retrain", *settings, "--name", "all")
    assert not same(base, load_file(based / "model-all.safetensors"))
    # A patience that does not end the training keeps it off the holdout, and so it is the same one.
    autoslim("retrain", *settings, "--name", "less", "retrain.patience=2")
    assert same(base, load_file(based / "model-less.safetensors"))


def test_a_stopped_base_network_goes_on(autoslim, based, monkeypatch):
    autoslim("train-base", "-r", based)
    whole = load_file(based / "model-base.safetensors")
    (based / "model-base.safetensors").unlink()
    from autoslim_cli.training import loop

    check, steps = loop._check, []

    def stop(*arguments):
        check(*arguments)
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_check", stop)
    autoslim("train-base", "-r", based, code=130)
    monkeypatch.setattr(loop, "_check", check)
    assert (based / "model-base.resume.pt").is_file()
    said = autoslim("train-base", "-r", based, "--resume").stderr
    assert "resuming after step" in said
    assert same(whole, load_file(based / "model-base.safetensors"))


def test_what_is_finished_is_trained_anew_by_force_alone(autoslim, refuse, based):
    autoslim("train-base", "-r", based)
    assert "--resume keeps it" in refuse(2, "train-base", "-r", based)
    assert "--force makes it anew" in refuse(2, "train-base", "-r", based, "--resume", "base.epochs=1")
    assert "--force makes it anew" in refuse(2, "run", "--flops", "60%", "-r", based, "base.epochs=1", *QUICK)
    autoslim("train-base", "-r", based, "--force", "base.epochs=1")
    assert (based / "model-base.old-1.safetensors").is_file()
    # Which channels there are is not its business.
    assert (
        "is there and current"
        in autoslim("train-base", "-r", based, "--resume", "base.epochs=1", "space.pin=[conv1]").stderr
    )


def test_a_supernet_refuses_a_base_network_that_saw_the_holdout(autoslim, refuse, based):
    said = refuse(4, "train-supernet", "-r", based, *QUICK)
    assert said.endswith(f"`autoslim train-base -r {based} {' '.join(QUICK)}`")
    autoslim("train-base", "-r", based)
    for override, why in (
        ("data.holdout=100", "trained with data.holdout=150, but it is 100 now"),
        ("seed=1", "trained with seed=0, but it is 1 now"),
        ("data.mean=[0.1]", "it is [0.1] now"),
    ):
        assert why in refuse(4, "train-supernet", "-r", based, override, *QUICK).replace("(0.1,)", "[0.1]")
    said = autoslim("train-supernet", "-r", based, "base.lr=0.2", *QUICK).stderr
    assert "was trained with other settings, and is taken as it is: base.lr was 0.1, is 0.2" in said


def test_a_network_that_starts_from_the_base_network_or_learns_from_it_asks_what_it_is(autoslim, refuse, based):
    """Its bytes alone were asked: one of other settings, or that some other command had made, passed in silence."""
    autoslim("train-base", "-r", based)
    for key, width in (("start", "0.5"), ("teacher", "0.6")):
        half = ("retrain", "--width", width, "-r", based, f"retrain.{key}=weights", "retrain.epochs=1")
        said = autoslim(*half, "data.holdout=100", "base.lr=0.2").stderr  # the holdout scores nothing here
        assert "was trained with other settings, and is taken as it is: base.lr was 0.1, is 0.2" in said
        assert "trained with other images" in refuse(4, *half, "data.limit=500")
    save_file(load_file(based / "model-base.safetensors"), based / "model-base.safetensors")
    for key in ("start", "teacher"):
        half = ("retrain", "--width", "0.7", "-r", based, f"retrain.{key}=weights", "retrain.epochs=1")
        assert "was not made as the recipe's section base says" in refuse(4, *half)


def test_a_base_network_that_says_little_of_its_origin_is_refused_in_a_line(autoslim, refuse, based):
    """It ended in a traceback."""
    autoslim("train-base", "-r", based)
    path = based / "model-base.safetensors"
    facts = facts_of(path)
    for lacking, why in (("seed", "damaged"), ("data", "the holdout would hold images that it was trained on")):
        recipe = {key: value for key, value in facts["made_from"]["recipe"].items() if key != lacking}
        scant = {**facts, "made_from": {**facts["made_from"], "recipe": recipe}}
        save_file(load_file(path), path, {"autoslim": json.dumps(scant)})
        assert why in refuse(4, "train-supernet", "-r", based)


def test_a_supernet_refuses_a_file_that_the_section_did_not_make(autoslim, refuse, based):
    """One that was trained on all images passed with a warning, and anything else without."""
    autoslim("retrain", "--width", "1", "-r", based, "--name", "base", "retrain.epochs=1", "base=null")
    path = based / "model-base.safetensors"
    for written_by_autoslim in (True, False):
        if not written_by_autoslim:
            save_file(load_file(path), path)
        said = refuse(4, "train-supernet", "-r", based, *QUICK)
        assert "was not made as the recipe's section base says" in said
        assert "autoslim train-base --force" in said


def test_run_refuses_what_is_in_the_way_before_the_base_network_trains(refuse, autoslim, recipe):
    autoslim("train-supernet", "-r", recipe, *QUICK)
    run, base = ("run", "--flops", "60%", "-r", recipe, *QUICK), "base={epochs: 1, batch: 64}"
    said = refuse(2, *run, base)
    assert "supernet.safetensors is finished, and not what would be made now (model.weights was None" in said
    assert not (recipe / "model-base.safetensors").exists()
    autoslim(*run, base, "--force")
    # The base network alone is gone: the supernet that it made is not in the way.
    (recipe / "model-base.safetensors").unlink()
    autoslim(*run, base)


def test_run_refuses_what_the_supernet_will_be_refused_for_before_the_base_network_trains(refuse, autoslim, tmp_path):
    autoslim("recipes", "copy", "digits-multi-label", tmp_path / "labels")
    run = ("run", "--flops", "60%", "-r", tmp_path / "labels", "base={epochs: 1}")
    assert "label_smoothing" in refuse(2, *run, "train.label_smoothing=0.1")
    assert not list((tmp_path / "labels").glob("model-base*"))


def test_a_search_tells_that_its_supernet_started_from_something_else(autoslim, based):
    autoslim("train-base", "-r", based)
    autoslim("train-supernet", "-r", based, *QUICK)
    search = ("search", "--flops", "60%", "-r", based, *QUICK)
    told = "was trained with other settings, and is taken as it is"
    assert told not in autoslim(*search).stderr
    assert f"{told}: model.weights was model-base.safetensors, is None" in autoslim(*search, "base=null").stderr
    autoslim("train-base", "-r", based, "--force", "base.epochs=1")
    assert f"{told}: weights was sha256:" in autoslim(*search).stderr


def test_what_starts_from_nothing_does_not_depend_on_weights(autoslim, recipe):
    """Adding a base network made everything stale that was trained from scratch."""
    again = ("retrain", "--width", "0.5", "-r", recipe, "retrain.epochs=1", "--resume")
    autoslim(*again)
    assert "is there and current" in autoslim(*again, "base={epochs: 1}").stderr
    assert "is there and current" in autoslim(*again, "model.weights=mine.pt").stderr


def test_weights_that_are_known_to_have_seen_the_holdout_are_warned_of(autoslim, recipe):
    autoslim("retrain", "--width", "1", "-r", recipe, "retrain.epochs=1")
    autoslim("retrain", "--width", "1", "-r", recipe, "retrain.epochs=1", "--name", "less", "retrain.patience=1")
    warned = "learned from images of the holdout"
    for name, other, there in (("width-1", (), True), ("less", (), False), ("less", ("data.holdout=100",), True)):
        weights = f"model.weights=model-{name}.safetensors"
        said = autoslim("train-supernet", "-r", recipe, "--force", weights, *QUICK, *other).stderr
        assert (f"model.weights: {recipe / f'model-{name}.safetensors'} {warned}" in said) == there
    # Fewer images are others by their digest, and yet among those.
    seen = "model.weights=model-width-1.safetensors"
    said = autoslim("train-supernet", "-r", recipe, "--force", seen, *QUICK, "data.limit=500").stderr
    assert "learned from images chosen by another data.limit, and may have seen those of the holdout" in said
    # What a base network learns from is asked, too.
    for key in ("start", "teacher"):
        base = f"base={{epochs: 1, batch: 64, {key}: model-width-1.safetensors}}"
        said = autoslim("train-base", "-r", recipe, base, "--force").stderr
        assert f"base.{key}: {recipe / 'model-width-1.safetensors'} {warned}" in said


def test_the_base_network_starts_from_weights_of_its_own(autoslim, autoslim_json, refuse, based):
    """Weights of other classes are a start, too: their classifier stays as initialised."""
    autoslim("retrain", "--width", "1", "-r", based, "retrain.epochs=1")
    tensors = load_file(based / "model-width-1.safetensors")
    tensors |= {name: tensor[:7].clone() for name, tensor in tensors.items() if name.startswith("fc.")}
    save_file(tensors, based / "seven.safetensors")
    own = ("-r", based, "base.start=seven.safetensors", "base.epochs=1", "base.lr=1e-9", "base.calibrate=false")
    said = autoslim("train-base", *own).stderr
    assert "starting from seven.safetensors" in said
    assert "as initialised: fc.weight, fc.bias" in said
    made = load_file(based / "model-base.safetensors")
    torch.testing.assert_close(made["conv1.weight"], tensors["conv1.weight"], atol=1e-6, rtol=0)  # and not sorted
    assert facts_of(based / "model-base.safetensors")["made_from"]["contents"]["weights"].startswith("sha256:")
    assert "base.start: no file" in refuse(4, "train-base", "-r", based, "base.start=none.pt", "--resume")
    assert "base.start: no file" in refuse(4, "run", "--flops", "60%", "-r", based, "base.start=none.pt")
    assert "base.teacher: no file" in refuse(4, "run", "--flops", "60%", "-r", based, "base.teacher=none.pt")
    row = autoslim_json("train-base", *own, "--resume")
    assert (row["start"], row["epochs"]) == ("seven.safetensors", 1)


def test_a_teacher_may_be_the_base_network_that_is_not_there_yet(autoslim, based):
    settings = ("--flops", "60%", "-r", based, *QUICK)
    assert "taught by model-base.safetensors" in autoslim("run", *settings, "retrain.teacher=weights").stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.weights=mine.pt", "base trains what the supernet starts from, and model.weights names mine.pt"),
        ("base.start=supernet", "start: supernet is what comes of the base network"),
        ("base.teacher=weights", "teacher: weights is what comes of the base network"),
        ("base.start=./model-base.safetensors", "is what comes of the base network"),
        ("base.distill=true", "distill: networks that are trained jointly"),
        ("base.epoch=1", "did you mean epochs?"),
    ],
)
def test_settings_that_make_no_sense_are_refused(refuse, based, override, said):
    assert said in refuse(2, "train-base", "-r", based, override)


def test_other_ways_to_the_base_network_are_named(refuse, based, autoslim):
    assert autoslim("units", "-r", based).stderr.splitlines()[-1].startswith(f"next: autoslim train-base -r {based}")
    assert "give another --name" in refuse(2, "retrain", "--width", "1", "-r", based, "--name", "base")
    said = refuse(4, "evaluate", based / "model-base.safetensors")
    assert said.endswith(f"`autoslim train-base -r {based}` makes one")
    said = refuse(4, "run", "--flops", "60%", "-r", based, "retrain.teacher=model-base.safetensors")
    assert "`weights` stands for it" in said
    without = refuse(2, "train-base", "-r", based, "base=null")
    assert "add `base: {epochs: 20}`" in without


def test_a_recipe_that_was_printed_says_the_same(based):
    assert load_recipe(based, ["base=null", "base.epochs=3"]).base.epochs == 3
    read = load_recipe(based)
    assert read.model.weights == "model-base.safetensors"
    assert type(read).model_validate(read.model_dump()) == read
