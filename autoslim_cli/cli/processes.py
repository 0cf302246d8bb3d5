"""Let the processes of a torchrun job speak and end as one."""

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from autoslim_cli.launch import launched


@contextlib.contextmanager
def shared_work() -> Iterator[None]:
    """Run a command: of several processes the first alone prints results, and none leaves while others need it."""
    if launched().size == 1:
        yield
        return
    with contextlib.ExitStack() as stack:
        if not launched().first:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        yield
    from autoslim_cli.training.distributed import leave_ranks

    leave_ranks()


@contextlib.contextmanager
def end_of_process() -> Iterator[None]:
    """Of a job's process that has done its work, leave out what Python takes apart last.

    Gloo's threads hold tensors for some moments yet. One that lets them go in a Python that is being taken apart aborts
    the process, and torchrun ends the job with an error (PyTorch's pull request 179291 tells of it).
    """
    try:
        yield
    except SystemExit as end:
        if launched().size > 1 and end.code in (None, 0):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        raise


def fail_together(line: str, code: int) -> None:
    """Print why a command fails, unless another process of the job has; return if this process is the only one.

    Several end at once: a process that waits for another would hang in Python's own way out.
    """
    if launched().size == 1:
        print(line, file=sys.stderr)
        return
    import torch.distributed

    from autoslim_cli.training.distributed import first_to_fail

    if first_to_fail():
        print(line, file=sys.stderr, flush=True)
    if torch.distributed.is_initialized():
        sys.stderr.flush()
        os._exit(code)
