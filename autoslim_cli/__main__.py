"""Start the command line."""

from autoslim_cli.cli.app import app
from autoslim_cli.streams import steady_streams


def main() -> None:
    """Run `autoslim`."""
    steady_streams()
    app(prog_name="autoslim")


if __name__ == "__main__":
    main()
