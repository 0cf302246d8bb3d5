"""Gradients in place, the sandwich rule, calibration, schedules."""

import copy
import itertools
import random
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoslim_cli.cost.closed_form import flops
from autoslim_cli.errors import UsageError
from autoslim_cli.models.built_in import cifar_resnet
from autoslim_cli.network.rebuild import cut, fresh, runs_in_use
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import RetrainSettings, SupernetSettings, TrainSettings
from autoslim_cli.seeds import python_random
from autoslim_cli.slimming.pointwise import without_strided_pointwise
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.stages.retrain import learning
from autoslim_cli.training.measure import calibrate, evaluate, keeps_initial_statistics
from autoslim_cli.training.optimiser import optimizer_of, schedule
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.sandwich import draw_subnetworks, run_channels, sandwich_step, supernet_step
from autoslim_cli.training.state import Averaged
from autoslim_cli.training.tasks import classification


class Joined(nn.Module):
    """A network with a concat: its second layer reads two runs of channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.c = nn.Conv2d(16, 8, 1, stride=2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1)))
        return self.fc(self.c(x).mean([2, 3]))


def supernet_of(network, shape):
    reading = read(network, shape)
    space = Space.of(reading.table, width=1.5, min_width=0.25, groups=6, divisor=2)
    return Supernet(fresh(network, reading.table, space.largest), reading, space.largest), space


@pytest.mark.parametrize("build", [Joined, lambda: cifar_resnet(5, depth=8, width=8)])
def test_gradients_of_sub_networks_add_up_in_place(build):
    supernet, space = supernet_of(build(), (3, 8, 8))
    images, labels = torch.randn(8, 3, 8, 8), torch.randint(5, (8,))
    others = [space.random(random.Random(1)), space.smallest]
    supernet.zero_gradients()
    places = {name: p.grad.data_ptr() for name, p in supernet.body.named_parameters()}
    with without_strided_pointwise(supernet):
        sandwich_step(
            run_channels(supernet), images, labels, space.largest, others, task=classification(5), distill=True
        )
    assert {name: p.grad.data_ptr() for name, p in supernet.body.named_parameters()} == places

    # The same by plain autograd on the extracted networks, added up at their places.
    expected = {name: torch.zeros_like(p) for name, p in supernet.body.named_parameters()}
    target = None
    for channels in (space.largest, *others):
        network = supernet.extract(channels).train()
        with without_strided_pointwise(network):
            logits = network(images)
        F.cross_entropy(logits, labels if target is None else target).backward()
        target = logits.detach().softmax(1) if target is None else target
        for row in supernet.reading.table.rows:
            layer = supernet.layers[row.name]
            for name, p in network.get_submodule(row.name).named_parameters():
                full = layer.module._parameters[name]
                index = torch.arange(full.numel()).view(full.shape)
                held = indices_in_use(layer, name, index, channels)
                expected[f"{row.name}.{name}"].view(-1)[held] += p.grad.flatten()
    for name, p in supernet.body.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-5)


def indices_in_use(layer, name, index, channels):
    return cut(index, runs_in_use(layer.row, name, index, layer.full, channels)).flatten()


def test_the_sandwich_holds_the_smallest_and_the_right_number():
    def count(channels):
        return sum(channels.values())

    _, space = supernet_of(cifar_resnet(5, depth=8, width=8), (3, 8, 8))
    drawn = draw_subnetworks(space, SupernetSettings(samples=5), count, random.Random(0))
    assert len(drawn) == 5
    assert (drawn[0], drawn[-1]) == (space.largest, space.smallest)
    assert space.largest not in draw_subnetworks(space, SupernetSettings(sandwich=False), count, random.Random(0))
    uniform = draw_subnetworks(space, SupernetSettings(sampling="uniform"), count, random.Random(0))
    ratios = [uniform[1][name] / space.units[name].unit.base for name in ("layer3.0.conv1", "layer3.0.conv2")]
    assert ratios[0] == ratios[1]

    def drawn_totals(sampling):
        settings, rng = SupernetSettings(sampling=sampling, samples=64), random.Random(0)
        draws = [draw_subnetworks(space, settings, count, rng)[1:-1] for _ in range(4)]
        return sorted(count(channels) for some in draws for channels in some)

    totals, alone = drawn_totals("budget"), drawn_totals("per-unit")
    assert totals[10] < alone[10]  # far smaller ones are among them
    assert totals[-10] > alone[-10]


def test_calibration_is_the_exact_average_over_batches():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3))
    network[0].running_mean.fill_(99.0)
    batches = [(torch.randn(16, 3, 4, 4) * 3 + 1, torch.zeros(16)) for _ in range(5)]
    calibrate(network, batches)
    means = torch.stack([images.mean((0, 2, 3)) for images, _ in batches]).mean(0)
    variances = torch.stack([images.var((0, 2, 3)) for images, _ in batches]).mean(0)
    torch.testing.assert_close(network[0].running_mean, means)
    torch.testing.assert_close(network[0].running_var, variances)
    assert network[0].momentum == 0.1
    assert not any(module.training for module in network.modules())
    # Dropout was off: the second layer saw normalised values.
    torch.testing.assert_close(network[2].running_var, torch.ones(3), rtol=0.1, atol=0.1)


def test_a_low_momentum_keeps_initial_statistics():
    slow, fast = nn.Sequential(nn.BatchNorm2d(3, momentum=0.0003)), nn.Sequential(nn.BatchNorm2d(3))
    assert keeps_initial_statistics(slow, 10_000)
    assert not keeps_initial_statistics(slow, 20_000)
    assert keeps_initial_statistics(fast, 40)
    assert not keeps_initial_statistics(fast, 50)
    assert not keeps_initial_statistics(nn.Sequential(nn.BatchNorm2d(3, momentum=None)), 1)
    assert keeps_initial_statistics(nn.Sequential(*fast, *slow), 50)


def test_evaluation_weighs_images_not_batches():
    network = nn.Flatten()
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    score = evaluate(network, [(logits[:2], torch.tensor([0, 0])), (logits[2:], torch.tensor([0]))], classification(2))
    assert score.value == pytest.approx(2 / 3)
    assert score.loss == pytest.approx(F.cross_entropy(logits, torch.zeros(3, dtype=torch.long)).item())


def test_a_task_names_the_outputs_that_it_expected():
    wrong, images = nn.Flatten(), torch.randn(3, 4, 2, 2)
    expected = r"classification expects .* = \(3, 10\), but the network gives \(3, 16\); set model.classes"
    with pytest.raises(UsageError, match=expected):
        evaluate(wrong, [(images, torch.zeros(3, dtype=torch.long))], classification(10))
    labels = torch.zeros(3, dtype=torch.long)
    with pytest.raises(UsageError, match=r"gives \(3, 4, 2, 2\)"):
        sandwich_step(lambda batch, _: batch, images, labels, None, [], task=classification(4), distill=True)


def test_label_smoothing_is_for_labels_alone():
    task, smoothed = classification(3), classification(3, label_smoothing=0.2)
    outputs, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert smoothed.loss(outputs, labels) != task.loss(outputs, labels)
    assert torch.equal(smoothed.losses(outputs, labels), task.losses(outputs, labels))
    target = smoothed.target(outputs)
    entropy = -(target * target.log()).sum(1).mean()
    torch.testing.assert_close(smoothed.distillation(outputs, target), entropy)


def test_weight_decay_spares_depthwise_norms_and_biases():
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Linear(8, 2))
    decayed, spared = optimizer_of(network, TrainSettings(epochs=1)).param_groups
    assert [p.shape for p in decayed["params"]] == [network[0].weight.shape, network[3].weight.shape]
    assert decayed["weight_decay"] == 1e-4
    assert spared["weight_decay"] == 0
    assert len(spared["params"]) == 6


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_weights_stay_as_they_are(optimizer):
    network = cifar_resnet(5, depth=8, width=8)
    network.conv1.requires_grad_(False)
    supernet, space = supernet_of(network, (3, 8, 8))
    before = {name: tensor.clone() for name, tensor in supernet.body.named_parameters()}
    made = optimizer_of(supernet.body, TrainSettings(epochs=1, optimizer=optimizer, lr=0.1, weight_decay=0.1))
    for _ in range(3):
        supernet.zero_gradients()
        supernet.activate(space.largest)
        supernet(torch.randn(4, 3, 8, 8)).square().sum().backward()
        made.step()
    after = dict(supernet.body.named_parameters())
    assert {name for name in before if torch.equal(before[name], after[name])} == {"conv1.weight"}
    assert after["conv1.weight"].grad is None
    held = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for name, parameter in after.items() if name != "conv1.weight"}


class Gained(nn.Conv2d):
    """A convolution with a gain for each output channel."""

    def __init__(self):
        super().__init__(8, 8, 1)
        self.gain = nn.Parameter(torch.ones(8, 1, 1, 1))


def test_weight_decay_spares_scales_of_any_shape():
    network = nn.Sequential(Gained(), nn.PReLU(8), nn.ConvTranspose2d(8, 4, 2))
    network.scale = nn.Parameter(torch.ones(8, 1, 1))  # layer scale, as ConvNeXt has it
    network.position = nn.Parameter(torch.zeros(1, 4, 4))
    decayed, spared = optimizer_of(network, TrainSettings(epochs=1)).param_groups
    assert [id(p) for p in decayed["params"]] == [id(network[0].weight), id(network[2].weight)]
    assert len(spared["params"]) == 6


RATES = {
    ("linear", 0.0): [0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05],
    ("linear", 0.25): [
        *(0.16, 0.32, 0.48, 0.64, 0.8, 0.733333, 0.666667, 0.6, 0.533333, 0.466667, 0.4, 0.333333, 0.266667, 0.2),
        *(0.133333, 0.066667),
    ],
    ("cosine", 0.0): [
        *(0.8, 0.792314, 0.769552, 0.732588, 0.682843, 0.622228, 0.553073, 0.478036, 0.4, 0.321964, 0.246927),
        *(0.177772, 0.117157, 0.067412, 0.030448, 0.007686),
    ],
    ("cosine", 0.25): [
        *(0.16, 0.32, 0.48, 0.64, 0.8, 0.78637, 0.74641, 0.682843, 0.6, 0.503528, 0.4, 0.296472, 0.2, 0.117157),
        *(0.05359, 0.01363),
    ],
    ("step", 0.0): [0.8] * 8 + [0.08] * 4 + [0.008] * 4,
    ("step", 0.25): [0.16, 0.32, 0.48, 0.64] + [0.8] * 4 + [0.08] * 4 + [0.008] * 4,
}
"""Sixteen steps of LinearLR, CosineAnnealingLR and MultiStepLR after a LinearLR, joined by SequentialLR."""


@pytest.mark.parametrize(("kind", "warmup"), RATES)
def test_rates_are_those_of_pytorch_s_schedules(kind, warmup):
    settings = TrainSettings(epochs=1, lr=0.8, schedule=kind, warmup=warmup, milestones=(0.5, 0.75))
    optimizer = optimizer_of(nn.Linear(2, 2), settings)
    scheduler = schedule(optimizer, settings, 16)
    rates = []
    for _ in range(16):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(RATES[kind, warmup], abs=1e-6)


def test_one_cycle_is_pytorch_s():
    settings = TrainSettings(epochs=1, lr=0.8, schedule="one-cycle", warmup=0.3)
    ours = optimizer_of(nn.Linear(2, 2), settings)
    theirs = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    one = schedule(ours, settings, 40)
    other = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.8, total_steps=40, cycle_momentum=False)
    for _ in range(39):
        assert one.get_last_lr()[0] == pytest.approx(other.get_last_lr()[0], rel=1e-5)
        for optimizer, scheduler in ((ours, one), (theirs, other)):
            optimizer.step()
            scheduler.step()
    for warmup, steps in ((0.1, 10), (0.5, 2), (0.25, 4), (0.05, 10)):  # the peak is the first step, or before it
        settings = TrainSettings(epochs=1, lr=0.8, schedule="one-cycle", warmup=warmup)
        rates = schedule(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8), settings, steps)
        assert rates.get_last_lr()[0] == pytest.approx(0.8, rel=0.05)
    with pytest.raises(ValueError, match="one-cycle rises over `warmup`"):
        TrainSettings(epochs=1, schedule="one-cycle")


def test_adamw_spares_what_sgd_spares():
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))
    optimizer = optimizer_of(network, TrainSettings(epochs=1, optimizer="adamw", weight_decay=0.05))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0]


def test_a_fused_optimizer_takes_the_steps_of_the_plain_one_after_gradients_that_overflow():
    """It kept memory as it found it for momentum: fp16 begins with a scale that overflows."""
    weights = {}
    for fused in (False, True):
        network = nn.Linear(64, 64)
        for parameter in network.parameters():
            nn.init.ones_(parameter)
        optimizer = optimizer_of(network, TrainSettings(epochs=1, lr=0.1), fused=fused)
        scaler = torch.amp.GradScaler("cpu")
        for scale in (float("inf"), 1e-3, 1e-3):
            optimizer.zero_grad()
            scaler.scale(network.weight.sum() * scale).backward()  # the bias has no gradient
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
        network(torch.ones(1, 64)).sum().backward()
        optimizer.step()
        weights[fused] = [parameter.detach().clone() for parameter in network.parameters()]
    for plain, one in zip(*weights.values(), strict=True):
        torch.testing.assert_close(plain, one)


def test_averages_follow_the_weights_and_change_places_with_them():
    weights = [torch.zeros(3), torch.zeros(2, 2)]
    averaged = Averaged(weights, 0.9)
    for step in range(1, 200):
        for tensor in weights:
            tensor.fill_(float(step))
        averaged.update(step)
    lag = 0.9 / (1 - 0.9)  # of an exponential average of a ramp
    assert averaged.means[0][0].item() == pytest.approx(199 - lag, abs=0.2)
    averaged.exchange()
    assert weights[1][0, 0].item() == pytest.approx(199 - lag, abs=0.2)
    assert averaged.means[1][0, 0].item() == 199


@pytest.mark.parametrize("kind", ["linear", "cosine", "step"])
def test_the_learning_rate_rises_then_falls(kind):
    settings = TrainSettings(epochs=1, lr=0.5, schedule=kind, warmup=0.1)
    optimizer = optimizer_of(nn.Linear(2, 2), settings)
    scheduler = schedule(optimizer, settings, 100)
    rates = []
    for _ in range(100):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.5)
    assert rates[0] < 0.06
    assert rates[10] == pytest.approx(0.5)
    assert rates[-1] < 0.02
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_strided_pointwise_convolutions_compute_the_same_when_without_strided_pointwise():
    first = nn.Conv2d(4, 8, 1, stride=2, padding="valid")
    network = nn.Sequential(first, nn.Conv2d(8, 8, 3, stride=2)).to(memory_format=torch.channels_last)
    images = torch.randn(2, 4, 9, 9)
    expected = network(images)
    plain = copy.deepcopy(network)
    with without_strided_pointwise(network):
        torch.testing.assert_close(network(images), expected)
        assert "forward" in vars(network[0])
        assert "forward" not in vars(network[1])
    assert "forward" not in vars(network[0])
    torch.testing.assert_close(plain(images), expected)


def test_slim_strided_pointwise_gradients_are_right():
    # oneDNN's own kernel hangs or errs on this shape in channels-last memory (see network/pointwise.py).
    layer = nn.Conv2d(4, 24, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
    images = torch.randn(64, 4, 32, 32).contiguous(memory_format=torch.channels_last)
    with without_strided_pointwise(layer):
        layer(images).pow(2).sum().backward()
    weight = layer.weight.detach().double().flatten(1)
    seen = images[..., ::2, ::2].permute(1, 0, 2, 3).flatten(1).double()
    torch.testing.assert_close(layer.weight.grad.double().flatten(1), 2 * weight @ seen @ seen.T, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("weight", "temperature"), [(0.3, 1.0), (0.3, 3.0), (1.0, 2.0)])
def test_a_lesson_is_weighed_and_softened(weight, temperature):
    student, teacher = cifar_resnet(5, depth=8, width=8).train(), cifar_resnet(5, depth=8, width=8).eval()
    images, labels = torch.randn(8, 3, 8, 8), torch.randint(5, (8,))
    settings = RetrainSettings(epochs=1, teacher_weight=weight, temperature=temperature)
    loss = learning(student, classification(5), settings, teacher)(images, labels, Pass())["loss"]
    with torch.no_grad():
        outputs, target = student(images), F.softmax(teacher(images) / temperature, 1)
        lesson = F.cross_entropy(outputs / temperature, target) * temperature**2
        expected = (1 - weight) * F.cross_entropy(outputs, labels) + weight * lesson
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("distill", "sandwich"), [(True, True), (False, True), (True, False)])
def test_smaller_sub_networks_learn_from_the_largest_where_the_recipe_says_so(distill, sandwich):
    """Inplace distillation, as settings turn it on and off; without the sandwich rule there is no largest."""
    supernet, space = supernet_of(cifar_resnet(5, depth=8, width=8), (3, 8, 8))
    settings = SupernetSettings(distill=distill, sandwich=sandwich)
    images, labels = torch.randn(8, 3, 8, 8), torch.randint(5, (8,))
    supernet.train().zero_gradients()
    task = classification(5)
    losses = supernet_step(supernet, space, settings, partial(flops, supernet.reading.table), task, 0)(
        images, labels, Pass()
    )
    drawn = draw_subnetworks(
        space, settings, partial(flops, supernet.reading.table), python_random(0, "subnetworks", 0)
    )
    run = run_channels(supernet)
    with torch.no_grad():
        first, *others = [run(images, channels) for channels in drawn]
        soft, hard = (
            [F.cross_entropy(outputs, target) for outputs in others] for target in (F.softmax(first, 1), labels)
        )
    found = torch.stack(list(losses.values())[1:])
    torch.testing.assert_close(found, torch.stack(soft if distill and sandwich else hard), rtol=1e-4, atol=1e-5)


def test_momentum_is_the_recipes():
    def of(**settings):
        defaults = optimizer_of(nn.Linear(2, 2), TrainSettings(epochs=1, **settings)).defaults
        return defaults["momentum"], defaults["nesterov"]

    assert of() == (0.9, True)
    assert of(momentum=0.5, nesterov=False) == (0.5, False)
    assert of(momentum=0) == (0, False)
