"""Say how Sphinx builds the site: `make docs`. The pages are read on a repository's page as well."""

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "autoslim"
author = "The autoslim authors"
project_copyright = author
(release,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "autoslim_cli/__init__.py").read_text(), re.MULTILINE)
version = release

extensions = ["myst_parser"]
myst_heading_anchors = 3  # links to headings work as they do on a repository's page

html_theme = "furo"
html_title = f"autoslim {release}"
html_copy_source = False
html_show_sphinx = False

linkcheck_retries = 3  # other sites are slow at times
linkcheck_timeout = 20

# Pages outside of docs/ that the site shows as its own. Links to other files of the repository become downloads.
SHOWN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}


def setup(app: Sphinx) -> None:
    """Let links that leave docs/ stay in the site where it can."""
    app.connect("source-read", _stay)


def _stay(_app: Sphinx, name: str, source: list[str]) -> None:
    up = "../" * (name.count("/") + 1)
    for outside, inside in SHOWN.items():
        source[0] = source[0].replace(f"]({up}{outside}", f"](/{inside}")
