"""What the library does on a recipe's network and batches is what the commands do, to the bit."""

import json

import pytest
import torch

import autoslim_cli as autoslim
from autoslim_cli.files import checkpoint
from autoslim_cli.models.zoo import build
from autoslim_cli.progress import Reporter, Talk
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.seeds import seed_from
from autoslim_cli.stages.project import open_project


@pytest.fixture
def project(worked):
    return open_project(load_recipe(worked), worked, Reporter(talk=Talk.NOTHING))


class Epochs:
    """The training batches of a recipe, an epoch each time."""

    def __init__(self, project):
        self.images, self.recipe, self.epoch = project.images.training, project.recipe, -1  # one look at the first

    def __len__(self):
        return self.images.steps(self.recipe.train.batch)

    def __iter__(self):
        batches = self.images.training(self.recipe.train.batch, self.recipe.seed, max(self.epoch, 0))
        self.epoch += 1
        return iter([*batches])


def test_a_search_finds_what_the_command_finds(worked, project):
    supernet = autoslim.SlimmableNetwork.load(worked / "supernet.safetensors").at(width=0.5)
    holdout = list(project.images.holdout.evaluation(64))
    before = supernet(holdout[0][0])
    found = autoslim.search(supernet, holdout, flops="60%,30%", settings={"batch": 75})
    for one, name in zip(found, ("60pct", "30pct"), strict=True):
        config = json.loads((worked / f"arch-{name}.json").read_text())
        assert (one.channels, one.cost) == (config["channels"], {n: config["cost"][n] for n in ("flops", "params")})
        assert (one.score.loss, one.score.value, one.images) == (config["found"]["loss"], config["found"]["top1"], 150)
    torch.testing.assert_close(supernet(holdout[0][0]), before, rtol=0, atol=0)  # it runs where it ran


def test_a_supernet_is_kept_as_the_command_keeps_it(worked, tmp_path):
    path = worked / "supernet.safetensors"
    autoslim.SlimmableNetwork.load(path).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_supernet_trains_as_the_command_trains_it(worked, project):
    recipe = project.recipe
    torch.manual_seed(seed_from(recipe.seed, "init"))
    model = build(recipe.model)
    trained = autoslim.train_supernet(
        *(model, torch.zeros(1, *recipe.model.input), Epochs(project)),
        **{"epochs": 3, "lr": 0.1, "min_width": 0.25, "device": "cpu"},
        train={"warmup": 0.1},
        space={"groups": 6, "divisor": 2},
    )
    tensors, _ = checkpoint.load(worked / "supernet.safetensors", checkpoint.SUPERNET, "")
    own = trained.supernet.body.state_dict()
    assert own.keys() == tensors.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in tensors.items())
