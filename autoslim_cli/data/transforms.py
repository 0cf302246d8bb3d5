"""Bring images to a network's input: one definition for every source, wherever its pixels are kept.

What depends on chance and suits a whole batch (padded crops, mirroring, colours) is in augment.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from autoslim_cli.recipe.schema import AugmentSettings
from autoslim_cli.seeds import drawing_by, seed_from

SMALL = 64
"""Inputs up to this height and width show whole images; larger ones lose the borders, as is usual on ImageNet."""
SHOWN = 0.875
"""The share of the resized image's height and width that the central crop of a larger input shows."""


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device. The host goes on meanwhile: an ordinary copy to a GPU waits for its work in flight.

    Not to main memory, which would be read before the copy has come, and not to MPS, which does not keep what it reads
    from alive.
    """
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Return images (..., 1 or 3, height, width) in grey or in colour: (..., channels, height, width)."""
    if images.shape[-3] == channels:
        return images
    if images.shape[-3] != 1:
        from torchvision.transforms.v2 import functional

        images = functional.rgb_to_grayscale(images)
    return images.expand(*images.shape[:-3], channels, *images.shape[-2:])


def fit(images: Tensor, height: int, width: int, *, nearest: bool = False) -> Tensor:
    """Return uint8 images (..., height, width), resized to cover the input and cropped at the centre: never padded.

    Images that already have the input's size stay as they are. `nearest`: values are classes, and are not mixed.
    """
    rows, columns = images.shape[-2:]
    if (rows, columns) == (height, width):
        return images
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    size = covering(rows, columns, *shown_size(height, width))
    # NEAREST would take pixels up to half an input's away from those that bilinear means take.
    how = InterpolationMode.NEAREST_EXACT if nearest else InterpolationMode.BILINEAR
    resized = functional.resize(images, size, interpolation=how, antialias=True)
    fitted: Tensor = functional.center_crop(resized, [height, width])
    return fitted


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width that a resized image just covers, of which an input of these is the centre."""
    share = 1.0 if max(height, width) <= SMALL else SHOWN
    return round(height / share), round(width / share)


def centre(images: Tensor, height: int, width: int) -> Tensor:
    """Return the centres of uint8 images, (..., height, width), at their own scale; smaller ones are fitted."""
    rows, columns = images.shape[-2:]
    if rows < height or columns < width:
        return fit(images, height, width)
    top, left = (rows - height) // 2, (columns - width) // 2
    return images[..., top : top + height, left : left + width]


def reduced(images: Tensor, times: int) -> Tensor:
    """Return uint8 images (batch, channels, height, width) that are so many times lower and narrower: bicubic, rounded.

    Antialiased, as Pillow's and MATLAB's reduction is, by which such data sets are made.
    """
    height, width = (side // times for side in images.shape[-2:])
    low = F.interpolate(images.float(), (height, width), mode="bicubic", antialias=True)
    return low.round_().clamp_(0, 255).to(torch.uint8)


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
    with drawing_by(seed_from(seed, "policy")):
        varied: Tensor = vary(image)
    return varied


def random_part(
    image: Tensor, mask: Tensor | None, height: int, width: int, augment: AugmentSettings, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Return a random part of an image (channels, rows, columns), (channels, height, width), and of its mask, if any.

    With `crop: resized` it is torchvision's RandomResizedCrop, of a share of the area within `augment.scale`; with
    `random` RandomCrop, at the image's own scale. It works on the file's own pixels, so that a small part keeps its
    detail: what comes out cannot be cut from the fitted image. Image and mask (rows, columns) are cut alike.
    """
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    crop: v2.Transform = v2.RandomResizedCrop([height, width], scale=augment.scale, antialias=True)
    if augment.crop == "random":
        rows, columns = image.shape[-2:]
        if rows < height or columns < width:  # too small for a part of that size
            return fit(image, height, width), None if mask is None else fit(mask[None], height, width, nearest=True)[0]
        crop = v2.RandomCrop([height, width])
    with drawing_by(seed):
        if mask is None:
            cropped: Tensor = crop(image)
            return cropped, None
        both = crop(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return both[0].as_subclass(Tensor), both[1].as_subclass(Tensor)
