"""Build a small SSD of torchvision's parts: its backbone is slimmed, its heads stay."""

from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import Conv2dNormActivation


class Backbone(nn.Sequential):
    """Features (images, 32, height / 8, width / 8) of images in grey."""

    out_channels = (32,)

    def __init__(self, width: int) -> None:
        super().__init__(
            Conv2dNormActivation(1, width, stride=2),
            Conv2dNormActivation(width, 2 * width, stride=2),
            Conv2dNormActivation(2 * width, 4 * width, stride=2),
            Conv2dNormActivation(4 * width, 4 * width),
            Conv2dNormActivation(4 * width, 4 * width),
            Conv2dNormActivation(4 * width, self.out_channels[0], kernel_size=1),
        )


def ssd(num_classes: int, width: int = 10, size: int = 64) -> SSD:
    """Return a detector with one map of features and four boxes at each of its places."""
    boxes = DefaultBoxGenerator([[2]], scales=[0.2, 0.3])
    return SSD(
        Backbone(width),
        boxes,
        (size, size),
        num_classes,
        image_mean=[0.5],
        image_std=[0.5],
        score_thresh=0.05,
        topk_candidates=40,
        detections_per_img=20,
    )
