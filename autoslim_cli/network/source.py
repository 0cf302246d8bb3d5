"""Say where in a network's own code an operation or an error comes from."""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import fx

NOT_THE_NETWORK = (f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parent}{os.sep}", "<")
"""How names of files begin that hold no network's code: torch's, ours, and what has no file."""

KEY = "source"
"""What a node's place is noted under."""


def note_line(node: fx.Node) -> None:
    """Note at a node, as it is traced, the line of the network's code that runs now: fx's own note takes a second."""
    if place := _first((frame.f_code.co_filename, frame.f_lineno) for frame in _frames()):
        node.meta[KEY] = place


def line_of(node: fx.Node) -> str:
    """Return ` (FILE:LINE)` of a node, nothing if it is not known."""
    return f" ({node.meta[KEY]})" if KEY in node.meta else ""


def line_raised_at(error: BaseException) -> str:
    """Return ` (FILE:LINE: CODE)` of the line of the network's code that an error comes from, if any."""
    frames = list(reversed(traceback.extract_tb(error.__traceback__)))
    place = _first((frame.filename, frame.lineno or 0) for frame in frames)
    code = next((frame.line for frame in frames if f"{frame.filename}:{frame.lineno}" == place), "")
    return f" ({place}: {code})" if place else ""


def _frames() -> Iterator[FrameType]:
    """Yield the frames of the code that runs now, the innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _first(places: Iterable[tuple[str, int]]) -> str:
    """Return the first place that is in a network's code."""
    return next((f"{file}:{line}" for file, line in places if not file.startswith(NOT_THE_NETWORK)), "")
