"""Fold BN into the layers before it: the same function with fewer layers, for deployment."""

import copy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from autoslim_cli.network.reading import Reading

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def with_bn_folded(reading: Reading) -> tuple[nn.Module, int]:
    """Return a copy of a network with each BN folded into the convolution or linear layer before it, and how many were.

    A BN stays where its layer's output is used elsewhere, where either runs more than once, or is of a subclass, which
    may compute something else.
    """
    network = copy.deepcopy(reading.module).eval()
    calls = [node for node in reading.graph.nodes if node.op == "call_module"]
    targets = [str(node.target) for node in calls]
    folded = 0
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or list(before.users) != [node]:
            continue
        names = str(before.target), str(node.target)
        layer, norm = map(network.get_submodule, names)
        if type(norm) not in NORMS or any(targets.count(name) > 1 for name in names):
            continue
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
        if norm.running_mean is None:
            continue
        if isinstance(layer, nn.Linear) and type(layer) is nn.Linear and isinstance(norm, nn.BatchNorm1d):
            fused: nn.Module = fuse_linear_bn_eval(layer, norm)
        elif type(layer) in (*CONVOLUTIONS, *TRANSPOSED):
            assert isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED))
            fused = fuse_conv_bn_eval(layer, norm, transpose=type(layer) in TRANSPOSED)
        else:
            continue
        network.set_submodule(names[0], fused)
        network.set_submodule(names[1], nn.Identity())
        folded += 1
    return network, folded
