"""Supernets, searches and trainings on a network and batches of one's own, without a recipe."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, TensorDataset

import autoslim_cli as autoslim
from autoslim_cli.data.opening import DIGITS_FILE
from autoslim_cli.errors import ArtifactError, AutoslimError, BudgetError, UsageError
from autoslim_cli.models.built_in import cifar_resnet
from autoslim_cli.training.tasks import classification

EXAMPLE = torch.zeros(1, 1, 8, 8)


class Net(nn.Module):
    """Two convolutions with a residual, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.fc(x.mean((2, 3)))


def digits(start, stop):
    with np.load(DIGITS_FILE) as arrays:
        images, labels = (torch.from_numpy(arrays[name][start:stop]) for name in ("images", "labels"))
    return TensorDataset(images.unsqueeze(1).float() / 255 - 0.5, labels.long())


def loader(start=0, stop=320, **options):
    return DataLoader(digits(start, stop), **{"batch_size": 64, "shuffle": True, **options})


def trained(network=None, **options):
    settings = {"epochs": 2, "min_width": 0.25, "space": {"divisor": 2}, "device": "cpu", **options}
    torch.manual_seed(1)
    return autoslim.train_supernet(network or Net(), EXAMPLE, loader(), **settings)


def test_units_and_costs_are_told():
    found = autoslim.units(Net(), EXAMPLE, space={"divisor": 2})
    assert [unit["name"] for unit in found if unit["pinned"] is None] == ["stem", "inner"]
    stem, inner = repr(found).splitlines()[1:3]
    assert stem.split() == ["stem", "8", "2..12", "2", "stem,", "outer"]
    assert inner.split() == ["inner", "16", "2..24", "2", "inner"]
    assert repr(found).splitlines()[-1].startswith("fc stays at 10: ")
    counted = autoslim.count(Net(), EXAMPLE)
    assert counted == (64 * 9 * (8 + 8 * 16 + 16 * 8) + 80, sum(p.numel() for p in Net().parameters()))
    assert counted.flops == 152144


@pytest.mark.parametrize(("wrap", "inner"), [(nn.DataParallel, "module"), (torch.compile, "_orig_mod")])
def test_a_wrapped_network_is_told_to_be_unwrapped(wrap, inner):
    wrapped = wrap(Net())
    with pytest.raises(UsageError, match=rf"its \.{inner}$"):
        autoslim.units(wrapped, EXAMPLE)
    assert len(autoslim.units(getattr(wrapped, inner), EXAMPLE)) == 3


def test_the_whole_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, lines = Net(), []
    before, drawn = [p.clone() for p in model.parameters()], torch.get_rng_state()
    supernet = autoslim.train_supernet(
        *(model, EXAMPLE, loader()),
        **{"epochs": 2, "min_width": 0.25, "space": {"divisor": 2}, "device": "cpu"},
        holdout=loader(320, 480),
        progress=lines.append,
    )
    assert all(map(torch.equal, before, model.parameters()))
    assert ["holdout top-1 largest" in line for line in lines if "epoch" in line] == [True, True]
    half, third = autoslim.search(supernet, loader(320, 480), flops="50%,33%")
    for found, share in ((half, 0.5), (third, 0.33)):
        assert 0.9 * share < found.cost["flops"] / 152144 <= share
        assert autoslim.count(found.network(), EXAMPLE) == (found.cost["flops"], found.cost["params"])
    small = autoslim.retrain(half, loader(), epochs=2, device="cpu")
    assert not small.training
    assert torch.equal(torch.get_rng_state(), drawn)
    cut = half.network("supernet")
    autoslim.calibrate(cut, loader())
    assert autoslim.evaluate(cut, loader(320, 480)).loss == pytest.approx(half.score.loss, rel=0.3)
    # Nothing was written until this.
    assert not list(tmp_path.iterdir())
    half.save("arch.json")
    again = autoslim.rebuild(Net(), EXAMPLE, "arch.json")
    assert {name: t.shape for name, t in again.state_dict().items()} == {
        n: t.shape for n, t in cut.state_dict().items()
    }
    assert autoslim.rebuild(Net(), EXAMPLE, half.channels).fc.in_features == half.channels["stem"]


