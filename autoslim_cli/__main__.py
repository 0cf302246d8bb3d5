"""Start the command line."""

import os
import sys

from autoslim_cli.cli.app import app


def open_closed_streams() -> None:
    """Open what the caller closed (`>&-`) onto nothing, before another file gets its number and what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def main() -> None:
    """Run `autoslim`."""
    open_closed_streams()
    app(prog_name="autoslim")


if __name__ == "__main__":
    main()
