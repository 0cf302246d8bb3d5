"""Images with masks, with several labels, of high resolution, and data sets of one's own."""

import random
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from autoslim_cli.data.augment import vary, vary_masks
from autoslim_cli.data.batch import forward, joined, mapped, shapes, split, tensors
from autoslim_cli.data.opening import open_source
from autoslim_cli.data.sets import all_images
from autoslim_cli.data.transforms import fit, random_part, reduced
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings, TaskSettings

CPU = torch.device("cpu")
SEGMENTATION, MULTI_LABEL = TaskSettings(name="segmentation"), TaskSettings(name="multi-label")
DOUBLE = TaskSettings(name="super-resolution", scale=2)


def model_of(*shape, classes=None, inputs=()):
    return ModelSettings(name="x", input=shape, classes=classes, inputs=inputs)


def opened(part, settings, model, task, directory, seed=0):
    source = open_source(part, settings, model, seed, directory, CPU, task)
    return all_images(source, settings, model, CPU, task)


def write_masked(root, sizes, classes=6):
    """Write images whose every pixel is a grey that its mask says, and masks with a palette."""
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (root / part / kind / "deep").mkdir(parents=True)
        for number, (width, height) in enumerate(sizes):
            values = np.random.default_rng(number).integers(classes, size=(height // 4 + 1, width // 4 + 1))
            mask = values.repeat(4, 0).repeat(4, 1)[:height, :width].astype(np.uint8)
            Image.fromarray(40 * mask).save(root / part / "images" / "deep" / f"{number}.png")
            palette = Image.fromarray(mask, mode="P")
            palette.putpalette(list(range(100, 100 + 3 * classes)))
            palette.save(root / part / "masks" / "deep" / f"{number}.png")


def of_masks(path, **changes):
    return DataSettings(
        **{"name": "image-masks", "path": str(path), "holdout": 1, "mean": (0.0,), "std": (1.0,)} | changes
    )


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    root = tmp_path_factory.mktemp("masked")
    write_masked(root, [(24, 24), (40, 24), (30, 60), (24, 24)])
    return root


@pytest.mark.parametrize("crop", ["none", "pad", "random", "resized"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_goes_where_its_image_goes(masked, crop, flip):
    """Wherever an image is cropped, mirrored or resized to, the grey of a pixel says what its mask must say."""
    augment = AugmentSettings(crop=crop, flip=flip, padding=5, scale=(0.3, 0.9))
    images = opened(
        "train", of_masks(masked, augment=augment, workers=0), model_of(1, 24, 24, classes=6), SEGMENTATION, masked
    )
    ((pixels, masks),) = images.training(4, seed=3, epoch=0)
    assert masks.dtype == torch.int64
    assert masks.shape == (4, 24, 24)
    grey = pixels[:, 0] * 255 / 40
    inside = masks != 255
    assert bool(inside.all()) == (crop != "pad")
    close = (grey - masks).abs() < 0.5
    if crop == "resized":  # greys between two classes are mixed
        assert float(close.float().mean()) > 0.6
    else:
        resized = [n for n in range(4) if float((grey[n] - grey[n].round()).abs().max()) > 1e-3]
        assert len(resized) <= (0 if crop == "random" else 2)
        for n in set(range(4)) - set(resized):
            assert bool(close[n][inside[n]].all())
            assert float(pixels[n, 0][~inside[n]].abs().sum()) == 0


def test_memory_and_workers_make_the_same_masks(masked):
    model = model_of(1, 24, 24, classes=6)
    batches = []
    for where in ({"memory": 0.0, "workers": 0}, {"memory": 0.0, "workers": 1}, {"memory": 2.0}):
        settings = of_masks(masked, augment=AugmentSettings(crop="pad", flip=True), **where)
        images = opened("train", settings, model, SEGMENTATION, masked)
        batches.append([*images.training(2, 0, 0), *images.in_memory().evaluation(3), *images.evaluation(3)])
    for others in batches[1:]:
        for one, other in zip(batches[0], others, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_mask_is_made_smaller_around_the_pixels_that_its_image_is():
    """Of each 2x2 a class of the middle's right lower pixel: NEAREST took the left upper one, half a pixel away."""
    places = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)
    assert torch.equal(fit(places, 4, 4, nearest=True), places[:, 1::2, 1::2])
    threes = torch.arange(81, dtype=torch.uint8).reshape(1, 9, 9)
    assert torch.equal(fit(threes, 3, 3, nearest=True), threes[:, 1::3, 1::3])  # each cell's centre


def test_masks_are_padded_with_what_does_not_count():
    images = torch.full((3, 1, 8, 8), 9, dtype=torch.uint8)
    augment = AugmentSettings(crop="pad", padding=3, flip=True)
    masks = vary_masks(images[:, 0], augment, 5, range(3), 200)
    assert torch.equal((masks == 200), vary(images, augment, 5)[:, 0] == 0)
    assert bool((masks == 200).any())


def test_an_image_alone_is_cut_as_one_with_a_mask():
    image = torch.randint(256, (3, 40, 50), dtype=torch.uint8)
    for crop in ("resized", "random"):
        augment = AugmentSettings(crop=crop)
        alone, _ = random_part(image, None, 16, 16, augment, 7)
        together, mask = random_part(image, image[0], 16, 16, augment, 7)
        assert torch.equal(alone, together)
        assert crop == "resized" or torch.equal(mask, together[0])
        assert type(together) is type(mask) is torch.Tensor


def test_wrong_masks_are_named(tmp_path):
    write_masked(tmp_path, [(24, 24)])
    settings, model = of_masks(tmp_path, workers=0), model_of(1, 24, 24, classes=5)
    with pytest.raises(AutoslimError, match=r"0\.png: a pixel of class 5, but model\.classes is 5"):
        list(opened("train", settings, model, SEGMENTATION, tmp_path).evaluation(1))
    ignoring = TaskSettings(name="segmentation", ignore_index=5)
    ((_, masks),) = opened("train", settings, model, ignoring, tmp_path).evaluation(1)
    assert int(masks.max()) == 5
    path = tmp_path / "train" / "masks" / "deep" / "0.png"
    Image.new("L", (24, 20)).save(path)
    with pytest.raises(AutoslimError, match=r"a mask of \[20, 24\] pixels of an image of \[24, 24\]"):
        list(opened("train", settings, model, SEGMENTATION, tmp_path).evaluation(1))
    Image.new("RGB", (24, 24)).save(path)
    with pytest.raises(AutoslimError, match="one number of 8 bits"):
        list(opened("train", settings, model, SEGMENTATION, tmp_path).evaluation(1))
    path.unlink()
    with pytest.raises(UsageError, match="has no mask of the same name"):
        opened("train", settings, model, SEGMENTATION, tmp_path)


def test_masks_of_one_class_and_what_is_ignored_are_doubted(tmp_path):
    """Of masks of 0 and 255 a network that sees nothing anywhere was perfect."""
    for part in ("train", "val"):
        for kind, values in (("images", (9, 90)), ("masks", (0, 255))):
            (tmp_path / part / kind).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((8, 8), values[0], np.uint8)
                pixels[:, number:5] = values[1]
                Image.fromarray(pixels).save(tmp_path / part / kind / f"{number}.png")
    model = model_of(1, 8, 8, classes=2)
    for task, doubted in ((SEGMENTATION, True), (TaskSettings(name="segmentation", ignore_index=254), False)):
        warned = []
        open_source("train", of_masks(tmp_path), model, 0, tmp_path, CPU, task, warned.append)
        said = "all pixels are of class 0 or 255, which task.ignore_index leaves out of every score"
        assert [said in line for line in warned] == [True] * doubted


def test_a_digest_tells_of_masks(tmp_path):
    write_masked(tmp_path, [(24, 24)])
    settings, model = of_masks(tmp_path), model_of(1, 24, 24, classes=6)
    before = opened("train", settings, model, SEGMENTATION, tmp_path).source.digest
    Image.new("L", (24, 24)).save(tmp_path / "train" / "masks" / "deep" / "0.png")
    assert opened("train", settings, model, SEGMENTATION, tmp_path).source.digest != before


@pytest.mark.parametrize("crop", ["none", "pad", "random"])
def test_an_input_is_its_target_reduced(tmp_path, crop):
    for number, (width, height) in enumerate([(16, 16), (30, 40), (64, 20)]):
        for part in ("train", "test"):
            (tmp_path / part).mkdir(exist_ok=True)
            pixels = np.random.default_rng(number).integers(256, size=(height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{number}.png")
    augment = AugmentSettings(crop=crop, padding=2, flip=True)
    settings = DataSettings(name="images", path=str(tmp_path), holdout=1, workers=0, augment=augment, memory=0.0)
    images = opened("train", settings, model_of(3, 8, 8), DOUBLE, tmp_path)
    for inputs, targets in [*images.training(3, 0, 0), *images.evaluation(3), *images.in_memory().evaluation(3)]:
        assert inputs.shape == (3, 3, 8, 8)
        assert targets.shape == (3, 3, 16, 16)
        high = (targets * 255).round().to(torch.uint8)
        low = reduced(high, 2)
        assert torch.allclose(inputs, low.float() / 127.5 - 1, atol=1e-6)  # of mean and deviation 0.5
    ((_, targets),) = images.evaluation(3)
    with Image.open(tmp_path / "train" / "1.png") as file:  # the centre, at its own scale
        centre = np.array(file)[12:28, 7:23]
    assert np.array_equal((targets[1] * 255).round().byte().permute(1, 2, 0).numpy(), centre)


def test_a_reduction_is_pillows():
    image = torch.from_numpy(np.random.default_rng(0).integers(256, size=(32, 32), dtype=np.uint8))
    theirs = np.array(Image.fromarray(image.numpy()).resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(reduced(image[None, None], 2)[0, 0].numpy().astype(int) - theirs).max() <= 1


def test_any_images_may_be_enlarged(tmp_path):
    settings = DataSettings(name="digits", holdout=100)
    images = opened("train", settings, model_of(1, 4, 4), DOUBLE, tmp_path)
    inputs, targets = next(iter(images.training(16, 0, 0)))
    assert (shapes(inputs), shapes(targets)) == ("(16, 1, 4, 4)", "(16, 1, 8, 8)")


def test_several_labels_come_from_a_table(tmp_path):
    for number in range(3):
        Image.new("L", (8, 8), 10 * number).save(tmp_path / f"{number}.png")
    lines = ["file,cat,dog", "0.png,1,0", "2.png,1,1", "1.png,0,0"]
    for part in ("train", "val"):
        (tmp_path / f"{part}.csv").write_text("\n".join(lines) + "\n")
    settings = DataSettings(name="image-labels", path=str(tmp_path), holdout=1, limit=3)
    model = model_of(1, 8, 8, classes=2)
    ((images, labels),) = opened("test", settings, model, MULTI_LABEL, tmp_path).evaluation(4)
    assert labels.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert (images[:, 0, 0, 0] > images[0, 0, 0, 0]).tolist() == [False, True, True]
    with pytest.raises(UsageError, match=r"model\.classes: 3, but the data has 2 labels"):
        opened("test", settings, model_of(1, 8, 8, classes=3), MULTI_LABEL, tmp_path)
    for wrong, words in (("1.png,0,2", "line 5"), ("1.png,0", "line 5"), ("1.png", "line 5")):
        (tmp_path / "val.csv").write_text("\n".join([*lines, wrong]))
        with pytest.raises(UsageError, match=words):
            opened("test", settings, model, MULTI_LABEL, tmp_path)
    (tmp_path / "val.csv").write_text("\n".join([*lines, '1.png,"0,2', "0.png,1,1\n" * 20_000]))
    with pytest.raises(UsageError, match=r"val\.csv, before line \d+: .*; is a quote not closed\?"):
        opened("test", settings, model, MULTI_LABEL, tmp_path)
    (tmp_path / "val.csv").write_text('file,"cat,dog\n' + "0.png,1,1\n" * 20_000)
    with pytest.raises(UsageError, match="is a quote not closed"):
        opened("test", settings, model, MULTI_LABEL, tmp_path)
    (tmp_path / "val.csv").unlink()
    with pytest.raises(UsageError, match=r"no test\.csv or val\.csv"):
        opened("test", settings, model, MULTI_LABEL, tmp_path)


@pytest.mark.parametrize(
    ("name", "task", "augment", "words"),
    [
        ("digits", SEGMENTATION, {}, "digits is for classification, and the task is segmentation: image-masks"),
        ("images", TaskSettings(), {}, "images is for super-resolution, and the task is classification: image-folder"),
        ("image-masks", MULTI_LABEL, {}, "image-labels, or a data set of your own"),
        ("image-masks", SEGMENTATION, {"mixup": 0.2}, "augment.mixup: for classification, not for segmentation"),
        ("image-masks", SEGMENTATION, {"policy": "trivial"}, "augment.policy"),
        ("digits", DOUBLE, {"erase": 0.2}, "augment.erase"),
    ],
)
def test_data_and_a_task_must_fit(tmp_path, name, task, augment, words):
    settings = DataSettings(name=name, holdout=1, augment=AugmentSettings(**augment))
    with pytest.raises(UsageError, match=words):
        opened("train", settings, model_of(1, 8, 8, classes=10), task, tmp_path)


OWN = """
    import random
    import numpy as np
    import torch

    class Noise(torch.utils.data.Dataset):
        def __init__(self, part, count=20, broken=False, **more):
            self.part, self.count, self.broken = part, count + (broken == "count" and part == "train"), broken
        def __len__(self):
            return self.count
        def __getitem__(self, index):
            if self.broken == "item" and index > 3:
                raise KeyError("lost")
            if self.broken in ("int16", "bool", "float16"):
                first = torch.zeros(2, 6, 6, dtype=getattr(torch, self.broken))
                return (first, torch.zeros(1, 3, 3)), {"index": index}
            if self.broken == "pair":
                return torch.zeros(2, 6, 6)
            first = torch.full((2, 6, 6), index, dtype=torch.uint8)
            second = torch.full((1, 3, 3), float(index))
            if self.part == "train":
                second += torch.rand(()) + random.random() + float(np.random.rand())
            if self.broken == "shape" and index % 2:
                return (first, second), {"index": torch.zeros(3)}
            return (first, second), {"index": index, "half": index / 2}

    def alone(part, **more):
        noise = Noise(part, **more)
        return [noise[index][0] for index in range(len(noise))]
"""


def own(tmp_path, part="train", code=OWN, **args):
    (tmp_path / "data.py").write_text(textwrap.dedent(code))
    settings = DataSettings(name="./data.py:Noise", holdout=5, args=args, workers=args.pop("workers", 0))
    return opened(part, settings, model_of(2, 6, 6, inputs=((1, 3, 3),)), TaskSettings(), tmp_path)


def test_items_of_ones_own_may_be_several_tensors(tmp_path):
    images = own(tmp_path, "test")
    ((inputs, targets),) = images.evaluation(20)
    assert shapes(inputs) == "[(20, 2, 6, 6), (20, 1, 3, 3)]"
    assert inputs[0][:, 0, 0, 0].tolist() == pytest.approx([(n / 255 - 0.5) / 0.5 for n in range(20)])  # as images are
    assert inputs[1][:, 0, 0, 0].tolist() == list(range(20))  # as they come
    assert targets["index"].tolist() == list(range(20))
    assert targets["half"].dtype == torch.float32
    for one, other in zip(images.in_memory().evaluation(7), images.evaluation(7), strict=True):
        assert all(map(torch.equal, tensors(one), tensors(other)))


def test_ones_own_data_vary_by_seed_and_place_wherever_they_are_loaded(tmp_path):
    before = random.getstate(), np.random.get_state()[1].tolist()
    here, there = own(tmp_path), own(tmp_path, workers=2)
    some = [list(images.training(8, 1, epoch)) for images, epoch in ((here, 0), (here, 0), (there, 0), (here, 1))]
    flat = [joined([joined([inputs[1] for inputs, _ in batches])]) for batches in some]
    assert torch.equal(flat[0], flat[1])
    assert torch.equal(flat[0], flat[2])
    assert not torch.equal(flat[0].sort(0)[0], flat[3].sort(0)[0])
    assert len(set(flat[0].flatten().tolist())) == len(flat[0])  # each image draws for itself
    halves = [list(here.training(8, 1, 0, rank=rank, size=2)) for rank in range(2)]
    shared = [joined([one[0][1], other[0][1]]) for one, other in zip(*halves, strict=True)]
    assert torch.equal(joined(shared), flat[0])
    ((inputs, _), *_) = here.evaluation(20)
    assert float((inputs[1] % 1).abs().sum()) == 0  # nothing is varied where nothing trains
    assert before[0] == random.getstate()
    assert before[1] == np.random.get_state()[1].tolist()


def test_a_digest_of_ones_own_data_is_of_code_arguments_and_items(tmp_path):
    first = own(tmp_path).source.digest
    assert own(tmp_path).source.digest == first
    assert own(tmp_path, count=19).source.digest != first
    assert own(tmp_path, seed=19).source.digest != first
    assert own(tmp_path, code=OWN + "    # another\n").source.digest != first
    said = OWN.replace("return self.count\n", "return self.count\n        digest = 'mine'\n", 1)
    assert own(tmp_path, code=said).source.digest == own(tmp_path, code=said + "    # another\n").source.digest != first


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("count", "21 items for train and 20 for plain"),
        ("pair", "an item is a pair of an input and a target, not Tensor"),
        ("int16", r"gives images of torch\.int16: they are uint8"),
        ("bool", r"gives images of torch\.bool: they are uint8"),
    ],
)
def test_wrong_data_of_ones_own_are_refused_at_once(tmp_path, broken, words):
    with pytest.raises(UsageError, match=words) as error:
        own(tmp_path, broken=broken)
    assert "data.name" in str(error.value)


def test_floats_of_ones_own_are_single(tmp_path):
    ((first, second), targets), *_ = own(tmp_path, broken="float16").evaluation(2)
    assert {first.dtype, second.dtype} == {torch.float32}
    assert targets["index"].dtype == torch.int64


def test_a_digest_that_cannot_be_is_one_line(tmp_path):
    """A wrong length ended in a traceback, and items that vary in data that were never recognised again."""
    short = OWN.replace("first = torch.full", "list(range(19))[index]\n            first = torch.full")
    with pytest.raises(AutoslimError, match=r"data\.name: item 19 of \./data\.py:Noise: IndexError"):
        own(tmp_path, code=short).source.digest  # noqa: B018
    varies = OWN.replace('if self.part == "train"', 'if self.part != "test"')
    with pytest.raises(
        UsageError, match=r"item 19 .* differs from one reading to the next: those of plain must not vary"
    ):
        own(tmp_path, code=varies).source.digest  # noqa: B018


@pytest.mark.parametrize(
    ("broken", "words"), [("item", "item [4-9] of ./data.py:Noise: KeyError"), ("shape", "no batch")]
)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_fails_is_one_line(tmp_path, broken, words, workers):
    images = own(tmp_path, broken=broken, workers=workers)
    with pytest.raises(AutoslimError, match=words) as error:
        list(images.evaluation(10))
    assert "\n" not in str(error.value)


def test_inputs_are_what_the_model_takes(tmp_path):
    (tmp_path / "data.py").write_text(textwrap.dedent(OWN))
    for name, words in (
        ("./data.py:Noise", r"inputs of shape \(2, 6, 6\) and \(1, 3, 3\), and the model takes \(2, 6, 6\)"),
        ("./data.py:nothing", "has no factory 'nothing'"),
        ("./other.py:Noise", "no file"),
    ):
        settings = DataSettings(name=name, holdout=5, workers=0)
        with pytest.raises(UsageError, match=words):
            opened("train", settings, model_of(2, 6, 6), TaskSettings(), tmp_path)
    settings = DataSettings(name="./data.py:Noise", holdout=5, workers=0, args={"wrong": 1, "count": 0})
    with pytest.raises(UsageError, match="no items for 'plain'"):
        opened("train", settings, model_of(2, 6, 6), TaskSettings(), tmp_path)
    with pytest.raises(ValueError, match="varies its images itself"):
        DataSettings(name="./data.py:Noise", holdout=5, augment=AugmentSettings(flip=True))
    with pytest.raises(ValueError, match="digits, cifar10"):
        DataSettings(name="digit", holdout=5)


def test_a_tree_is_cut_and_joined_along_its_images():
    tree = {"a": torch.arange(7), "b": (torch.arange(14).view(7, 2), torch.zeros(7, 1, 1))}
    parts = split(tree, 3)
    assert [len(tensors(part)[0]) for part in parts] == [3, 2, 2]
    again = joined(parts)
    assert all(map(torch.equal, tensors(again), tensors(tree)))
    assert shapes(again) == "{a: (7,), b: [(7, 2), (7, 1, 1)]}"
    assert mapped([torch.zeros(1)], lambda one: one)[0].shape == (1,)
    with pytest.raises(TypeError, match="str is neither"):
        tensors({"a": "text"})
    assert forward(lambda a, b: a + b, (1, 2)) == 3