def test_why_a_unit_is_capped_is_told():
    class Cut(Net):
        def forward(self, x):
            return self.fc(self.norm(self.stem(x))[:, :8].relu().mean((2, 3)) + 0 * self.outer(self.inner(x)).mean())

    network = Cut()
    network.inner = nn.Conv2d(1, 16, 3, padding=1)
    found = autoslim.units(network, EXAMPLE, space={"divisor": 2})
    assert found[0]["supernet"] == found[0]["base"] == 8
    assert "stem has 8 at most: getitem takes the first 8 channels, all at base width" in repr(found).splitlines()


def test_results_depend_on_the_seed_alone():
    def weights(**options):
        supernet = trained(epochs=1, **options)
        (found,) = autoslim.search(supernet, loader(320, 480), params="60%")
        small = autoslim.retrain(found, loader(), epochs=1, device="cpu")
        return found.channels, torch.cat([p.flatten() for p in (*supernet.parameters(), *small.parameters())])

    channels, first = weights()
    torch.manual_seed(5)
    other_channels, second = weights()
    assert channels == other_channels
    assert torch.equal(first, second)
    assert not torch.equal(first, weights(seed=1)[1][: len(first)])


def test_activation_checkpointing_trains_the_same():
    found = []
    for lean in (False, True):
        settings = {"activation_checkpointing": lean}
        torch.manual_seed(1)
        network = cifar_resnet(10, depth=8, width=8, in_channels=1)
        trained = autoslim.retrain(network, loader(), epochs=1, settings=settings, device="cpu")
        wide = autoslim.train_supernet(trained, EXAMPLE, loader(), epochs=1, train=settings, device="cpu")
        found.append({**trained.state_dict(), **wide.state_dict(prefix="wide")})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    with pytest.raises(UsageError, match="no blocks of this network save"):
        autoslim.retrain(Net(), loader(), epochs=1, settings={"activation_checkpointing": True}, device="cpu")


def test_an_optimizer_and_a_schedule_of_ones_own():
    rates = []

    def falling(optimizer, steps):
        assert steps == 10
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates.append(step) or 0.0)

    torch.manual_seed(2)
    model = Net()
    before = [p.clone() for p in model.parameters()]
    network = autoslim.retrain(
        *(model, loader()), epochs=2, optimizer=lambda p: torch.optim.Adam(p, lr=1.0), schedule=falling, device="cpu"
    )
    assert network is model
    assert rates == list(range(11))
    assert all(map(torch.equal, before, network.parameters()))  # at a rate of zero


def test_schedules_of_schedules_average_and_those_that_wait_for_scores_are_refused():
    def chained(optimizer, _):
        return schedules.ChainedScheduler([schedules.ConstantLR(optimizer), schedules.ExponentialLR(optimizer, 0.9)])

    words = {"epochs": 1, "optimizer": lambda p: torch.optim.SGD(p, lr=0.01), "device": "cpu"}
    assert autoslim.retrain(Net(), loader(), schedule=chained, settings={"ema": 0.9}, **words)
    with pytest.raises(UsageError, match="schedule: ReduceLROnPlateau waits for scores"):
        autoslim.retrain(Net(), loader(), schedule=lambda o, _: schedules.ReduceLROnPlateau(o), **words)


def test_statistics_of_one_epoch_are_measured_where_a_holdout_may_end_a_training(monkeypatch):
    model, looks = Net(), []
    model.norm.momentum = 0.01  # which 5 steps leave at their initial values, and 1,000 do not
    kept = {"epochs": 200, "lr": 1e-4, "device": "cpu"}
    monkeypatch.setattr("autoslim_cli.training.measure.calibrate", lambda *_: looks.append(None))
    autoslim.retrain(model, loader(), holdout=loader(320, 480), settings={"patience": 1}, **{**kept, "lr": 1e-9})
    assert looks


def test_trained_weights_are_a_start_but_no_initialisation():
    supernet = trained(start="weights", width=1.0, lr=1e-9)
    torch.manual_seed(1)
    network, plain = supernet.supernet.extract(supernet.space.largest), Net()
    images = torch.randn(4, 1, 8, 8)
    for one in (network, plain.eval()):
        autoslim.calibrate(one, loader(shuffle=False))
    torch.testing.assert_close(network(images), plain(images), atol=1e-4, rtol=1e-4)  # sorted, and otherwise the same
    (found,) = autoslim.search(supernet, loader(320, 480), flops="50%")
    with pytest.raises(UsageError, match="rebuild"):
        autoslim.retrain(found, loader(), epochs=1)
    assert autoslim.retrain(found.network("supernet"), loader(), epochs=1, teacher=plain, device="cpu")


