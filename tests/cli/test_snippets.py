"""The Python that the pages show runs as it stands, and gives what the pages say."""

import re
from pathlib import Path

import pytest
import torch

from autoslim_cli import calibrate, load_model

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_FENCED = re.compile(r"^    (from \w+(\.\w+)* import |import \w+)", re.MULTILINE)


@pytest.fixture
def shown(worked, tmp_path, monkeypatch):
    """The names and files that the pages speak of: `recipes/cifar10` with a supernet and `model-40M`."""
    recipe = tmp_path / "recipes" / "cifar10"
    recipe.parent.mkdir()
    worked.rename(recipe)
    (recipe / "model-60pct.safetensors").rename(recipe / "model-40M.safetensors")
    monkeypatch.chdir(tmp_path)
    return {"images": torch.randn(4, 1, 8, 8), "batches": [(torch.randn(16, 1, 8, 8), torch.zeros(16).long())]}


def snippets(page):
    return FENCED.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.name)
def test_snippets_run(page, shown):
    for snippet in snippets(page):
        exec(compile(snippet, str(page), "exec"), shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_python_escapes_the_test(page):
    assert not NOT_FENCED.search(page.read_text(encoding="utf-8"))


def test_there_are_snippets_to_run():
    assert {page.name for page in PAGES if snippets(page)} >= {"README.md", "guide.md"}


def test_the_guide_s_networks_compute_what_extracted_ones_do(shown):
    (snippet,) = snippets(ROOT / "docs" / "guide.md")
    exec(compile(snippet, "guide.md", "exec"), shown)
    plain, config = load_model("recipes/cifar10/model-40M.safetensors")
    plain = shown["network"].supernet.extract(config.channels)
    calibrate(plain, shown["batches"])
    torch.testing.assert_close(shown["network"](shown["images"]), plain(shown["images"]))
