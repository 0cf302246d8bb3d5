"""Start the command line."""

from autoslim_cli.cli.app import app


def main() -> None:
    """Run `autoslim`."""
    app(prog_name="autoslim")


if __name__ == "__main__":
    main()
