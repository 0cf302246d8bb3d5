"""Load a data set's items in worker processes, which stay from one epoch to the next."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from autoslim_cli.errors import AutoslimError, is_out_of_memory
from autoslim_cli.launch import launched
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


_Loader = tuple["DataLoader[Any]", _Asked]
"""Processes, and what they are asked for."""


class Workers:
    """Processes that load batches of a data set's items, one a core at most: more would wait for each other.

    They start with the first pass and end with the data set: to start them for every pass would take seconds each
    time. A pass that begins within another has processes of its own, which stay as well: a training is one pass, and
    what it looks at after each epoch is another.

    The data set must not hold its own workers: the garbage collector would take such a circle apart in an order in
    which they are not told to end, and each is waited for.
    """

    def __init__(self, dataset: Dataset[Any], count: int, collate: Collate = default_collate) -> None:
        self.dataset, self.count, self.collate = dataset, count, collate
        self._idle: list[_Loader] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave the processes out: they get the data set themselves."""
        return {**vars(self), "_idle": []}

    def load(self, batches: Keys) -> Iterator[Any]:
        """Yield batches of items by their keys, which are asked for a few batches ahead.

        Raises AutoslimError for an item, without the worker's traceback.
        """
        loader, asked = self._idle.pop() if self._idle else self._new()
        asked.batches = batches
        try:
            yield from _plainly(loader)
        finally:
            asked.batches = ()
            self._idle.append((loader, asked))

    def _new(self) -> _Loader:
        """Return a loader of the batches that it will be asked for."""
        count, asked = min(self.count, max(1, available_cores() // launched().local_size)), _Asked()
        loader = DataLoader[Any](
            self.dataset,
            batch_sampler=asked,  # type: ignore[arg-type]
            num_workers=count,
            persistent_workers=count > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=partial(_collated, self.collate),
        )
        return loader, asked


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
