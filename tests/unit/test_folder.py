"""What a folder of images holds beside what is read, and how many classes its images have."""

import os

import pytest
import torch
from PIL import Image

from autoslim_cli.data.folder import ImageFiles, list_images, list_masked, list_unlabelled
from autoslim_cli.data.opening import open_source
from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, TaskSettings

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images each, in both parts."""
    for part in ("train", "test"):
        for shade, name in ((50, "a"), (200, "b")):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                Image.new("L", (8, 8), shade + number).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def opened(folder, classes, part="train", task="classification", seed=0, **data):
    """Open a part; return what is warned of."""
    settings = DataSettings(name="image-folder", path=str(folder), workers=0, **{"holdout": 1, **data})
    model = ModelSettings(name="autoslim/cifar_resnet", args={"in_channels": 1}, input=(1, 8, 8), classes=classes)
    warned = []
    open_source(part, settings, model, seed, folder, CPU, TaskSettings(name=task), warned.append)
    return warned


def test_files_that_are_not_read_are_counted(folder):
    for number in range(3):
        (folder / "train/a" / f"{number}.HEIC").touch()
    (folder / "train/b/below").mkdir()
    (folder / "train/b/below/x.avif").touch()
    for quiet in ("notes.txt", "0.json", ".DS_Store", "labels.csv"):
        (folder / "train/b" / quiet).touch()
    (warning,) = opened(folder, 2)
    assert warning == f"data.path: 4 files of {folder / 'train'} are not read as images: .heic (3), .avif (1)"
    assert opened(folder, 2, "test") == []
    (folder / "test/b/image001").touch()
    assert opened(folder, 2, "test") == [
        f"data.path: 1 file of {folder / 'test'} is not read as images: without a suffix (1)"
    ]


def test_links_are_followed_and_hidden_directories_are_not_read(folder, tmp_path):
    before = len(list_images(folder, "train"))
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "elsewhere" / "0.png")
    (folder / "train/b/linked").symlink_to(tmp_path / "elsewhere")
    (folder / "train/b/loop").symlink_to(folder / "train/b")
    (folder / "train/b/.thumbnails").mkdir()
    Image.new("L", (8, 8)).save(folder / "train/b/.thumbnails/0.png")
    names = list(list_images(folder, "train").names)
    assert len(names) == before + 1
    assert "b/linked/0.png" in names


def test_names_that_are_no_text_count_as_they_are(folder):
    """A name that is not UTF-8 ended every training in a traceback."""
    before = list_images(folder, "train").digest()
    strange = folder / "train/b" / os.fsdecode(b"caf\xe9.png")
    Image.new("L", (8, 8)).save(strange)
    files = list_images(folder, "train")
    assert files.image(3).shape == (1, 8, 8)
    with_it = files.digest()
    assert with_it != before
    strange.rename(strange.with_name(os.fsdecode(b"caf\xe8.png")))
    assert list_images(folder, "train").digest() not in (before, with_it)


def test_a_class_of_files_that_are_not_read_says_which_they_are(folder):
    for path in (folder / "train/b").iterdir():
        path.rename(path.with_suffix(".heic"))
    (folder / "train/b/notes.txt").touch()
    with pytest.raises(UsageError, match=r"no images in .*b, but files that are not read: \.heic \(3\), \.txt \(1\); "):
        list_images(folder, "train")
    for name in ("a", "b"):
        for path in (folder / "test" / name).iterdir():
            path.rename(path.with_suffix(".heic"))
    (folder / "train/b/0.png").write_bytes((folder / "train/a/0.png").read_bytes())
    with pytest.raises(UsageError, match=r"class directories of .*test, but files that are not read: \.heic \(6\)"):
        list_images(folder, "test")


def test_folders_of_images_alone_and_of_masks_count_them_too(folder):
    (folder / "train/a/x.heic").touch()
    assert list_unlabelled(folder, "train").others == {".heic": 1}
    for name in ("images", "masks"):
        (folder / "train" / name).mkdir()
    (folder / "train/images/x.heic").touch()
    with pytest.raises(UsageError, match=r"no images in .*images, but files that are not read: \.heic \(1\)"):
        list_masked(folder, "train")
    Image.new("L", (8, 8)).save(folder / "train/images/y.png")
    Image.new("P", (8, 8)).save(folder / "train/masks/y.gif")
    masked = list_masked(folder, "train")
    assert (list(masked.masks), masked.left_out[-9:]) == (["masks/y.gif"], ".heic (1)")


def test_gifs_and_jpegs_of_other_names_are_images(tmp_path):
    (tmp_path / "train/a").mkdir(parents=True)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "train/a/1.gif", save_all=True, append_images=frames[1:])
    for name in ("2.jfif", "3.jpe"):
        frames[0].save(tmp_path / "train/a" / name, format="JPEG")
    files = list_images(tmp_path, "train")
    assert list(files.names) == ["a/1.gif", "a/2.jfif", "a/3.jpe"]
    assert files.left_out == ""
    assert files.image(0)[:, 0, 0].tolist() == [255, 0, 0]  # the first frame
    assert isinstance(files.select(torch.tensor([0])), ImageFiles)


def test_more_classes_than_the_images_have_are_said(folder):
    assert opened(folder, 2) == []
    (warning,) = opened(folder, 5)
    assert warning.startswith("model.classes: 5, but the training images have 2: ")
    assert "model.classes=2 suits them" in warning
    assert opened(folder, 5, "test") == []  # once
    assert all(
        opened(folder, 2, limit=2, seed=seed) == [] for seed in range(8)
    )  # of all images that there are, not of those that are drawn
    assert opened(folder, 5, task="super-resolution") == []


def test_fewer_classes_than_the_images_have_are_refused_whichever_are_drawn(folder):
    for seed in range(8):  # some draw images of the first class alone
        with pytest.raises(UsageError, match=r"model\.classes: 1, but the data has 2 classes"):
            opened(folder, 1, limit=2, seed=seed)
