"""Tell which layers the rules know."""

from torch import nn

LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.Linear, nn.PReLU),
)
"""Layers with weights that have a rule; a subclass follows the rule of its base."""
KNOWN_TENSORS = frozenset(("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module is a known layer, or a subclass of one that adds no tensors but one value per channel."""
    if not isinstance(module, LAYERS) or any(True for child in module.children() for _ in child.parameters()):
        return False
    weight = module._parameters.get("weight")
    tensors = {**module._parameters, **module._buffers}
    extra = [tensor for name, tensor in tensors.items() if name not in KNOWN_TENSORS and tensor is not None]
    return all(weight is not None and tensor.shape[:1] == weight.shape[:1] for tensor in extra)
