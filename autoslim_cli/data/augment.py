"""Vary a batch of images, each by its own crop and flip."""

import torch
import torch.nn.functional as F
from torch import Tensor

from autoslim_cli.recipe.schema import AugmentSettings


def flip_and_crop(images: Tensor, augment: AugmentSettings, random: torch.Generator) -> Tensor:
    """Return uint8 images (batch, channels, height, width) of the same size, cropped and mirrored at random.

    Crops and mirrors are one gather: every output pixel says which row and column it comes from.
    """
    count, _, height, width = images.shape
    if augment.crop == "none" and not augment.flip:
        return images
    padding = augment.padding if augment.crop == "pad" else 0
    offsets = torch.randint(2 * padding + 1, (2, count, 1), generator=random)
    rows = torch.arange(height) + offsets[0]
    columns = torch.arange(width) + offsets[1]
    if augment.flip:
        mirrored = torch.rand(count, generator=random) < 0.5
        columns[mirrored] = columns[mirrored].flip(1)
    rows, columns = rows.to(images.device), columns.to(images.device)
    padded = F.pad(images, (padding,) * 4)
    # Indexing around the channel dimension gives (batch, height, width, channels): channels last already.
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    gathered = padded[which, :, rows.unsqueeze(2), columns.unsqueeze(1)]
    return gathered.permute(0, 3, 1, 2)
