"""The tables of docs/scale.md: what the benchmark of files reads, and the arithmetic on it."""

import json

import pytest
import torch
from outside import outside

from autoslim_cli.data.folder import Names


@pytest.fixture(scope="module")
def scale():
    with outside("scripts", names=("estimate", "scale")) as modules:
        yield modules.scale


@pytest.fixture(scope="module")
def benchmark():
    with outside("benchmarks", names=("recipes", "data")) as modules:
        yield modules.data


@pytest.fixture
def stage(scale):
    """Twice the work for each image, 1,000 parameters."""
    return scale.Stage("some", "supernet", epochs=9, images=40_000, batch=100, parameters=1000, times=2.0)


ROWS = {
    "machine": {"processor": "Some CPU", "cores": 2, "torch": "2.14.1+cu130"},
    "files": 20_000,
    "kib_a_file": 100.0,
    "kib_in_shards": 102.0,
    "workers": 2,
    "loader_vs_torchvision": 0.95,
    "ratios": [0.9, 0.95, 1.0],
    "shards_vs_folder": 1.01,
    "shards_ratios": [1.0, 1.01, 1.02],
    "images_per_second": {"autoslim": 592.0, "torchvision": 620.0, "shards": 600.0},
    "first_batch_seconds": {"autoslim": 0.3, "torchvision": 0.4, "shards": 0.3},
    "one_image_ms": {"whole": 2.04, "pillow": 1.31},
    "wait_share": 0.0123,
    "start_seconds": {
        "image-folder": {"list": 0.1, "digest": 0.2},
        "image-shards": {"list": 2.0, "digest": 0.05},
    },
    "worker_memory": {"workers": 16, "batches": 80, "first": 30.4, "later": 31.6},
    "names_mib": 56.2,
}


def test_hours_are_of_epochs_images_and_the_rate_of_all_gpus(stage):
    assert stage.hours(1, 100) == pytest.approx(2.0)  # 360,000 images, at 50 a second
    assert stage.hours(8, 100) == pytest.approx(0.25)


def test_a_ring_sends_gradients_nearly_twice(stage):
    assert stage.sent(1, 100) == 0
    # 4 steps a second of 4,000 bytes, of which each of 8 sends 7/8 twice.
    assert stage.steps(8, 100) == pytest.approx(4.0)
    assert stage.sent(8, 100) == pytest.approx(4 * 4000 * 2 * 7 / 8)


def test_recipes_that_take_the_same_share_a_row(scale, stage):
    other = scale.Stage(**{**vars(stage), "recipe": "other"})
    unlike = scale.Stage(**{**vars(stage), "recipe": "unlike", "epochs": 18})
    rows = scale.hours([stage, other, unlike]).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| `some`, `other`", "| `unlike`"]


def test_what_gpus_ask_for_is_rounded_and_not_cut(scale):
    (eight,) = (line for line in scale.feeding(ROWS).splitlines() if line.startswith("| 8 GPUs"))
    assert "13.5, 27.0 or 67.6 cores; 391, 781 or 1,953 MiB/s from storage; an epoch in 5.3, 2.7 or 1.1 min" in eight


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.666, "0.67"), (5.56, "5.6"), (67.568, "67.6"), (99.4, "99.4"), (99.6, "100"), (15781.2, "15,781")],
)
def test_figures_are_rounded(scale, value, said):
    assert scale.number(value) == said


def test_what_was_measured_stands_in_the_table(scale):
    text = scale.measured(ROWS)
    assert "| Some CPU, 2 cores, 2 workers, torch 2.14.1 | |\n" in text
    for said in ("| 1.2 % |", "0.95 (0.90, 0.95, 1.00)", "| 2.0 ms; 1.3 ms |", "16 workers", "| 30 MiB; 32 MiB |"):
        assert said in text
    assert "| 6.4 s; 12.8 s |" in text  # of 20,000 files, for 1,281,167
    assert "| 128 s; 3.2 s |" in text


def test_tables_go_where_the_page_has_a_place_for_them(scale):
    page = "a\n<!-- scale: one -->\nold\n<!-- end -->\nb\n<!-- scale: two -->\nkept\n<!-- end -->\n"
    assert scale.written(page, {"one": "new"}) == page.replace("old", "new")
    with pytest.raises(ValueError, match="no place for three"):
        scale.written(page, {"three": "new"})


def test_generated_shards_hold_the_files_of_the_folder(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "A_SHARD", 12)
    benchmark.generate(tmp_path, 34, distinct=3)
    assert len(list(tmp_path.glob("shards/train-*.tar"))) == 3
    contents = []
    for kind in ("image-folder", "image-shards"):
        images = benchmark.opened(kind, tmp_path, 0)
        pixels, labels = (torch.cat(parts) for parts in zip(*images.evaluation(20), strict=True))
        assert isinstance(images.source.files.names, Names)
        by_class = sorted(zip(labels.tolist(), pixels.mean((1, 2, 3)).tolist(), strict=True))
        contents.append(by_class)
    assert len(contents[0]) == 34
    assert contents[0] == contents[1]


def test_workers_memory_is_measured_with_the_names_that_commands_keep(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "IMAGENET", 500)
    benchmark.generate(tmp_path, 20, distinct=2)
    files = benchmark.opened("image-folder", tmp_path, 0).source.files
    many = benchmark.with_names_of_imagenet(files)
    assert isinstance(many.names, Names)
    assert len(many) == len(many.labels) == 500
    assert many.names[499] == files.names[19]
    assert (files.directory / many.names[123]).is_file()


@pytest.mark.slow
def test_more_workers_than_cores_are_measured_one_by_one(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "IMAGENET", 5000)
    monkeypatch.setattr(benchmark, "MEMORY_WORKERS", 3)
    monkeypatch.setattr(benchmark, "BATCH", 4)
    benchmark.generate(tmp_path, 40, distinct=2)
    figures = benchmark.memory_of_workers(tmp_path, 4)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["worker_memory"]["workers"] == 3
    assert 1 < figures["worker_memory"]["first"] <= figures["worker_memory"]["later"] + 5
