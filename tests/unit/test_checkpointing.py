"""Blocks computed anew in backward passes: less memory, and nothing else changes."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from autoslim_cli.cost.forward_memory import Live
from autoslim_cli.cost.step_memory import blocks_to_checkpoint
from autoslim_cli.errors import UsageError
from autoslim_cli.models.built_in import cifar_resnet, conv_blocks, mobilenet_v1
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import TrainSettings
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.training.checkpointing import with_memory
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.sandwich import run_channels, run_switches, sandwich_step
from autoslim_cli.training.tasks import classification

PLAIN, LEAN = (TrainSettings(epochs=1, activation_checkpointing=lean) for lean in (False, True))


def of_torchvision(name):
    def build():
        import torchvision

        return getattr(torchvision.models, name)(num_classes=10)

    return build


NETWORKS = {
    "cifar_resnet": lambda: cifar_resnet(10, depth=8, width=8),
    "mobilenet_v1": lambda: mobilenet_v1(10),
    "mobilenet_v2": of_torchvision("mobilenet_v2"),  # ReLU6 in place, dropout
    "efficientnet_b0": of_torchvision("efficientnet_b0"),  # squeeze-excite, SiLU in place, stochastic depth
    "resnet18": of_torchvision("resnet18"),
}


def batch(count=4, size=64):
    return torch.randn(count, 3, size, size), torch.randint(10, (count,))


def step_of(network):
    """A step of a plain network's training."""

    def step(images, labels, over):
        with over.forward():
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        return {"loss": over.backward(loss, last=True)}

    return step


def state(network):
    return {**network.state_dict(), **{f"{name} gradient": p.grad for name, p in network.named_parameters()}}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, torch.float32) for name in NETWORKS), ("mobilenet_v2", torch.bfloat16)]
)
def test_gradients_and_running_averages_are_the_same_bits(name, precision):
    """In each of two steps BN takes in a batch once, and what is drawn at random is drawn alike, then and after."""
    reading = read(NETWORKS[name](), (3, 64, 64))
    plain = NETWORKS[name]().train()
    lean = copy.deepcopy(plain)
    over = Pass(forward=lambda: torch.autocast("cpu", precision, enabled=precision is not torch.float32))
    steps = [with_memory(step_of(one), one, reading, s)[0] for one, s in ((plain, PLAIN), (lean, LEAN))]
    for seed in range(2):
        given, found = batch(), []
        for step in steps:
            torch.manual_seed(seed)
            found.append((step(*given, over)["loss"], torch.rand(1)))
        assert found[0] == found[1]
    assert_same(state(plain), state(lean))
    assert not any("forward" in vars(module) for module in lean.modules())


@pytest.mark.parametrize("bn", ["shared", "switchable"])
def test_a_supernet_trains_the_same_bits(bn):
    """BN in shared mode keeps no running averages; each switch's own are updated once."""
    reading = read(NETWORKS["cifar_resnet"](), (3, 64, 64))
    full = reading.table.base
    half = {unit: max(1, count // 2) if unit != "fc" else count for unit, count in full.items()}
    switches = {"whole": full, "half": half}
    body = fresh(NETWORKS["cifar_resnet"](), reading.table, full)
    supernets = [
        Supernet(copy.deepcopy(body), reading, full, switches if bn == "switchable" else None).train() for _ in range(2)
    ]
    given = batch()
    for supernet in supernets:
        run, keys = (run_switches, list(switches)) if supernet.switches else (run_channels, list(switches.values()))

        def step(images, labels, over, supernet=supernet, run=run, keys=keys):
            torch.manual_seed(0)
            first, *others = keys
            task = classification(10)
            losses = sandwich_step(run(supernet), images, labels, first, others, task=task, distill=True, over=over)
            return dict(zip("ab", losses, strict=True))

        lean = with_memory(step, supernet.body, reading, LEAN)[0] if supernet is supernets[1] else step
        for _ in range(2):
            lean(*given, Pass())
    assert_same(state(supernets[0]), state(supernets[1]))
    if bn == "switchable":
        kept = supernets[1].private.state_dict()
        assert {int(kept[name]) for name in kept if name.endswith("num_batches_tracked")} == {2}


@pytest.mark.parametrize("name", NETWORKS)
def test_memory_is_what_a_step_really_holds(name):
    """The peak over forward and backward passes of all that is alive, beside weights and their gradients."""
    reading, network = read(NETWORKS[name](), (3, 64, 64)), NETWORKS[name]().train()
    given, base = batch(16), reading.table.base
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [*network.parameters(), *(p.grad for p in network.parameters()), *network.buffers(), *given]
    peaks = []
    for settings in (PLAIN, LEAN):
        step, memory = with_memory(step_of(network), network, reading, settings)
        with Live(before) as live:
            step(*given, Pass())
        peaks.append(live.most)
        beside = 3 * 4 * sum(p.numel() for p in network.parameters())  # weights, gradients, momentum
        assert 1.0 < (memory(base, len(given[0]), settings) - beside) / live.most < 1.3
    assert peaks[1] < 0.8 * peaks[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_kept_from_the_forward_pass_on_is_what_autograd_keeps(name):
    reading, network = read(NETWORKS[name](), (3, 64, 64)), NETWORKS[name]().train()
    images, _ = batch()
    others = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), images)}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in others:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def forward(images, _labels, _over):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(images)
        return {}

    step, memory = with_memory(forward, network, reading, LEAN)
    step(images, None, Pass())
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    values = sum(memory.sizes[node].values(reading.table.base) for node in memory.saved)
    assert 0.9 < values * 4 * len(images) / (measured + images.nbytes) < 1.1


