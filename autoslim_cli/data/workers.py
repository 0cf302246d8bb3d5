"""Load a data set's items in worker processes, which stay from one epoch to the next."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from autoslim_cli.errors import AutoslimError, is_out_of_memory
from autoslim_cli.interruption import SIGNALS
from autoslim_cli.launch import launched
from autoslim_cli.machine import available_cores

_ASK_PARENT = set(SIGNALS) if hasattr(signal, "pthread_sigmask") else set[signal.Signals]()
"""Signals that workers leave to their parent."""
if not hasattr(signal, "sigwaitinfo"):  # there a worker could not tell who ends it
    _ASK_PARENT -= {signal.SIGTERM}

HOW = "fork" if sys.platform == "linux" else None
"""How workers start on Linux, which newer Pythons do otherwise: they share the list of files, and what a data set holds
need not be sent to them. Elsewhere as Python does."""

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
            # Of a GPU that is not in use it would take memory, and fail where that is full.
            pin_memory=torch.cuda.is_initialized(),  # type: ignore[no-untyped-call]
            collate_fn=partial(_collated, self.collate),
            worker_init_fn=_begin_worker,
            multiprocessing_context=HOW if count > 0 else None,
        )
        return loader, asked


@contextmanager
def _left_to_parent() -> Iterator[None]:
    """Keep signals that ask for an end from processes that are started meanwhile.

    Who asks a command to end asks all of its processes, as torchrun does. Its parent may need images until it has saved
    what was done, and takes a worker's death for a failure. Where it dies itself its workers notice, and end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASK_PARENT) if _ASK_PARENT else set()
    try:
        yield
    finally:
        if _ASK_PARENT:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(_number: int) -> None:
    """Watch in a new worker for its parent's signal, where it hears no other."""
    if signal.SIGTERM in _ASK_PARENT:
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process once its parent tells it to."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _plainly(loader: "DataLoader[Any]") -> Iterator[Any]:
    """Yield a loader's batches; a worker's error comes with the worker's traceback as its text, which is left out."""
    try:
        with _left_to_parent():
            batches = iter(loader)
        yield from batches
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
