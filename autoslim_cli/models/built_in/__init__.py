"""Build the networks that neither torchvision nor a user brings."""

from collections.abc import Callable

from torch import nn

from autoslim_cli.models.built_in.cifar_resnet import cifar_resnet
from autoslim_cli.models.built_in.cifar_vgg import cifar_vgg
from autoslim_cli.models.built_in.conv_blocks import conv_blocks
from autoslim_cli.models.built_in.edsr import edsr
from autoslim_cli.models.built_in.mobilenet_v1 import mobilenet_v1
from autoslim_cli.models.built_in.resnet9 import resnet9
from autoslim_cli.models.built_in.shufflenet_v1 import shufflenet_v1
from autoslim_cli.models.built_in.unet import unet
from autoslim_cli.models.built_in.wdsr import wdsr

FACTORIES: dict[str, Callable[..., nn.Module]] = {
    "cifar_resnet": cifar_resnet,
    "cifar_vgg": cifar_vgg,
    "conv_blocks": conv_blocks,
    "edsr": edsr,
    "mobilenet_v1": mobilenet_v1,
    "resnet9": resnet9,
    "shufflenet_v1": shufflenet_v1,
    "unet": unet,
    "wdsr": wdsr,
}
