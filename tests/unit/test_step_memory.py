"""What a training step keeps, in closed form, is what autograd keeps."""

import pytest
import torch
from torch import nn

from autoslim_cli.cost.step_memory import StepMemory
from autoslim_cli.models.built_in import cifar_resnet, mobilenet_v1
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import TrainSettings


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


@pytest.mark.parametrize("name", NETWORKS)
def test_it_counts_what_autograd_keeps(name):
    network, images = NETWORKS[name]().train(), torch.randn(4, 3, 64, 64)
    memory, settings = StepMemory.of(read(NETWORKS[name](), (3, 64, 64))), TrainSettings(epochs=1)
    others = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), images)}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in others:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    base = memory.reading.table.base
    counted = sum(memory.sizes[node].values(base) for node in memory.saved) * 4 * len(images)
    assert 0.97 < counted / measured < 1.06
    # Gradients that pass through come on top, and weights, their gradients and momentum.
    whole, weights = memory(base, 4, settings), sum(p.nbytes for p in network.parameters())
    assert counted + 3 * weights < whole < 1.3 * counted + 4 * weights
    assert memory(base, 4, settings.model_copy(update={"precision": "bf16"})) < whole


class Parted(nn.Module):
    """A part that is traced, and a head with most of the weights."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = cifar_resnet(10, depth=8, width=8), nn.Linear(10, 100_000)

    def forward(self, images):
        return self.head(self.backbone(images))


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 3), ("adamw", 4)])
def test_it_counts_weights_outside_of_the_part_that_was_traced(optimizer, copies):
    network = Parted()
    memory = StepMemory.of(read(network, (3, 32, 32), part="backbone"))
    bytes_of = memory(memory.reading.table.base, 0, TrainSettings(epochs=1, optimizer=optimizer))
    assert 1 <= bytes_of / (copies * sum(p.nbytes for p in network.parameters())) < 1.1
