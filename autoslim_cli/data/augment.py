"""Vary a batch of images, each by draws of its own: crop, mirroring, colours."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from autoslim_cli.data.transforms import moved
from autoslim_cli.recipe.schema import AugmentSettings
from autoslim_cli.seeds import seed_from

_DRAWS = ("row", "column", "mirror", "order", "brightness", "contrast", "saturation", "first", "second", "third")
"""What an image draws, whatever the settings: turning one on leaves the draws of the others as they are."""

_GREY = (0.2989, 0.587, 0.114)
"""How much red, green and blue count in grey, as in torchvision."""

# Principal components of ImageNet's colours in [0, 1]: Krizhevsky et al. 2012, section 4.1; the figures are those of
# the Torch implementation of ResNet that everybody has used since.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def vary(images: Tensor, augment: AugmentSettings, seed: int, places: Sequence[int] | None = None) -> Tensor:
    """Return uint8 images (batch, channels, height, width) of equal size, varied at random on their device.

    An image's draws depend on the seed and on its place in the batch alone; `places` are given where the images are a
    part of a batch.
    """
    draws = _draw(seed, range(len(images)) if places is None else places)
    if _crops_or_mirrors(augment):
        images = _crop_and_mirror(images, augment, draws)
    strengths = augment.jitter
    if not any(strengths) and not augment.lighting:
        return images
    colours = images.to(torch.float32, memory_format=torch.contiguous_format)  # planes: grey is a sum of them
    if any(strengths):
        _jitter(colours, strengths, draws)
    if augment.lighting:
        _light(colours, augment.lighting, draws)
    return colours.round_().to(torch.uint8)


def vary_masks(masks: Tensor, augment: AugmentSettings, seed: int, places: Sequence[int], fill: int) -> Tensor:
    """Return the masks (uint8: batch, height, width) of images that `vary` varies: cropped and mirrored as they are.

    Pixels of the padding become `fill`.
    """
    if not _crops_or_mirrors(augment):
        return masks
    return _crop_and_mirror(masks.unsqueeze(1), augment, _draw(seed, places), fill).squeeze(1)


def are_mirrored(augment: AugmentSettings, seed: int, places: Sequence[int]) -> list[bool]:
    """Tell which images at some places of a batch are mirrored, for those who cut and mirror each by itself."""
    found: list[bool] = _is_mirrored(augment, _draw(seed, places)).tolist()
    return found


def _is_mirrored(augment: AugmentSettings, draws: dict[str, Tensor]) -> Tensor:
    return draws["mirror"] < (0.5 if augment.flip else 0.0)


def _crops_or_mirrors(augment: AugmentSettings) -> bool:
    """Tell whether batches are cropped or mirrored; parts of the files' own pixels were, image by image."""
    return augment.crop == "pad" or (augment.flip and not augment.crops_files)


def _draw(seed: int, places: Sequence[int]) -> dict[str, Tensor]:
    """Return what the images at some places of a batch draw, each from 0 to 1: (images,) by name."""
    random = torch.Generator().manual_seed(seed)
    table = torch.rand(max(places) + 1, len(_DRAWS), generator=random, dtype=torch.float64)[list(places)]
    return dict(zip(_DRAWS, table.unbind(1), strict=True))


def erase(images: Tensor, share: float, seed: int, places: Sequence[int]) -> Tensor:
    """Return normalised images (batch, channels, height, width), a share of them with a rectangle set to the mean.

    The rectangle is RandomErasing's: 2 to 33 % of the area, sides 0.3 to 3.3 to one, anywhere that it fits.
    """
    random = torch.Generator().manual_seed(seed_from(seed, "erase"))
    draws = torch.rand(max(places) + 1, 5, generator=random, dtype=torch.float64)[list(places)]
    *_, height, width = images.shape
    area = height * width * (0.02 + 0.31 * draws[:, 1])
    ratio = torch.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * draws[:, 2])
    rows = (area * ratio).sqrt().round().clamp(1, height)
    columns = (area / ratio).sqrt().round().clamp(1, width)
    top = ((height - rows + 1) * draws[:, 3]).floor()
    left = ((width - columns + 1) * draws[:, 4]).floor()
    rows = rows * (draws[:, 0] < share)  # none of an image that is left whole
    # Its four bounds go to the device, not a mask: on a GPU's host that would be a batch of pixels to make and to copy.
    bounds = moved(torch.stack([top, top + rows, left, left + columns], 1).long(), images.device).view(-1, 4, 1, 1, 1)
    first, beyond, start, end = bounds.unbind(1)
    below = torch.arange(height, device=images.device).view(-1, 1)
    across = torch.arange(width, device=images.device)
    return images.masked_fill_((below >= first) & (below < beyond) & (across >= start) & (across < end), 0.0)


