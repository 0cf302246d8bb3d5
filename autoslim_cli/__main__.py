"""Start the command line."""

from autoslim_cli.cli.app import app
from autoslim_cli.cli.processes import end_of_process
from autoslim_cli.streams import steady_streams


def main() -> None:
    """Run `autoslim`."""
    steady_streams()
    with end_of_process():
        app(prog_name="autoslim")


if __name__ == "__main__":
    main()
