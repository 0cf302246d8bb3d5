"""The guide's table of files names what commands write into a recipe's directory."""

import re
import runpy
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_guide_names_what_make_clean_removes():
    table = (ROOT / "docs/guide.md").read_text().partition("## Files")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = [re.sub("[A-Z]+|<device>", "*", name) for cell in first_cells for name in re.findall("`(.*?)`", cell)]
    made = [one for one in runpy.run_path(str(ROOT / "scripts/clean.py"))["MADE"] if not one.startswith((".", "*"))]
    assert len(made) > 10
    for pattern in made:
        written = pattern.replace("*", "1")
        assert any(fnmatchcase(written, one) for one in named), pattern
