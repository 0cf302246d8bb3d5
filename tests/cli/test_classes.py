"""Which output is which class stays with a network: images of other classes, or in another order, are refused."""

import json
import shutil
from types import SimpleNamespace

import pytest
import safetensors
from artifacts import rewritten
from conftest import run_autoslim, write_recipe
from PIL import Image

from autoslim_cli.data.folder import list_images
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.recipe.schema import TaskSettings
from autoslim_cli.stages.project import say_how_it_was_trained

FOLDER = ("data.name=image-folder", "data.path=images", "data.holdout=12", "data.limit=null", "data.workers=0")
SMALL = ("model.classes=3", "train.epochs=1", "train.batch=8", "retrain.epochs=1", "retrain.batch=8", "search.batch=12")
SETTINGS = (*FOLDER, *SMALL)
NAMES = ["bee", "cat", "dog"]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A recipe with a folder of images of three classes, a supernet and a retrained network."""
    recipe = write_recipe(tmp_path_factory.mktemp("classes") / "pets")
    for part, count in (("train", 48), ("test", 12)):
        for number in range(count):
            directory = recipe / "images" / part / NAMES[number % 3]
            directory.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 20 + 70 * (number % 3) + number % 20).save(directory / f"{number:02}.png")
    run_autoslim("train-supernet", "-r", recipe, *SETTINGS)
    run_autoslim("retrain", "--width", "1", "-r", recipe, *SETTINGS)
    return recipe


@pytest.fixture
def pets(trained_once, tmp_path):
    return shutil.copytree(trained_once, tmp_path / "pets")


def facts_of(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["autoslim"])


def renamed(recipe, name, other):
    for part in ("train", "test"):
        (recipe / "images" / part / name).rename(recipe / "images" / part / other)


def test_files_keep_the_names_of_classes_and_no_path(pets, autoslim):
    autoslim("calibrate-bn", "-r", pets, "--widths", "0.5", *SETTINGS)
    for name in ("supernet", "model-width-1", "subnet-width-0.5"):
        facts = facts_of(pets / f"{name}.safetensors")
        assert facts["learned_from"] == {"class_names": NAMES, "mean": [0.5], "std": [0.5]}
        assert str(pets.parent) not in json.dumps(facts)


def test_networks_that_train_jointly_keep_the_names_too(worked, autoslim):
    configs = sorted(worked.glob("arch-*.json"))
    autoslim("retrain", "--joint", *configs, "retrain.epochs=1")
    for path in worked.glob("model-*-joint.safetensors"):
        assert facts_of(path)["learned_from"]["class_names"] == list("0123456789")


def test_info_shows_the_classes_of_a_checkpoint(pets, autoslim, autoslim_json):
    model = pets / "model-width-1.safetensors"
    assert "classes              3   bee, cat, dog" in autoslim("info", model).stdout
    assert autoslim_json("info", model)["learned_from"]["class_names"] == NAMES
    assert "learned_from" not in autoslim_json("info", "autoslim/cifar_resnet", "--classes", "3")


def test_a_renamed_class_is_refused_by_whatever_scores(pets, refuse):
    """`bee` becomes the last class: every label moves, which was measured without a word."""
    renamed(pets, "bee", "wasp")
    for command in (
        ("evaluate", pets / "model-width-1.safetensors"),
        ("search", "--flops", "60%"),
        ("calibrate-bn", "--widths", "0.5"),
        ("retrain", "--width", "0.5", "--from", "supernet"),
        ("retrain", "--width", "0.5", "retrain.teacher=model-width-1.safetensors"),
    ):
        said = refuse(4, *command, "-r", pets, *SETTINGS)
        assert "(class 0 was 'bee', is 'cat')" in said, command
        assert "`autoslim info" in said


def test_another_order_of_the_same_classes_is_refused(pets, refuse):
    model = rewritten(pets / "model-width-1.safetensors", lambda facts: facts["learned_from"]["class_names"].reverse())
    said = refuse(4, "evaluate", model, "-r", pets, *SETTINGS)
    assert "class 0 was 'dog', is 'bee', and the names are the same in another order" in said


def test_a_start_of_other_classes_is_said_and_not_refused(pets, autoslim):
    renamed(pets, "bee", "wasp")
    said = autoslim("retrain", "--width", "1", "--from", "model-width-1.safetensors", "-r", pets, *SETTINGS).stderr
    assert "warning: " in said
    assert "learned other classes (class 0 was 'bee', is 'cat')" in said


def test_a_class_without_test_images_moves_no_label(pets, autoslim):
    shutil.rmtree(pets / "images" / "test" / "bee")
    assert list_images(pets / "images", "test").labels.tolist() == [1] * 4 + [2] * 4
    said = autoslim("evaluate", pets / "model-width-1.safetensors", "-r", pets, *SETTINGS).stderr
    assert "the score says nothing of classes without a test image: bee" in said


def test_files_without_names_are_measured_as_before(pets, autoslim_json):
    model = rewritten(pets / "model-width-1.safetensors", lambda facts: facts.pop("learned_from"))
    renamed(pets, "bee", "wasp")
    assert "top1" in autoslim_json("evaluate", model, "-r", pets, *SETTINGS)


def test_a_normalisation_left_out_and_written_out_are_one(worked, autoslim, autoslim_json, refuse):
    said = ("data.mean=[0.5]", "data.std=[0.5]")
    model = worked / "model-60pct.safetensors"
    assert autoslim_json("evaluate", model, *said) == autoslim_json("evaluate", model)
    for command in (
        ("train-supernet", "-r", worked),
        ("retrain", worked / "arch-60pct.json"),
    ):
        assert "is there and current" in autoslim(*command, *said, "--resume").stderr
    autoslim("search", "--flops", "60%,30%", "-r", worked, *said, "--resume")
    assert "trained on images of data.std=[0.5], but it is [0.25] now" in refuse(
        4, "evaluate", model, "data.std=[0.25]"
    )


def test_the_usual_normalisation_of_detectors_is_no_other_setting(worked):
    rewritten(
        worked / "supernet.safetensors", lambda facts: facts["made_from"]["recipe"]["task"].update(name="detection")
    )
    recipe, said = load_recipe(worked).model_copy(update={"task": TaskSettings(name="detection")}), []
    project = SimpleNamespace(recipe=recipe, directory=worked, reporter=SimpleNamespace(say=said.append))
    say_how_it_was_trained(project)
    assert not said
    changed = recipe.data.model_copy(update={"mean": (0.5,)})
    project.recipe = recipe.model_copy(update={"data": changed})
    say_how_it_was_trained(project)
    assert "data.mean was [0.0], is [0.5]" in said[0]
