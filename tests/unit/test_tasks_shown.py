"""What docs/tasks-shown.md rests on: scenes and their masks and boxes, tiles, rows, the tables."""

from pathlib import Path

import numpy as np
import pytest
from outside import outside
from PIL import Image

ROOT = Path(__file__).parents[2]
NAMES = ("plan", "tables", "make_scenes", "make_photographs")


@pytest.fixture(scope="module")
def shown():
    with outside("benchmarks/tasks", "scripts", names=NAMES) as modules:
        yield modules


@pytest.fixture
def files(tmp_path):
    """Write one image of each kind, each of one colour that no other has."""
    made = {}
    for kind, colour in ((1, (250, 10, 10)), (2, (10, 10, 250))):
        made[kind] = [tmp_path / f"{kind}.png"]
        Image.new("RGB", (32, 32), colour).save(made[kind][0])
    return made


def test_a_scene_shows_what_its_mask_and_its_boxes_say(shown, files):
    scenes = shown.make_scenes
    for number in range(30):
        image, mask, boxes = scenes.compose(files, np.random.default_rng([0, number]))
        colours = image.reshape(-1, 3)
        for kind, colour in ((1, (250, 10, 10)), (2, (10, 10, 250))):
            assert (colours[mask.ravel() == kind] == colour).all()
        assert {kind for kind, *_ in boxes} == set(np.unique(mask)) - {0}
        covered = np.zeros_like(mask, dtype=bool)
        for kind, left, top, right, bottom in boxes:
            seen = mask[top:bottom, left:right] == kind
            for side in (seen[0], seen[-1], seen[:, 0], seen[:, -1]):  # no box is larger than what it holds
                assert side.any()
            covered[top:bottom, left:right] = True
        assert covered[mask > 0].all()


def test_a_scene_depends_on_its_part_and_number_alone(shown, files):
    first, again, other = (
        shown.make_scenes.compose(files, np.random.default_rng([part, 3]))[1] for part in (False, False, True)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_tiles_that_bicubic_enlargement_restores_are_left_out(shown):
    size = shown.make_photographs.TILE
    photograph = np.full((size + 5, 2 * size, 3), 90, dtype=np.uint8)
    photograph[:, size:] = np.random.default_rng(0).integers(0, 256, (size + 5, size, 3))
    (kept,) = shown.make_photographs.tiles(Image.fromarray(photograph))
    assert kept[0] == "00-01"
    assert kept[1].size == (size, size)


def test_no_photograph_is_named_twice(shown):
    names = [photograph.name for photograph in shown.make_photographs.PHOTOGRAPHS]
    assert len(set(names)) == len(names)


def test_rows_are_paired_by_seed(shown, capsys):
    def row(network: str, seed: int, psnr: float):
        return {"network": network, "seed": seed, "share": 50, "psnr": psnr, "used": 0.99, "flops": 1}

    rows = [row("searched", 0, 30.0), row("one width", 0, 29.0), row("searched", 1, 31.0), row("one width", 1, 31.5)]
    shown.tables.print_trained("super-resolution", [*rows, row("searched", 2, 40.0)])
    assert "| +0.25 ± 1.06 (+1.00, -0.50) | 99.0% to 99.0% | 2 |" in capsys.readouterr().out


def test_networks_that_were_fine_tuned_have_a_table_of_their_own(shown, capsys):
    names = {"searched": 0.8, "one width": 0.7, "searched, fine-tuned": 0.9, "one width, fine-tuned": 0.85}
    same = {"task": "segmentation-longer", "seed": 0, "share": 25, "used": 1.0, "flops": 1}
    shown.tables.report([{**same, "network": name, "miou": score} for name, score in names.items()])
    scratch, fine_tuned = capsys.readouterr().out.split("fine-tuned from the supernet's weights")
    assert "| 25 % | 80.00 | 70.00 | +10.00 (+10.00) |" in scratch
    assert "| 25 % | 90.00 | 85.00 | +5.00 (+5.00) |" in fine_tuned


def test_a_row_follows_one_that_a_kill_cut_short(shown, tmp_path):
    path = tmp_path / "rows.jsonl"
    shown.plan.add_row(path, {"seed": 0})
    path.write_text(path.read_text() + '{"seed": 1, "ps')
    shown.plan.add_row(path, {"seed": 1})
    assert shown.plan.rows_of(path) == [{"seed": 0}, {"seed": 1}]
