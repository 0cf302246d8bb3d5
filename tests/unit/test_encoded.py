"""Images in shards and in tables are those of the same files in a folder."""

import io
import json
import re
import sys
import tarfile
import types

import numpy as np
import pytest
import torch
from PIL import Image

from autoslim_cli.data.checks import check_classes
from autoslim_cli.data.hugging_face import HubImages
from autoslim_cli.data.opening import open_source
from autoslim_cli.data.sets import CLASSIFICATION, all_images
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings

CPU = torch.device("cpu")
MODEL = ModelSettings(name="any", input=(3, 16, 16), classes=3)


def jpegs(seed, count):
    """Return images' bytes and classes, in an order that is not that of classes."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(buffer, "JPEG")
        yield f"{number:04}", buffer.getvalue(), number * 2 % 3


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": None}])
def test_a_row_of_a_table_without_an_image_is_one_line(image):
    some = types.SimpleNamespace(name="owner/set (train)", table=[{}, {"image": image}], chosen=[1], column="image")
    with pytest.raises(AutoslimError, match=r"^owner/set \(train\): row 1 has no image"):
        HubImages._bytes(some, 0)


@pytest.fixture
def shards(tmp_path):
    """Two shards to train on and one to test, and the same images as files in a folder."""
    root = tmp_path / "shards"
    root.mkdir()
    for part, count, places in (("train", 12, ("train-00.tar", "train-01.tar")), ("test", 4, ("val-00.tar",))):
        images = list(jpegs(len(part), count))
        for number, place in enumerate(places):
            with tarfile.open(root / place, "w") as tar:
                for name, data, label in images[number :: len(places)]:
                    add(tar, f"some/{name}.cls", str(label).encode())
                    add(tar, f"some/{name}.jpg", data)
                    add(tar, f"some/{name}.json", b"{}")
        for name, data, label in images:
            path = tmp_path / "folder" / part / str(label) / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def opened(part, name, path, directory, **more):
    data = DataSettings(name=name, path=str(path), holdout=2, workers=0, memory=0, **more)
    return all_images(open_source(part, data, MODEL, 0, directory, CPU), data, MODEL, CPU)


def contents(images):
    """Return pixels and classes in an order of their own."""
    pixels, labels = (torch.cat(parts) for parts in zip(*images.evaluation(5), strict=True))
    return sorted(zip(pixels.flatten(1).tolist(), labels.tolist(), strict=True))


@pytest.mark.parametrize("part", ["train", "test"])
def test_shards_hold_what_the_folder_holds(shards, part, tmp_path):
    folder = opened(part, "image-folder", tmp_path / "folder", tmp_path)
    assert contents(opened(part, "image-shards", shards, tmp_path)) == contents(folder)


def test_shards_are_read_alike_by_any_number_of_processes_and_in_the_middle_of_an_epoch(shards, tmp_path):
    images = opened("train", "image-shards", shards, tmp_path, augment=AugmentSettings(crop="resized"), limit=11)
    whole = list(images.training(4, 3, 1))
    (rest,) = images.training(4, 3, 1, start=1)
    halves = [list(images.training(4, 3, 1, rank=rank, size=2)) for rank in (0, 1)]
    assert len(whole) == 2
    for half in (0, 1):
        assert torch.equal(whole[1][half], rest[half])
        assert torch.equal(whole[1][half], torch.cat([halves[rank][1][half] for rank in (0, 1)]))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda root: (root / "train-00.tar").write_bytes(b"no tar" * 200),
            "train-00.tar cannot be read as a tar file",
        ),
        (
            lambda root: packed(root / "train-00.tar"),
            "train-00.tar cannot be read as a tar file that is not compressed",
        ),
        (lambda root: [path.unlink() for path in root.glob("train*")], "has no train*.tar or train/*.tar"),
        (lambda root: rewritten(root / "train-01.tar", {"a.jpg": b"x"}), "a.jpg has no class beside it, a.cls"),
        (
            lambda root: rewritten(root / "train-01.tar", {"a.cls": b"cat"}),
            "a.cls is no class, a number counted from 0",
        ),
        (lambda root: rewritten(root / "train-01.tar", {"a.jpg": b"x", "a.cls": b"7"}), "the data has 8 classes"),
    ],
)
def test_what_is_no_shard(shards, spoil, said, tmp_path):
    spoil(shards)
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        opened("train", "image-shards", shards, tmp_path)
    assert "\n" not in str(error.value)


def test_a_damaged_image_in_a_shard_is_named(shards, tmp_path):
    rewritten(shards / "train-01.tar", {"a.jpg": b"x", "a.cls": b"1"})
    with pytest.raises(AutoslimError, match=r"train-01\.tar, a\.jpg cannot be read as an image"):
        contents(opened("train", "image-shards", shards, tmp_path))


def test_samples_without_an_image_that_is_read_are_said(shards, tmp_path):
    image, _ = next(jpegs(0, 1))[1:]
    samples = {"a.jpg": image, "a.cls": b"1", "b.heic": image, "b.cls": b"1", "c.1.jpg": image, "c.cls": b"0"}
    rewritten(shards / "train-01.tar", samples)
    said = []
    data = DataSettings(name="image-shards", path=str(shards), holdout=2, workers=0, memory=0)
    source = open_source("train", data, MODEL, 0, tmp_path, CPU, warn=said.append)
    assert len(source) == 7
    assert said == [f"data.path: {shards}: 2 of 9 samples have no image that is read: b.*, for one"]


def packed(path):
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "a.cls", b"1")


def rewritten(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            add(tar, name, data)


@pytest.mark.filterwarnings("ignore")
def test_a_data_set_of_hugging_face_holds_what_the_folder_holds(shards, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "folder"
    (folder / "test").rename(folder / "validation")
    saved = tmp_path / "saved"
    datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache")).save_to_disk(str(saved))
    (folder / "validation").rename(folder / "test")
    for part in ("train", "test"):
        wanted = contents(opened(part, "image-folder", folder, tmp_path))
        found = opened(part, "hugging-face", "saved", tmp_path)
        assert contents(found) == wanted
        assert found.source.digest == opened(part, "hugging-face", saved, tmp_path).source.digest
    for args, said in (
        ({"train": "all"}, "data.args.train: no split all; there are train, validation"),
        ({"image": "picture"}, "data.args.image: expected is one of the columns of Images, image"),
        ({"split": "train"}, "data.args.split: both parts are wanted"),
        ({"streaming": True}, "data.args.streaming: a training reads images in any order"),
        ({"train": ["train"]}, "data.args.train: ['train'] is no name"),
    ):
        with pytest.raises(UsageError, match=re.escape(said)):
            opened("train", "hugging-face", saved, tmp_path, args=args)


@pytest.fixture
def numbered(tmp_path):
    """A data set of Hugging Face whose classes are whole numbers, as many have; other numbers beside them."""
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "label": datasets.Value("int64"), "size": datasets.Value("int32")}

    def save(labels=None):
        images = list(jpegs(len("train"), 12))
        columns = {
            "image": [{"bytes": data, "path": None} for _, data, _ in images],
            "label": labels or [label for *_, label in images],
            "size": [20] * len(images),
        }
        part = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        datasets.DatasetDict(train=part).save_to_disk(str(tmp_path / "saved"))
        return tmp_path / "saved"

    return save


@pytest.mark.filterwarnings("ignore")
def test_whole_numbers_of_hugging_face_are_classes_where_they_are_named(shards, numbered, tmp_path):
    saved = numbered()
    found = opened("train", "hugging-face", saved, tmp_path, args={"label": "label"})
    assert contents(found) == contents(opened("train", "image-folder", tmp_path / "folder", tmp_path))
    assert list(found.source.class_names) == []
    for args in ({}, {"label": "image"}):
        said = (
            "data.args.label: expected is one of the columns of ClassLabels, none, or, by its name, of whole numbers: "
        )
        with pytest.raises(UsageError, match=re.escape(f"{said}label, size")):
            opened("train", "hugging-face", saved, tmp_path, args=args)
    with pytest.raises(UsageError, match="the data has 21 classes"):
        opened("train", "hugging-face", saved, tmp_path, args={"label": "size"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("missing", [-1, None])
def test_whole_numbers_that_are_no_classes(numbered, tmp_path, missing):
    saved = numbered([0, 1, missing, 2] * 3)
    with pytest.raises(UsageError, match=r"3 of 12 images have no class"):
        opened("train", "hugging-face", saved, tmp_path, args={"label": "label"})


def test_images_without_a_class_are_refused_before_any_work():
    """The test splits of some data sets on the hub have labels of -1: their answers are kept secret."""
    model = ModelSettings(name="autoslim/cifar_resnet", input=(3, 8, 8), classes=4)
    with pytest.raises(UsageError, match=r"2 of 3 images have no class .* data\.args\.test=validation"):
        check_classes(torch.tensor([3, -1, -1]), model, CLASSIFICATION)


def test_hugging_face_where_it_is_not_installed_or_finds_nothing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[hugging-face\]'"):
        opened("train", "hugging-face", "any/thing", tmp_path)

    def fail(path):
        raise FileNotFoundError(f"Couldn't find {json.dumps(path)}\nat all")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=fail))
    with pytest.raises(UsageError, match=r'any/thing is no data set .* \(Couldn\'t find "any/thing" at all\)'):
        opened("train", "hugging-face", "any/thing", tmp_path)