class Rewriting(nn.Module):
    """A block that works in place on what it is given, which the network reads no more."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(nn.SiLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(self.layers(x))


def rewriting():
    """Its blocks cannot run a second time on what they are given, but a stage of them can."""
    stages = [nn.Sequential(nn.Conv2d(8, 8, 1), *(Rewriting(8) for _ in range(3))) for _ in range(4)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def test_a_block_whose_inputs_change_in_place_is_not_run_again():
    reading, plain = read(rewriting(), (3, 16, 16)), rewriting()
    assert [block.name for block in blocks_to_checkpoint(reading)] == ["1", "2", "3", "4"]
    lean, given = copy.deepcopy(plain), batch(size=16)
    for network, settings in ((plain, PLAIN), (lean, LEAN)):
        with_memory(step_of(network), network, reading, settings)[0](*given, Pass())
    assert_same(state(plain), state(lean))


class Shared(nn.Module):
    """One block that runs three times, within a part of a larger network."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x):
        x = self.stem(x)
        return self.block(self.block(self.block(x)))


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = Shared(), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.backbone(x).mean((2, 3)))


def test_a_block_of_a_part_may_run_several_times():
    reading, plain = read(Whole(), (3, 16, 16), part="backbone"), Whole()
    assert [block.name for block in blocks_to_checkpoint(reading)] == ["backbone.block"]
    lean, given = copy.deepcopy(plain), batch(size=16)
    for network, settings in ((plain, PLAIN), (lean, LEAN)):
        torch.manual_seed(0)
        with_memory(step_of(network), network, reading, settings)[0](*given, Pass())
    assert_same(state(plain), state(lean))
    assert int(lean.backbone.block[1].num_batches_tracked) == 3


class Branching(nn.Module):
    """What runs without values in eval mode only."""

    def __init__(self):
        super().__init__()
        self.block = cifar_resnet(10, depth=8, width=8)

    def forward(self, x):
        if self.training and float(x.mean()) > 100:
            x = x / 2
        return self.block(x)


FLAT = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (FLAT, "no blocks of this network save 5%"),
        (conv_blocks(10, depth=4, width=16), "no blocks of this network save 5%"),  # the first holds nearly all
        (Branching(), "does not run in training mode without values"),
    ],
)
def test_where_it_cannot_help_it_is_refused_in_one_line(network, why):
    with pytest.raises(UsageError, match=why) as refused:
        with_memory(step_of(network), network, read(network, (3, 16, 16)), LEAN)
    assert str(refused.value).startswith("train.activation_checkpointing: ")
    assert "leave it out" in str(refused.value)
    assert "\n" not in str(refused.value)


class Named(nn.Module):
    """Blocks that are given what they take by name."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 3), nn.ModuleList(Shared().block for _ in range(3))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(input=x)
        return self.fc(x.mean((2, 3)))


def test_random_numbers_are_kept_for_what_a_block_is_given_by_name(monkeypatch):
    """PyTorch keeps those of the devices of its arguments: on a GPU another mask would be drawn, in silence."""
    seen = []

    def looked(called, *args, **kwargs):
        seen.append(sum(isinstance(one, torch.Tensor) for one in tree_leaves(args)))
        return checkpoint(called, *args, **kwargs)

    monkeypatch.setattr("autoslim_cli.training.checkpointing.checkpoint", looked)
    reading, plain = read(Named(), (3, 16, 16)), Named()
    assert [block.name for block in blocks_to_checkpoint(reading)] == ["blocks.0", "blocks.1", "blocks.2"]
    lean, given = copy.deepcopy(plain), batch(size=16)
    for network, settings in ((plain, PLAIN), (lean, LEAN)):
        torch.manual_seed(0)
        with_memory(step_of(network), network, reading, settings)[0](*given, Pass())
    assert_same(state(plain), state(lean))
    assert seen == [1, 1, 1]
