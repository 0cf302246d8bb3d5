"""What classes are called is told by whatever knows it: folders, lists, shards, tables, and data sets of one's own."""

import io
import tarfile

import pytest
import torch
from PIL import Image

from autoslim_cli.data.image_sets import ImageSets
from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, TaskSettings

NAMES = ["bee", "cat"]
OWN = """
import torch
class Pairs:
    def __init__(self, part, swapped=False, kind="uint8", names=("bee", "cat")):
        self.kind = getattr(torch, kind)
        self.classes = names[::-1] if swapped and part == "test" else names
    def __len__(self):
        return 6
    def __getitem__(self, place):
        if place >= 6:
            raise IndexError
        return torch.zeros(3, 8, 8).to(self.kind), place % 2
"""


def sets(directory, name, task="classification", **more):
    model = ModelSettings(name="any", input=(3, 8, 8), classes=2)
    data = DataSettings(**{"name": name, "holdout": 1, "workers": 0, "path": ".", **more})
    return ImageSets(data, model, TaskSettings(name=task), 0, directory, torch.device("cpu"))


def jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


def folder(directory):
    for part in ("train", "test"):
        for name in NAMES:
            for number in range(3):
                path = directory / part / name / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg())


def test_folders_tell(tmp_path):
    folder(tmp_path)
    for memory in (0, 1):
        images = sets(tmp_path, "image-folder", memory=memory)
        assert (images.class_names, images.test_class_names) == (NAMES, NAMES)
        assert images.normalised_by() == ((0.5,), (0.5,))
        images.check_test()
    enlarged = sets(tmp_path, "image-folder", task="super-resolution")
    assert enlarged.class_names == []  # outputs are pixels


def test_digits_tell(tmp_path):
    model = ModelSettings(name="any", input=(1, 8, 8), classes=10)
    data = DataSettings(name="digits", holdout=1)
    images = ImageSets(data, model, TaskSettings(), 0, tmp_path, torch.device("cpu"))
    assert images.class_names == images.test_class_names == list("0123456789")
    assert images.untested() == []


def test_labels_of_a_list_are_called_as_its_head_says_and_another_order_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "train.csv").write_text("image,bee,cat\n" + "a.jpg,0,1\n" * 3)
    (tmp_path / "test.csv").write_text("image,bee,cat\na.jpg,0,1\n")
    images = sets(tmp_path, "image-labels", task="multi-label")
    assert images.class_names == NAMES
    images.check_test()
    (tmp_path / "test.csv").write_text("image,cat,bee\na.jpg,1,0\n")
    with pytest.raises(UsageError, match=r"other classes than the training images \(class 0 was 'bee', is 'cat'"):
        sets(tmp_path, "image-labels", task="multi-label").check_test()


def test_shards_tell_where_a_list_of_names_lies_beside_them(tmp_path):
    for part in ("train", "test"):
        with tarfile.open(tmp_path / f"{part}.tar", "w") as tar:
            for number in range(4):
                for suffix, data in (("jpg", jpeg()), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{number}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    assert sets(tmp_path, "image-shards").class_names == []
    (tmp_path / "classnames.txt").write_text("bee\ncat\n\n")
    assert sets(tmp_path, "image-shards", limit=2).class_names == NAMES
    (tmp_path / "classnames.txt").write_text("bee\n\ncat\n")
    with pytest.raises(UsageError, match=r"classnames\.txt has no name in line 2"):
        assert sets(tmp_path, "image-shards").class_names
    (tmp_path / "classnames.txt").write_text("bee\n")
    with pytest.raises(UsageError, match="the train images have 2 classes, but 1 names: bee is the last"):
        assert sets(tmp_path, "image-shards").class_names
    (tmp_path / "classnames.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UsageError, match=r"classnames\.txt cannot be read as class names"):
        assert sets(tmp_path, "image-shards").class_names


def test_tables_of_hugging_face_tell(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder(tmp_path / "folder")
    saved = tmp_path / "saved"
    datasets.load_dataset(str(tmp_path / "folder"), cache_dir=str(tmp_path / "cache")).save_to_disk(str(saved))
    assert sets(tmp_path, "hugging-face", path="saved", limit=4).class_names == NAMES


def test_data_sets_of_ones_own_tell_as_torchvision_s_do(tmp_path):
    (tmp_path / "data.py").write_text(OWN)
    own = "./data.py:Pairs"
    images = sets(tmp_path, own)
    assert images.class_names == NAMES
    assert images.normalised_by() == ((0.5,), (0.5,))
    images.check_test()
    assert sets(tmp_path, own, args={"kind": "float32"}).normalised_by() is None
    assert sets(tmp_path, own, args={"names": 2}).class_names == []
    with pytest.raises(UsageError, match="is 'cat', and the names are the same in another order"):
        sets(tmp_path, own, args={"swapped": True}).check_test()
