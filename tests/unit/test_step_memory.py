"""What a training step keeps, in closed form, is what autograd keeps."""

import pytest
import torch

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
    counted = memory.saved_values(base) * 4 * len(images)
    assert 0.97 < counted / measured < 1.06
    # Gradients that pass through come on top, and weights, their gradients and momentum.
    whole, weights = memory(base, 4, settings), sum(p.nbytes for p in network.parameters())
    assert counted + 3 * weights < whole < 1.3 * counted + 4 * weights
    assert memory(base, 4, settings.model_copy(update={"precision": "bf16"})) < whole
