"""Load a data set's items in worker processes, which stay from one epoch to the next."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from autoslim_cli.errors import AutoslimError, is_out_of_memory
from autoslim_cli.machine import available_cores

Keys = Iterable[Sequence[Any]]
"""For each batch the keys of its items."""

Collate = Callable[[list[Any]], Any]
"""Given items, return one batch of them."""


class _Asked:
    """Hand a loader the batches of the pass that is asked for: it asks anew at the beginning of each."""

    def __init__(self) -> None:
        self.batches: Keys = ()

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return iter(self.batches)


class Workers:
    """Processes that load batches of a data set's items, one a core at most: more would wait for each other.

    They start with the first pass and end with the data set: to start them for every epoch would take seconds each
    time, and the images that they had ready would be lost. A pass that begins within another has processes of its own.

    The data set must not hold its own workers: the garbage collector would take such a circle apart in an order in
    which they are not told to end, and each is waited for.
    """

    def __init__(self, dataset: Dataset[Any], count: int, collate: Collate = default_collate) -> None:
        self.dataset, self.count, self.collate = dataset, count, collate
        self._asked, self._busy = _Asked(), False
        self._loader: DataLoader[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the processes out: they get the data set themselves."""
        return {**vars(self), "_loader": None, "_busy": False}

    def load(self, batches: Keys) -> Iterator[Any]:
        """Yield batches of items by their keys. Raises AutoslimError for an item, without the worker's traceback."""
        if self._busy:
            yield from _plainly(self._new(batches, stay=False))
            return
        self._busy, self._asked.batches = True, batches
        try:
            if self._loader is None:
                self._loader = self._new(self._asked, stay=True)
            yield from _plainly(self._loader)
        finally:
            self._busy, self._asked.batches = False, ()

    def _new(self, batches: Any, *, stay: bool) -> "DataLoader[Any]":
        """Return a loader of so many batches as are asked for."""
        count = min(self.count, available_cores())
        return DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=count,
            persistent_workers=stay and count > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=partial(_collated, self.collate),
        )


def _plainly(loader: "DataLoader[Any]") -> Iterator[Any]:
    """Yield a loader's batches; a worker's error comes with the worker's traceback as its text, which is left out."""
    try:
        yield from loader
    except AutoslimError as error:
        raise AutoslimError(str(error.args[0]).strip().splitlines()[-1].rpartition("AutoslimError: ")[2]) from None


def _collated(collate: Collate, items: list[Any]) -> Any:
    """Return one batch of items. Raises AutoslimError if they are of different shapes."""
    try:
        return collate(items)
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise AutoslimError(f"data: items are no batch: they must be tensors of one shape each ({reason})") from None
