"""Bring images to a network's input: one definition for every source, wherever its pixels are kept.

What depends on chance and suits a whole batch (padded crops, mirroring, colours) is in augment.py.
"""

import torch
from torch import Tensor

from autoslim_cli.seeds import seed_from

SMALL = 64
"""Inputs up to this height and width show whole images; larger ones lose the borders, as is usual on ImageNet."""
SHOWN = 0.875
"""The share of the resized image's height and width that the central crop of a larger input shows."""


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device. The host goes on meanwhile: an ordinary copy to a GPU waits for its work in flight.

    MPS does not keep what such a copy reads from alive.
    """
    return tensor.to(device, non_blocking=device.type != "mps")


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Return images (..., 1 or 3, height, width) in grey or in colour: (..., channels, height, width)."""
    if images.shape[-3] == channels:
        return images
    if images.shape[-3] != 1:
        from torchvision.transforms.v2 import functional

        images = functional.rgb_to_grayscale(images)
    return images.expand(*images.shape[:-3], channels, *images.shape[-2:])


def fit(images: Tensor, height: int, width: int) -> Tensor:
    """Return uint8 images (..., height, width), resized to cover the input and cropped at the centre: never padded.

    Images that already have the input's size stay as they are.
    """
    rows, columns = images.shape[-2:]
    if (rows, columns) == (height, width):
        return images
    from torchvision.transforms.v2 import functional

    share = 1.0 if max(height, width) <= SMALL else SHOWN
    size = covering(rows, columns, round(height / share), round(width / share))
    fitted: Tensor = functional.center_crop(functional.resize(images, size, antialias=True), [height, width])
    return fitted


def covering(rows: int, columns: int, height: int, width: int) -> list[int]:
    """Return the least size (rows, columns) of the same proportions, rounded down, that covers height and width."""
    if columns * height >= rows * width:
        return [height, columns * height // rows]
    return [rows * width // columns, width]


def by_policy(image: Tensor, policy: str, seed: int) -> Tensor:
    """Return an image (uint8: channels, height, width) varied by a policy of torchvision's, `none` for none."""
    if policy == "none":
        return image
    from torchvision.transforms import v2

    vary = v2.RandAugment() if policy == "randaugment" else v2.TrivialAugmentWide()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(seed, "policy"))
        varied: Tensor = vary(image)
    return varied


def resized_crop(image: Tensor, height: int, width: int, scale: tuple[float, float], seed: int) -> Tensor:
    """Return a random part of an image, resized to (..., height, width): torchvision's RandomResizedCrop.

    `scale` is the range of the part's share of the area. It works on the file's own pixels, so that a small part keeps
    its detail: what comes out cannot be cut from the fitted image.
    """
    from torchvision.transforms import v2

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cropped: Tensor = v2.RandomResizedCrop([height, width], scale=scale, antialias=True)(image)
    return cropped
