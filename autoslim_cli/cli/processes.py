"""Let the processes of a torchrun job speak and end as one."""

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
