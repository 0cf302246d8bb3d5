"""Decode image files."""

import io
import struct
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from autoslim_cli.errors import AutoslimError

_GREY = ("1", "L", "LA")
MOST_PIXELS = 2**26
"""Pixels of an image: more than cameras of 60 megapixels make. Decoding as many takes some 0.5 GB in each worker."""


@cache
def _pillow() -> ModuleType:
    """Return Pillow's Image, which refuses images that it would warn of: they are more than are decoded here."""
    from PIL import Image

    warnings.simplefilter("error", Image.DecompressionBombWarning)
    return Image


def decode_mask(path: Path) -> Tensor:
    """Return a mask file as uint8 (height, width): the class of every pixel, of a palette its index.

    Raises AutoslimError naming the file if it is damaged, or has colours instead of one value for each pixel.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P"):
                raise ValueError(f"pixels of mode {image.mode}, where a mask has one number of 8 bits for each")
            return torch.from_numpy(np.array(image).astype(np.uint8))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise AutoslimError(f"{path} cannot be read as a mask ({reason}); remove it or write it again") from None


def decode(path: Path | str, data: bytes | None = None) -> Tensor:
    """Return an image file as uint8 (1 or 3, height, width): grey stays grey, any other colours become RGB.

    `data` is the file's content, where it lies within another. Of 16 bits the upper 8 count. Transparency is dropped,
    as torchvision's ImageFolder drops it: the colours are those that the file states. Raises AutoslimError naming the
    file if it is damaged, no image, too large, or of pixels without a range.
    """
    image_module = _pillow()
    bombs = image_module.DecompressionBombError, image_module.DecompressionBombWarning
    try:
        with image_module.open(path if data is None else io.BytesIO(data)) as image:
            if (pixels := image.width * image.height) > MOST_PIXELS:
                raise ValueError(f"{pixels:,} pixels, of which {MOST_PIXELS:,} at most are decoded: make it smaller")
            # Pillow calls the 16 bits of some formats 32: nothing else has such pixels there.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
                return torch.from_numpy((np.asarray(image).astype(np.int32) >> 8).astype(np.uint8)).unsqueeze(0)
            if image.mode in ("I", "F"):
                raise ValueError("32-bit pixels, whose range no one states")
            if image.mode in _GREY:
                return torch.from_numpy(np.array(image.convert("L"))).unsqueeze(0)
            # Pillow warns of transparent palettes that skip RGBA.
            opaque = image.convert("RGBA") if "transparency" in image.info else image
            colours = opaque if opaque.mode == "RGB" else opaque.convert("RGB")
            return torch.from_numpy(np.array(colours)).permute(2, 0, 1)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, *bombs) as error:
        reason = " ".join(str(error).split())
        raise AutoslimError(f"{path} cannot be read as an image ({reason}); remove it or write it again") from None