def test_what_is_measured_or_teaches_stays_as_it_was():
    torch.manual_seed(1)
    network = Net()
    network.fc.eval()
    before, drawn = copy.deepcopy(network), torch.get_rng_state()
    autoslim.retrain(Net(), loader(), epochs=1, teacher=network, device="cpu")
    torch.set_rng_state(drawn)
    autoslim.evaluate(network, loader())
    assert all(map(torch.equal, before.state_dict().values(), network.state_dict().values()))
    autoslim.calibrate(network, loader())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [module.training for module in network.modules()] == [module.training for module in before.modules()]
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.stem.weight.is_contiguous()


@pytest.mark.parametrize("noise", [1e-3, 1e-10])
def test_a_task_whose_losses_are_noise_is_told(noise):
    """Cost alone would steer its search, and nothing else would show it."""
    plain, lines = classification(10), []
    task = replace(plain, losses=lambda outputs, labels: 1e-6 * plain.losses(outputs, labels), noise=(noise, noise))
    budget = {"flops": "20%", "settings": {"stride": 0.0}}
    autoslim.search(trained(epochs=1), loader(320, 480), task=task, progress=lines.append, **budget)
    told = [line for line in lines if "that the task calls noise" in line]
    assert len(told) == (noise == 1e-3)
    assert all("steps changed less than the 0.001 that" in line for line in told)


