"""What a training step keeps, in closed form, is what autograd keeps."""

import pytest
import torch
from torch import nn

from autoslim_cli.cost.forward_memory import Live, values_held
from autoslim_cli.cost.step_memory import StepMemory
from autoslim_cli.models.built_in import cifar_resnet, mobilenet_v1
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import RetrainSettings, TrainSettings
from autoslim_cli.stages.retrain import learning
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.tasks import classification


def torchvision_network(name):
    def build():
        import torchvision

        return getattr(torchvision.models, name)()

    return build


NETWORKS = {
    "cifar_resnet": lambda: cifar_resnet(10, depth=8, width=8),
    "mobilenet_v1": lambda: mobilenet_v1(10),
    "mobilenet_v2": torchvision_network("mobilenet_v2"),  # ReLU6 in place
    "efficientnet_b0": torchvision_network("efficientnet_b0"),  # squeeze-excite, SiLU in place, stochastic depth
    "resnet18": torchvision_network("resnet18"),  # max pooling
}


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "fp32") for name in NETWORKS), ("mobilenet_v1", "bf16"), ("resnet18", "bf16")]
)
def test_it_counts_what_autograd_keeps(name, precision):
    network, images = NETWORKS[name]().train(), torch.randn(4, 3, 64, 64)
    memory = StepMemory.of(read(NETWORKS[name](), (3, 64, 64)))
    settings, value = TrainSettings(epochs=1, precision=precision), 2 if precision == "bf16" else 4
    others = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), images)}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in others:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    arithmetic = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), arithmetic:
        network(images)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    base, weights = memory.reading.table.base, sum(p.nbytes for p in network.parameters())
    copies = weights // 2 if precision == "bf16" else 0  # of the weights, in bf16
    counted = sum(memory.sizes[node].values(base) for node in memory.saved) * value * len(images)
    assert 0.97 < (counted + copies) / measured < 1.06
    # Gradients that pass through come on top, and weights, their gradients and momentum.
    whole = memory(base, 4, settings)
    assert counted + 3 * weights + copies < whole < 1.3 * counted + 4 * weights + copies
    others = {"fp32": "bf16", "bf16": "fp32"}
    other = memory(base, 400, settings.model_copy(update={"precision": others[precision]}))
    assert (other < memory(base, 400, settings)) == (precision == "fp32")


def test_a_teachers_forward_pass_counts_beside_what_is_kept():
    """Its tensors are alive when the network's own forward pass is over."""
    network, teacher = cifar_resnet(10, depth=8, width=8).train(), cifar_resnet(10, depth=8, width=48).eval()
    images, labels = torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
    settings, memory = RetrainSettings(epochs=1), StepMemory.of(read(network, (3, 32, 32)))
    base, values = memory.reading.table.base, values_held(teacher, [(3, 32, 32)])
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients = [p.grad for p in network.parameters()]
    before = [*network.parameters(), *gradients, *network.buffers(), *teacher.parameters(), *teacher.buffers()]
    peaks = []
    for taught_by in (None, teacher):
        step = learning(network, classification(10), settings, taught_by)
        with Live([*before, images, labels]) as live:
            step(images, labels, Pass())
        beside = 3 * 4 * sum(p.numel() for p in network.parameters())
        counted = memory(base, len(images), settings, values if taught_by else 0) - beside
        assert 1.0 < counted / live.most < 1.2
        peaks.append(live.most)
    assert peaks[1] > 1.5 * peaks[0]


class Parted(nn.Module):
    """A part that is traced, and a head with most of the weights."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = cifar_resnet(10, depth=8, width=8), nn.Linear(10, 100_000)

    def forward(self, images):
        return self.head(self.backbone(images))


@pytest.mark.parametrize(
    ("optimizer", "precision", "copies"), [("sgd", "fp32", 3), ("adamw", "fp32", 4), ("sgd", "bf16", 3.5)]
)
def test_it_counts_weights_outside_of_the_part_that_was_traced(optimizer, precision, copies):
    network = Parted()
    memory = StepMemory.of(read(network, (3, 32, 32), part="backbone"))
    settings = TrainSettings(epochs=1, optimizer=optimizer, precision=precision)
    bytes_of = memory(memory.reading.table.base, 0, settings)
    assert 1 <= bytes_of / (copies * sum(p.nbytes for p in network.parameters())) < 1.1
