"""Hold a recipe's images: the training part, the holdout, both, and the test set, each opened when it is first used."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from autoslim_cli.data.checks import unheard
from autoslim_cli.data.folder import Part
from autoslim_cli.data.opening import open_source
from autoslim_cli.data.sets import Images, all_images, split_holdout
from autoslim_cli.data.sources import Source
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, TaskSettings


@dataclass(frozen=True)
class ImageSets:
    """The sets of images of a recipe. Raises UsageError naming the recipe key where data are missing or do not fit."""

    data: DataSettings
    model: ModelSettings
    task: TaskSettings
    seed: int
    directory: Path
    device: torch.device
    warn: Callable[[str], None] = unheard
    """Who is told of what may be meant otherwise, once for each part."""

    def _source(self, part: Part) -> Source:
        where = self.directory, self.device, self.task
        return open_source(part, self.data, self.model, self.seed, *where, self.warn)

    @cached_property
    def _training_source(self) -> Source:
        return self._source("train")

    @cached_property
    def _split(self) -> tuple[Images, Images]:
        return split_holdout(self._training_source, self.data, self.model, self.seed, self.device, self.task)

    @property
    def digest(self) -> str:
        """Return `sha256:...` of what the training images are, the holdout's among them."""
        return self._training_source.digest

    @property
    def training(self) -> Images:
        """Return the training images less the holdout, shuffled."""
        return self._split[0]

    @property
    def holdout(self) -> Images:
        """Return the holdout, shuffled: every score of a search is measured on it."""
        return self._split[1]

    @cached_property
    def all_training(self) -> Images:
        """Return all training images, the holdout's among them."""
        return all_images(self._training_source, self.data, self.model, self.device, self.task)

    @cached_property
    def test(self) -> Images:
        """Return the test images."""
        return all_images(self._source("test"), self.data, self.model, self.device, self.task)