def mix(images: Tensor, labels: Tensor, augment: AugmentSettings, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images, each mixed with the one before it by MixUp or CutMix, and soft labels (batch, classes).

    What is mixed how is drawn once for a batch: its parts, given with the image before each, are mixed as the whole is.
    """
    from torchvision.transforms import v2

    kinds = ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
    mixers = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(seed, "mix"))
        mixed: tuple[Tensor, Tensor] = v2.RandomChoice(mixers)(images, labels)
    return mixed


def _crop_and_mirror(images: Tensor, augment: AugmentSettings, draws: dict[str, Tensor], fill: int = 0) -> Tensor:
    """Return images cropped after padding with a value, and mirrored.

    Where both are done they are one gather: every output pixel says which row and column it comes from.
    """
    padding = augment.padding if augment.crop == "pad" else 0
    is_mirrored = _is_mirrored(augment, draws)
    if not padding:
        return torch.where(moved(is_mirrored, images.device).view(-1, 1, 1, 1), images.flip(3), images)
    count, _, height, width = images.shape
    places = 2 * padding + 1
    rows = torch.arange(height) + (draws["row"] * places).long().unsqueeze(1)
    columns = torch.arange(width) + (draws["column"] * places).long().unsqueeze(1)
    columns = torch.where(is_mirrored.unsqueeze(1), columns.flip(1), columns)
    rows, columns = moved(rows, images.device), moved(columns, images.device)
    padded = F.pad(images, (padding,) * 4, value=fill)
    # Indexing around the channel dimension gives (batch, height, width, channels): channels last already.
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    gathered = padded[which, :, rows.unsqueeze(2), columns.unsqueeze(1)]
    return gathered.permute(0, 3, 1, 2)


def _jitter(colours: Tensor, strengths: tuple[float, float, float], draws: dict[str, Tensor]) -> None:
    """Change brightness, contrast and saturation in a random order, as torchvision's ColorJitter does, in place.

    Each is a blend of the image with a plainer one: black, its mean grey, itself in grey. torchvision's functions take
    one factor for all images; here every image of the batch (batch, channels, height, width) in [0, 255] has its own.
    """

    def each(values: Tensor) -> Tensor:
        return moved(values.to(colours.dtype), colours.device).view(-1, 1, 1, 1)

    names = ("brightness", "contrast", "saturation")
    lows, highs = ([max(0.0, 1 + sign * strength) for strength in strengths] for sign in (-1, 1))
    factors = torch.stack([low + (high - low) * draws[n] for n, low, high in zip(names, lows, highs, strict=True)], 1)
    orders = torch.tensor(list(itertools.permutations(range(3))))[(draws["order"] * 6).long()]
    for kind in orders.unbind(1):  # (batch): which of the three comes next
        grey = _grey(colours)
        kinds = each(kind)
        plainer = torch.where(kinds == 2, grey, grey.mean((2, 3), keepdim=True) * (kinds == 1))
        colours.sub_(plainer).mul_(each(factors.gather(1, kind.unsqueeze(1)))).add_(plainer).clamp_(0, 255)


def _grey(colours: Tensor) -> Tensor:
    """Return images in grey: (batch, 1, height, width)."""
    if colours.shape[1] == 1:
        return colours.clone()
    red, green, blue = (colours[:, n : n + 1] for n in range(3))
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def _light(colours: Tensor, deviation: float, draws: dict[str, Tensor]) -> None:
    """Add to every pixel of an image (batch, 3, height, width) in [0, 255] a random amount of each principal colour."""
    uniform = torch.stack([draws[name] for name in ("first", "second", "third")], 1)
    normal: Tensor = torch.special.ndtri(uniform.clamp(min=1e-12))
    amounts = normal * deviation * torch.tensor(_EIGENVALUES, dtype=torch.float64)
    added = 255 * amounts @ torch.tensor(_EIGENVECTORS, dtype=torch.float64).T
    colours.add_(moved(added.to(colours.dtype), colours.device)[:, :, None, None]).clamp_(0, 255)
