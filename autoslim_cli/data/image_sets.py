"""Hold a recipe's images: the training part, the holdout, both, and the test set, each opened when it is first used."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from autoslim_cli.data.checks import unheard
from autoslim_cli.data.folder import Part
from autoslim_cli.data.opening import open_source
from autoslim_cli.data.own import OwnSource
from autoslim_cli.data.sets import Images, all_images, split_holdout
from autoslim_cli.data.sources import ArraySource, CachedSource, FileSource, Source
from autoslim_cli.errors import UsageError
from autoslim_cli.files.learned import difference_of_classes, kept_names
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, TaskSettings, Values, normalisation


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

    @cached_property
    def class_names(self) -> list[str]:
        """Return what the classes of the training images are called; nothing where that is not known."""
        return self._names(self._training_source)

    def normalised_by(self, part: str = "train") -> tuple[Values, Values] | None:
        """Return mean and deviation by which pixels become inputs; None where a data set gives inputs as they are."""
        source = self._training_source if part == "train" else self.test.source
        if isinstance(source, OwnSource) and not source.of_pixels:
            return None
        return normalisation(self.data.mean, self.data.std, of_boxes=self.task.of_boxes)

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

    @cached_property
    def test_class_names(self) -> list[str]:
        """Return what the classes of the test images are called; nothing where that is not known."""
        return self._names(self.test.source)

    def _names(self, source: Source) -> list[str]:
        """Return the names of a source's classes, as files keep them; an enlarged image is of none."""
        return kept_names(source.class_names) if self.task.enlarges == 1 else []

    def check_test(self) -> None:
        """Raise UsageError if there are no test images, or their classes are not those of the training images."""
        if why := difference_of_classes(self.class_names, self.test_class_names):
            raise UsageError(
                f"data: the test images have other classes than the training images ({why}): labels would say "
                "something else; give both the same classes in the same order"
            )

    def untested(self) -> list[str]:
        """Return the classes that no test image is of, where each image is of one class with a name."""
        source = self.test.source
        if not isinstance(source, ArraySource | FileSource | CachedSource) or source.labels.dim() != 1:
            return []
        there = set(source.labels.tolist())
        return [name for place, name in enumerate(self.test_class_names) if place not in there]