class Even(Net):
    """The same with two units of as many channels."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)


def test_channels_of_tied_units_are_spelled_out(tmp_path):
    supernet = trained(Even(), epochs=1, space={"divisor": 2, "tie": [["stem", "inner"]]})
    (found,) = autoslim.search(supernet, loader(320, 480), flops="50%")
    assert found.channels["stem"] == found.channels["inner"]
    found.save(tmp_path / "arch.json")
    for channels in (found.channels, tmp_path / "arch.json"):
        assert autoslim.count(autoslim.rebuild(Even(), EXAMPLE, channels), EXAMPLE).flops == found.cost["flops"]
    for network in (found.network(), found.network("supernet"), supernet.at(channels=found.channels)):
        assert network(EXAMPLE).shape == (1, 10)


@pytest.mark.parametrize(
    "written", [lambda labels: labels.int(), lambda labels: nn.functional.one_hot(labels, 10).float()]
)
def test_labels_are_taken_as_they_are_written(written):
    def batches(some):
        return [(images, written(labels)) for images, labels in some]

    network, images = Net(), loader(320, 480)
    assert autoslim.evaluate(network, batches(images)) == autoslim.evaluate(network, images)
    usual, other = (
        autoslim.retrain(copy.deepcopy(network), some, epochs=1, device="cpu").fc.weight
        for some in (loader(shuffle=False), batches(loader(shuffle=False)))
    )
    torch.testing.assert_close(usual, other)


class Shrinking:
    """Fewer batches each time."""

    def __init__(self):
        self.left = [*loader(), None]

    def __len__(self):
        return 5

    def __iter__(self):
        self.left.pop()
        return iter([*self.left])


class Flat(Net):
    def forward(self, x):
        return super().forward(x).mean(1)


BY_TRAINING = {
    "a generator": (Net, lambda: (one for one in loader()), "gives its batches once"),
    "no batches": (Net, list, "it is empty"),
    "no loader": (Net, lambda: 3, "not int"),
    "fewer batches": (Net, Shrinking, "4 batches in epoch 1, where 5 were expected"),
    "other images": (Net, lambda: [(torch.zeros(4, 1, 9, 9), torch.zeros(4))], r"\(1, 9, 9\), but .* \(1, 8, 8\)"),
    "bytes": (Net, lambda: [(torch.zeros(4, 1, 8, 8).byte(), torch.zeros(4))], "uint8"),
    "no pairs": (Net, lambda: [torch.zeros(4, 1, 8, 8)], "a batch is a pair"),
    "labels of images": (Net, lambda: [(torch.zeros(4, 1, 8, 8), torch.zeros(4, 8, 8))], "labels of shape"),
    "labels of other classes": (Net, lambda: [(torch.zeros(4, 1, 8, 8), torch.full((4,), 10))], "labels from 0 to 9"),
    "floats": (Net, lambda: [(torch.zeros(4, 1, 8, 8), torch.zeros(4))], "labels of whole numbers"),
    "no logits": (Flat, loader, "no logits"),
}


@pytest.mark.parametrize(("network", "batches", "said"), BY_TRAINING.values(), ids=BY_TRAINING)
def test_a_training_says_in_a_line_what_does_not_do(network, batches, said):
    with pytest.raises(AutoslimError, match=said) as raised:
        autoslim.train_supernet(network(), EXAMPLE, batches(), epochs=2, device="cpu")
    assert "\n" not in str(raised.value)


def test_settings_and_budgets_are_refused_in_a_line():
    supernet = trained(epochs=1)
    for holdout, budget, kind, said in (
        (loader(320, 480), {"flops": "1K"}, BudgetError, "out of reach: this supernet goes from"),
        (loader(320, 480), {}, UsageError, "name a budget"),
        (loader(320, 480), {"flops": "50%", "settings": {"strategie": "lazy"}}, UsageError, "did you mean strategy"),
        ([], {"flops": "50%"}, UsageError, "holdout: it is empty"),
    ):
        with pytest.raises(kind, match=said):
            autoslim.search(supernet, holdout, **budget)
    for given, said in (
        ({"train": {"batch": 3}}, "the loader's"),
        ({"train": {"keep": "best"}}, "holdout="),
        ({"train": {"epochs": 3}}, "train: epochs is an argument"),
        ({"train": {"lr": 3}}, "train: lr is an argument"),
        ({"supernet": {"width": 2.0}}, "supernet: width is an argument"),
        ({"width": 0.1}, "min_width 0.15 must be below width 0.1"),
        ({"device": "abacus"}, "abacus"),
        ({"start": "weight"}, "scratch or weights, not 'weight'"),
    ):
        with pytest.raises(UsageError, match=said):
            autoslim.train_supernet(Net(), EXAMPLE, loader(), epochs=1, **given)
    with pytest.raises(UsageError, match="settings: lr is an argument"):
        autoslim.retrain(Net(), loader(), epochs=1, settings={"lr": 3})
    with pytest.raises(UsageError, match="example"):
        autoslim.units(Net(), torch.zeros(8, 8))
    with pytest.raises(UsageError, match="there are none"):
        autoslim.calibrate(Net(), [])


@pytest.mark.parametrize(
    "options",
    [
        {"start": "weights"},
        {"space": {"divisor": 2, "tie": [["stem", "inner"]]}},
        {"supernet": {"bn": "switchable", "widths": [0.5, 1.0]}},
    ],
)
def test_a_supernet_is_kept(tmp_path, options):
    path, images, network = tmp_path / "supernet.safetensors", torch.randn(4, 1, 8, 8), Even()
    supernet = trained(network, epochs=1, **options)
    for width in (0.5, 1.0) if supernet.network.switches else (0.5,):
        autoslim.calibrate(supernet.at(width=width), loader(shuffle=False))
    supernet.save(path)
    built, drawn = Even(), torch.get_rng_state()
    again = autoslim.SlimmableNetwork.load(path, model=built)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert built.stem.out_channels == 8
    torch.testing.assert_close(again.at(width=0.5)(images), supernet.at(width=0.5)(images))
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    if not supernet.network.switches:
        assert again.space == supernet.space
        (one,), (other,) = (autoslim.search(of, loader(320, 480), flops="50%") for of in (supernet, again))
        assert (one.channels, one.score) == (other.channels, other.score)
        assert other.network()(images).shape == (4, 10)
    with pytest.raises(ArtifactError, match="made with another network"):
        autoslim.SlimmableNetwork.load(path, model=Net())
    with pytest.raises(UsageError, match=r"a network, an nn\.Module, was expected, not type; call it"):
        autoslim.SlimmableNetwork.load(path, model=Even)
    with pytest.raises(UsageError, match="would call test_library:Even"):
        autoslim.SlimmableNetwork.load(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match="damaged"):
        autoslim.SlimmableNetwork.load(path, model=Even())


class Pooled(Net):
    """The same with a BN behind the pooling, of one value per channel and image."""

    def __init__(self):
        super().__init__()
        self.late = nn.BatchNorm1d(10)

    def forward(self, x):
        return self.late(super().forward(x))


OF_ANOTHER_KIND = {
    "a network to search": (lambda: autoslim.search(Net(), loader(), flops="50%"), "supernet: what .* not Net$"),
    "a class to train": (lambda: autoslim.train_supernet(Net, EXAMPLE, loader(), epochs=1), "not type; call it"),
    "a function to read": (lambda: autoslim.units(Net().forward, EXAMPLE), "model: a network, an nn.Module"),
    "a function to count": (lambda: autoslim.count(Net().forward, EXAMPLE), "not method"),
    "a function to retrain": (lambda: autoslim.retrain(Net, loader(), epochs=1), "network: a network"),
    "a teacher": (lambda: autoslim.retrain(Net(), loader(), epochs=1, teacher=Net), "teacher: a network"),
    "a function to evaluate": (lambda: autoslim.evaluate(Net, loader()), "network: a network"),
    "a function to calibrate": (lambda: autoslim.calibrate(Net, loader()), "network: a network"),
    "a function to rebuild": (lambda: autoslim.rebuild(Net, EXAMPLE, {}), "model: a network"),
    "a list of channels": (lambda: autoslim.rebuild(Net(), EXAMPLE, [8, 16]), "channels: counts by unit"),
    "a part of a channel": (lambda: autoslim.rebuild(Net(), EXAMPLE, {"stem": 8.0, "inner": 9}), "'stem' has 8.0"),
    "no count": (lambda: autoslim.rebuild(Net(), EXAMPLE, {"stem": 8, "inner": None}), "'inner' has None"),
    "a supernet to retrain": (lambda: autoslim.retrain(trained(epochs=1), loader(), epochs=1), "network: a supernet"),
    "frozen": (lambda: autoslim.retrain(Net().requires_grad_(False), loader(), epochs=1), "all weights .* are frozen"),
    "a task's name": (lambda: autoslim.evaluate(Net(), loader(), "classification"), "task: a Task was expected"),
    "a single image": (lambda: autoslim.retrain(Pooled(), loader(0, 65), epochs=1, device="cpu"), "too small for BN"),
    "single images": (lambda: autoslim.calibrate(Pooled(), loader(batch_size=1)), "drop_last"),
}


@pytest.mark.parametrize(("use", "said"), OF_ANOTHER_KIND.values(), ids=OF_ANOTHER_KIND)
def test_what_is_of_another_kind_is_refused_in_a_line(use, said):
    with pytest.raises(UsageError, match=said) as raised:
        use()
    assert "\n" not in str(raised.value)


def test_budgets_may_be_numbers_and_lists():
    supernet = trained(epochs=1)
    assert autoslim.search(supernet, loader(320, 480), flops=76072) == autoslim.search(
        supernet, loader(320, 480), flops="76072"
    )
    found = autoslim.search(supernet, loader(320, 480), flops=[60e3, "50%"])
    assert [one.budget for one in found] == ["flops<=50%", "flops<=60000"]
    with pytest.raises(UsageError, match="is not a budget"):
        autoslim.search(supernet, loader(320, 480), flops={"flops": 3})


def test_memory_may_be_a_number_of_bytes():
    supernet = trained(epochs=1)
    (found,) = autoslim.search(supernet, loader(320, 480), activation_memory=3000, flops="90%")
    assert found.cost["activation_memory"] <= 3000


@pytest.mark.parametrize("options", [{}, {"supernet": {"bn": "switchable", "widths": [0.5, 1.0]}}])
def test_a_supernet_moves_as_a_whole(options):
    """The views that it computed with stayed where they were."""
    supernet = trained(epochs=1, **options)
    autoslim.calibrate(supernet.at(width=0.5), loader(shuffle=False))
    images = torch.randn(4, 1, 8, 8)
    before = supernet(images)
    assert supernet.double()(images.double()).dtype == torch.float64
    torch.testing.assert_close(supernet.float()(images), before)
    assert supernet.to("meta")(images.to("meta")).is_meta


def test_counting_leaves_every_mode_as_it_was():
    network = Net().train()
    network.norm.eval()
    autoslim.count(network, EXAMPLE)
    assert (network.training, network.norm.training) == (True, False)


def test_batches_of_several_sizes_cannot_be_scored_together():
    several = [(torch.randn(4, 1, size, size), torch.zeros(4, dtype=torch.long)) for size in (8, 10)]
    with pytest.raises(UsageError, match=r"batches of several sizes .* \(4, 1, 10, 10\), \(4, 1, 8, 8\)"):
        autoslim.search(trained(epochs=1), several, flops="60%")


def test_every_public_name_is_there():
    for name in autoslim.__all__:
        assert callable(getattr(autoslim, name)) or name == "__version__"
