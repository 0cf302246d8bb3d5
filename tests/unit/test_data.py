"""Images: what is opened, decoded, fitted and varied, and that it never depends on where pixels are kept."""

import io
import itertools
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoslim_cli.data.augment import erase, mix, vary
from autoslim_cli.data.decode import decode
from autoslim_cli.data.opening import open_source
from autoslim_cli.data.sets import all_images, split_holdout
from autoslim_cli.data.sources import ArraySource, CachedSource
from autoslim_cli.data.transforms import covering, fit
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings, TaskSettings

CPU = torch.device("cpu")
DIGITS = ModelSettings(name="autoslim/cifar_resnet", input=(1, 8, 8), classes=10)
DIGITS_DATA = DataSettings(name="digits", holdout=1)
EVERYTHING = AugmentSettings(crop="pad", padding=2, flip=True, color_jitter=0.4, lighting=0.1)


def model_of(*shape):
    return ModelSettings(name="x", input=shape, classes=10)


def opened(part, settings, model, seed, directory):
    return all_images(open_source(part, settings, model, seed, directory, CPU), settings, model, CPU)


def split(settings, model, seed, directory):
    source = open_source("train", settings, model, seed, directory, CPU)
    return split_holdout(source, settings, model, seed, CPU)


def noise(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def write_folder(root, size, count=12):
    from PIL import Image

    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                colour = (number * 10, 200 if label == "dog" else 20, 50)
                Image.new("RGB", (size, size), colour).save(root / part / label / f"{number}.png")


def write_noise(root, sizes):
    """Write an image of noise of each size (width, height), every third of them grey, for each of two classes."""
    from torchvision.transforms.v2.functional import to_pil_image

    for part in ("train", "val"):
        for number, (width, height) in enumerate(sizes * 2):
            directory = root / part / f"class {number % 2}"
            directory.mkdir(parents=True, exist_ok=True)
            image = to_pil_image(noise(3, height, width, seed=number))
            image = image.convert("L") if number % 3 == 0 else image
            image.save(directory / f"{number}.{('png', 'jpg', 'webp')[number % 3]}")


# -- where pixels are kept ------------------------------------------------------------------------------------------

SIZES = [(32, 32), (40, 30), (30, 60), (96, 96), (150, 100), (64, 130), (100, 96), (20, 20)]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    root = tmp_path_factory.mktemp("noise")
    write_noise(root / "set", SIZES)
    return root


def batches_of(directory, shape, augment, **where):
    settings = DataSettings(name="image-folder", path="set", holdout=4, augment=augment, **where)
    images, holdout = split(settings, model_of(*shape), 1, directory)
    return [*images.training(4, 1, 0), *images.training(4, 1, 1), *images.training(4, 1, 1), *holdout.evaluation(3)]


def assert_same_batches(one, other):
    assert len(one) == len(other) > 0
    for (images, labels), (others, other_labels) in zip(one, other, strict=True):
        assert torch.equal(labels, other_labels)
        assert torch.equal(images, others)


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("crop", ["none", "pad", "resized"])
@pytest.mark.parametrize("flip", [False, True])
def test_memory_and_workers_make_the_same_batches(noisy, size, crop, flip):
    augment = AugmentSettings(crop=crop, flip=flip)
    kept = batches_of(noisy, (3, size, size), augment, memory=2.0)
    assert_same_batches(kept, batches_of(noisy, (3, size, size), augment, memory=0.0, workers=0))


@pytest.mark.parametrize("shape", [(3, 96, 32), (1, 40, 96), (3, 32, 64)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_memory_and_several_workers_make_the_same_batches_of_any_shape_in_all_colours(noisy, shape, monkeypatch):
    from autoslim_cli.data import workers

    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    augment = AugmentSettings(crop="pad", flip=True, color_jitter=(0.4, 0.3, 0.2), lighting=0.1 if shape[0] == 3 else 0)
    kept = batches_of(noisy, shape, augment, memory=2.0)
    assert_same_batches(kept, batches_of(noisy, shape, augment, memory=0.0, workers=2))


@settings(max_examples=8, deadline=None)
@given(
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(5, 90), st.integers(5, 90)),
    crop=st.sampled_from(["none", "pad", "resized"]),
    flip=st.booleans(),
    padding=st.integers(0, 9),
    jitter=st.floats(0, 1),
)
def test_where_pixels_are_kept_is_a_cache(noisy, shape, crop, flip, padding, jitter):
    augment = AugmentSettings(crop=crop, flip=flip, padding=padding, color_jitter=jitter)
    kept = batches_of(noisy, shape, augment, memory=2.0)
    assert_same_batches(kept, batches_of(noisy, shape, augment, memory=0.0, workers=0))


def test_arrays_are_fitted_and_varied_like_files(tmp_path, monkeypatch):
    import torchvision
    from torchvision.transforms.v2.functional import to_pil_image

    pixels = noise(12, 3, 32, 40)

    class Fake:
        def __init__(self, root, download, train):
            self.data, self.targets = pixels.permute(0, 2, 3, 1).numpy(), [n % 2 for n in range(12)]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    order = sorted(range(12), key=lambda n: (n % 2, n))
    for n in range(12):
        directory = tmp_path / f"set/train/{n % 2}"
        directory.mkdir(parents=True, exist_ok=True)
        to_pil_image(pixels[n]).save(directory / f"{n:02}.png")
    for shape in ((3, 24, 24), (1, 70, 40), (3, 32, 40)):
        for crop in ("pad", "resized"):
            augment = AugmentSettings(crop=crop, flip=True, color_jitter=0.4, policy="trivial", mixup=0.2)
            settings = DataSettings(name="cifar10", holdout=1, augment=augment)
            arrays = opened("train", settings, model_of(*shape), 0, tmp_path)
            settings = DataSettings(name="image-folder", path="set", holdout=1, augment=augment, workers=0)
            files = opened("train", settings, model_of(*shape), 0, tmp_path)
            arrays = arrays.select(torch.tensor(order))
            assert_same_batches(list(arrays.training(5, 3, 2)), list(files.training(5, 3, 2)))
            assert_same_batches(list(arrays.evaluation(5)), list(files.evaluation(5)))
            assert_same_batches(list(files.in_memory().evaluation(5)), list(files.evaluation(5)))


def test_only_what_is_asked_for_is_decoded_and_that_once(noisy, monkeypatch):
    from autoslim_cli.data import folder

    decoded = []
    monkeypatch.setattr(folder, "decode", lambda path: decoded.append(path) or decode(path))
    settings = DataSettings(name="image-folder", path="set", holdout=4)
    images, holdout = split(settings, model_of(3, 32, 32), 0, noisy)
    assert not decoded
    for _ in range(2):
        list(holdout.evaluation(3))
        list(images.take(3).evaluation(2))
    assert len(decoded) == len(set(decoded)) == 7


def test_images_that_were_first_read_to_calibrate_or_evaluate_are_trained_on_after(noisy):
    settings = DataSettings(name="image-folder", path="set", holdout=4)
    images, _ = split(settings, model_of(3, 32, 32), 0, noisy)
    with torch.inference_mode():
        list(images.take(3).evaluation(2))
    assert len(list(images.training(4, 1, 0))) == images.steps(4)


# -- geometry -------------------------------------------------------------------------------------------------------


@given(*[st.integers(1, 300)] * 4)
def test_a_resized_image_covers_the_input_and_no_more(rows, columns, height, width):
    size = covering(rows, columns, height, width)
    assert size[0] >= height
    assert size[1] >= width
    assert size[0] == height or size[1] == width
    assert abs(size[0] * columns - size[1] * rows) <= max(rows, columns)  # within a pixel of the same proportions


@settings(deadline=None)
@given(*[st.integers(1, 150)] * 2, *[st.integers(2, 150)] * 2)  # to a single pixel torch itself cannot resize 2x2
def test_no_image_is_padded_black(rows, columns, height, width):
    white = torch.full((3, rows, columns), 255, dtype=torch.uint8)
    fitted = fit(white, height, width)
    assert fitted.shape == (3, height, width)
    assert fitted.min() == 255


def test_evaluation_is_the_usual_one_on_imagenet():
    from torchvision.transforms import v2

    usual = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])
    for rows, columns in ((375, 500), (500, 333), (224, 300), (100, 100)):
        image = noise(3, rows, columns)
        assert torch.equal(fit(image, 224, 224), usual(image))
    image = noise(3, 100, 80)
    assert torch.equal(fit(image, 32, 32), v2.Compose([v2.Resize(32, antialias=True), v2.CenterCrop(32)])(image))
    assert fit(image, 100, 80) is image


def test_a_batch_is_fitted_as_its_images_are():
    images = noise(5, 3, 50, 70)
    for height, width in ((32, 32), (96, 80), (20, 64)):
        assert torch.equal(fit(images, height, width), torch.stack([fit(image, height, width) for image in images]))


# -- chance ---------------------------------------------------------------------------------------------------------


def test_each_image_has_its_own_crop_and_flip():
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(2000, 1, 1, 1)
    settings = AugmentSettings(crop="pad", padding=2, flip=True)
    varied = vary(images, settings, 0)
    assert varied.shape == images.shape
    assert varied.dtype == torch.uint8
    assert len({tuple(image.flatten().tolist()) for image in varied}) == 50  # 5 x 5 places, mirrored or not
    assert torch.equal(varied, vary(images, settings, 0))
    assert not torch.equal(varied, vary(images, settings, 1))
    assert vary(images, AugmentSettings(), 0) is images


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 2**56 - 1), colours=st.sampled_from([1, 3]))
def test_draws_depend_on_the_place_in_the_batch_alone(count, seed, colours):
    augment = EVERYTHING.model_copy(update={"lighting": 0.1 if colours == 3 else 0.0})
    images = noise(40, colours, 9, 12)
    assert torch.equal(vary(images, augment, seed)[:count], vary(images[:count], augment, seed))


MIXED = {
    "colours": {"color_jitter": 0.4, "flip": True, "crop": "pad"},
    "resized, by a policy": {"crop": "resized", "policy": "randaugment"},
    "fitted, by a policy": {"policy": "trivial", "erase": 0.5},
    "mixed": {"crop": "pad", "mixup": 0.2, "cutmix": 1.0, "erase": 0.3},
}


@pytest.mark.parametrize("settings", MIXED.values(), ids=MIXED)
def test_any_number_of_processes_sees_the_same_images(settings, tmp_path):
    augment = AugmentSettings(**settings)
    images = opened("train", DataSettings(name="digits", holdout=1, augment=augment), DIGITS, 0, tmp_path).take(70)
    whole = list(images.training(31, 1, 2))
    assert [len(batch) for batch, _ in whole] == [31, 31]
    for size in (2, 3):
        parts = [list(images.training(31, 1, 2, rank=rank, size=size)) for rank in range(size)]
        joined = [tuple(torch.cat(both) for both in zip(*step, strict=True)) for step in zip(*parts, strict=True)]
        assert_same_batches(joined, whole)
    evaluated = [list(images.evaluation(16, rank=rank, size=2)) for rank in (0, 1)]
    assert_same_batches([*evaluated[0], *evaluated[1]], [list(images.evaluation(16))[n] for n in (0, 2, 4, 1, 3)])


class Copies(TorchDispatchMode):
    """Count copies from the host to a device for which the host waits."""

    def __init__(self):
        super().__init__()
        self.done, self.waited_for = 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten._to_copy.default and result.device != args[0].device:
            self.done += 1
            self.waited_for += not (kwargs or {}).get("non_blocking", False)
        return result


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "loaded"])
def test_batches_reach_a_device_without_waiting_for_it(tmp_path, kept, colours):
    """On the meta device a value that is asked for raises: it has none."""
    augment = AugmentSettings(crop="pad", flip=True, erase=0.5, mixup=0.2, color_jitter=0.2 if colours else 0.0)
    images = opened("train", DataSettings(name="digits", holdout=1, augment=augment), DIGITS, 0, tmp_path)
    meta = torch.device("meta")
    mean, std = (tensor.to(meta) for tensor in (images.mean, images.std))
    source = images.source
    if kept:
        source = ArraySource(source.images, source.labels, (1, 8, 8), meta)
    images = replace(images, source=source, mean=mean, std=std, device=meta)
    with Copies() as copies:
        batches = list(images.training(700, 0, 0))
    assert all(part.device == meta for part in batches[0])
    assert copies.done >= 4
    assert not copies.waited_for


def test_images_to_be_enlarged_are_cropped_and_not_resized(tmp_path):
    """Resized, they would teach what no camera saw."""
    task = TaskSettings(name="super-resolution", scale=2)
    whole = open_source("train", DIGITS_DATA, DIGITS, 0, tmp_path, CPU)
    low = ModelSettings(name="x", input=(1, 2, 2))
    cut = open_source("train", DIGITS_DATA, low, 0, tmp_path, CPU, task)
    indices = [torch.arange(50)]
    (images, _), (parts, _) = next(whole.fitted(indices)), next(cut.fitted(indices))
    assert torch.equal(parts, images[..., 2:6, 2:6])
    larger = ModelSettings(name="x", input=(1, 8, 8))
    with pytest.raises(UsageError, match="it is 16x16, and the images of digits are 8x8, too small: write 4x4 at most"):
        open_source("train", DIGITS_DATA, larger, 0, tmp_path, CPU, task)


@pytest.mark.parametrize("shape", [(3, 12, 16), (1, 8, 8), (3, 5, 1), (3, 1, 5), (1, 1, 1), (3, 1, 1)])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_brought_to_the_mean_and_deviation(shape, several, order):
    channels = shape[0] if several else 1
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    pixels = noise(7, *shape)
    source = ArraySource(pixels, torch.zeros(7, dtype=torch.int64), shape, CPU)
    images = all_images(source, DataSettings(name="digits", holdout=1, mean=mean, std=std), model_of(*shape), CPU)
    given, _ = images._normalised((pixels.to(memory_format=order), torch.zeros(7)))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    assert torch.equal(given, (pixels.float() / 255 - mean) / std)  # to the last bit
    assert given.is_contiguous(memory_format=torch.channels_last)


def test_erasing_sets_a_rectangle_to_the_mean():
    erased = erase(torch.ones(4000, 1, 16, 12), 0.25, 3, range(4000))[:, 0] == 0
    shares = erased.float().mean((1, 2))
    is_hit = shares > 0
    assert is_hit.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert 0.3 < shares.max() < 0.4
    assert shares[is_hit].mean().item() == pytest.approx(0.17, abs=0.02)
    for mask in erased[is_hit][:50]:  # a rectangle, anywhere
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])
    assert (erased.float().mean(0) > 0).all()


def test_erasing_makes_no_pixels_beside_the_images_on_a_device():
    """What it draws for an image is a few numbers: a mask of a batch would be made by the host, and copied."""
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            sizes.extend(one.numel() for one in tree_leaves(made) if isinstance(one, Tensor) and one.device == CPU)
            return made

    images = torch.ones(64, 3, 32, 24, device="meta")
    with Sizes():
        assert erase(images, 0.5, 3, range(64)) is images
    assert 64 * 4 <= max(sizes) <= 64 * 5


def test_mixed_images_have_mixed_labels():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 8, 8).contiguous()
    for kind in ("mixup", "cutmix"):
        mixed, labels = mix(images, torch.arange(5), AugmentSettings(**{kind: 1.0}), 5, 4)
        share = labels[2, 2].item()
        assert 0 < share < 1
        assert labels[2].tolist() == pytest.approx([0, 1 - share, share, 0, 0])
        assert mixed[2].mean().item() == pytest.approx(2 * share + 1 * (1 - share), abs=1e-5)
        assert len(mixed[2].unique()) == (1 if kind == "mixup" else 2)


def test_a_crop_of_the_padded_image_is_torchvisions():
    import torch.nn.functional as F

    images = noise(200, 3, 6, 9)
    varied = vary(images, AugmentSettings(crop="pad", padding=2, flip=True), 0)
    for image, result in zip(images, varied, strict=True):
        padded = F.pad(image, (2,) * 4)
        crops = [padded[:, i : i + 6, j : j + 9] for i in range(5) for j in range(5)]
        assert any(torch.equal(result, crop) or torch.equal(result, crop.flip(2)) for crop in crops)


@pytest.mark.parametrize(
    ("strengths", "function"),
    [((0.5, 0, 0), "adjust_brightness"), ((0, 0.5, 0), "adjust_contrast"), ((0, 0, 0.5), "adjust_saturation")],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_as_torchvision_changes_them(strengths, function, channels):
    from torchvision.transforms.v2 import functional

    images = noise(300, channels, 5, 6)
    varied = vary(images, AugmentSettings(color_jitter=strengths), 7)
    column = 4 + [n > 0 for n in strengths].index(True)
    drawn = torch.rand(300, 10, generator=torch.Generator().manual_seed(7), dtype=torch.float64)[:, column]
    factors = 0.5 + drawn
    for image, result, factor in zip(images, varied, factors.tolist(), strict=True):
        expected = getattr(functional, function)(image.float() / 255, factor) * 255
        assert (result - expected).abs().max() <= 0.51  # rounded once
    if channels == 3 or function != "adjust_saturation":
        assert not torch.equal(images, varied)


def test_changes_of_colour_come_in_every_order():
    from torchvision.transforms.v2 import functional

    images = noise(1, 3, 5, 6).expand(400, -1, -1, -1)
    varied = vary(images, AugmentSettings(color_jitter=(0.9, 0.9, 0.9)), 3)
    table = torch.rand(400, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    functions = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    orders, seen = list(itertools.permutations(range(3))), set()
    for image, result, row in zip(images, varied, table.tolist(), strict=True):
        expected = image.float() / 255
        for kind in orders[int(row[3] * 6)]:
            expected = functions[kind](expected, 0.1 + 1.8 * row[4 + kind])
        assert (result - expected * 255).abs().max() <= 0.51
        seen.add(int(row[3] * 6))
    assert len(seen) == 6


def test_lighting_moves_all_pixels_of_an_image_along_the_principal_colours():
    images = torch.full((4000, 3, 2, 2), 128, dtype=torch.uint8)
    moved = vary(images, AugmentSettings(lighting=0.5), 0).double() - 128
    assert torch.equal(moved[:, :, :1, :1].expand_as(moved), moved)
    covariance = moved[:, :, 0, 0].T.cov() / 255**2
    vectors = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    expected = vectors @ torch.diag((0.5 * torch.tensor([0.2175, 0.0188, 0.0045])) ** 2) @ vectors.T
    torch.testing.assert_close(covariance, expected.double(), rtol=0.06, atol=1e-5)


def test_a_setting_that_is_turned_on_leaves_the_other_draws_as_they_are():
    images = noise(50, 3, 8, 8)
    plain = vary(images, AugmentSettings(crop="pad", flip=True), 5)
    nearly = vary(images, AugmentSettings(crop="pad", flip=True, lighting=1e-9), 5)
    assert torch.equal(plain, nearly)


# -- the holdout, epochs, settings ----------------------------------------------------------------------------------


def test_the_holdout_is_apart_from_training_and_fixed_by_seed(tmp_path):
    settings = DataSettings(name="digits", holdout=200)
    training, holdout = split(settings, DIGITS, 3, tmp_path)
    again = split(settings, DIGITS, 3, tmp_path)[1]
    other = split(settings, DIGITS, 4, tmp_path)[1]
    assert (len(training), len(holdout)) == (1237, 200)
    assert not set(training.indices.tolist()) & set(holdout.indices.tolist())
    assert torch.equal(holdout.indices, again.indices)
    assert not torch.equal(holdout.indices, other.indices)
    assert len(opened("train", settings, DIGITS, 3, tmp_path)) == 1437
    assert len(opened("test", settings, DIGITS, 3, tmp_path)) == 360


def test_an_epoch_that_starts_late_hands_out_what_is_left(tmp_path):
    settings = DataSettings(name="digits", holdout=200, augment=AugmentSettings(crop="pad", flip=True))
    images, _ = split(settings, DIGITS, 0, tmp_path)
    whole, late = list(images.training(64, 0, 5)), list(images.training(64, 0, 5, start=4))
    assert len(whole) == 1237 // 64
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(whole[4:], late, strict=True))
    assert not torch.equal(whole[0][0], next(images.training(64, 0, 6))[0])


@pytest.mark.parametrize("where", [{"memory": 0.0, "workers": 1}, {"memory": 1.0}])
@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_epochs_that_follow_each_other_are_one_pass(noisy, crop, where):
    augment = AugmentSettings(crop=crop, flip=True)
    settings = DataSettings(name="image-folder", path="set", holdout=2, augment=augment, **where)
    images, _ = split(settings, model_of(3, 32, 32), 1, noisy)
    one_by_one = [*images.training(4, 1, 3, start=2), *images.training(4, 1, 4), *images.training(4, 1, 5)]
    assert_same_batches(list(images.training(4, 1, 3, start=2, epochs=3)), one_by_one)


def test_the_first_images_of_an_epoch_are_loaded_before_it_begins(noisy, monkeypatch):
    settings = DataSettings(name="image-folder", path="set", holdout=2, memory=0.0, workers=1)
    images, _ = split(settings, model_of(3, 32, 32), 1, noisy)
    asked, workers = [], images.source.workers
    load = workers.load
    monkeypatch.setattr(workers, "load", lambda batches: load(asked.append(one) or one for one in batches))
    batches, steps = images.training(4, 1, 0, epochs=2), images.steps(4)
    for _ in range(steps):
        next(batches)
    assert len(asked) > steps
    assert asked[steps - 1] != asked[steps]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"holdout": 1437}, "data.holdout"), ({"mean": (0.1, 0.2)}, "data.mean"),
     ({"name": "image-folder", "path": "nowhere"}, "nowhere has no directory train/")],
)  # fmt: skip
def test_wrong_data_settings_are_named(tmp_path, changes, words):
    settings = DataSettings(**{"name": "digits", "holdout": 100, **changes})
    with pytest.raises(UsageError, match=words):
        split(settings, DIGITS, 0, tmp_path)


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_an_image_folder_in_memory_and_by_workers(tmp_path, crop):
    write_folder(tmp_path / "set", 20)
    model = ModelSettings(name="x", input=(3, 16, 16), classes=2)
    settings = DataSettings(
        name="image-folder", path="set", holdout=4, workers=1, augment=AugmentSettings(crop=crop, flip=True)
    )
    images, holdout = split(settings, model, 0, tmp_path)
    assert isinstance(images.source, CachedSource)
    batches = list(images.training(5, 0, 0))
    assert [tuple(x.shape) for x, _ in batches] == [(5, 3, 16, 16)] * 4
    assert all(((x[:, 1].mean((1, 2)) > 0) == (y == 1)).all() for x, y in holdout.evaluation(2))
    late = list(images.training(5, 0, 0, start=2))
    assert torch.equal(late[0][0], batches[2][0])
    assert len(opened("test", settings, model, 0, tmp_path)) == 24


def test_labels_are_those_of_the_training_classes(tmp_path):
    write_folder(tmp_path / "set", 16, count=2)
    model = ModelSettings(name="x", input=(3, 16, 16), classes=2)
    settings = DataSettings(name="image-folder", path="set", holdout=1)
    for image in (tmp_path / "set/val/cat").iterdir():
        image.unlink()
    (tmp_path / "set/val/cat").rmdir()
    assert opened("test", settings, model, 0, tmp_path).source.labels.tolist() == [1, 1]
    (tmp_path / "set/val/cow").mkdir()
    with pytest.raises(UsageError, match=r"cow is a class that .*train does not have"):
        opened("test", settings, model, 0, tmp_path)


def test_torchvision_arrays_of_every_shape_become_uint8_images(tmp_path, monkeypatch):
    import numpy as np
    import torchvision

    class Fake:
        def __init__(self, root, download, **part):
            self.data, self.targets = {
                "CIFAR10": (np.zeros((6, 32, 32, 3), np.uint8), [0, 1, 2, 3, 4, 9]),
                "FashionMNIST": (torch.zeros(6, 28, 28, dtype=torch.uint8), torch.arange(6)),
                "SVHN": (np.zeros((6, 3, 32, 32), np.uint8), np.arange(6)),
            }[kind]
            if kind == "SVHN":
                self.labels = self.targets
                del self.targets
                assert part == {"split": "train"}

    for name, kind in (("cifar10", "CIFAR10"), ("fashion-mnist", "FashionMNIST"), ("svhn", "SVHN")):
        monkeypatch.setattr(torchvision.datasets, kind, Fake)
        settings = DataSettings(name=name, holdout=2)
        for shape in ((3, 32, 32), (1, 28, 28)):
            model = ModelSettings(name="x", input=shape, classes=10)
            images = opened("train", settings, model, 0, tmp_path)
            batch, labels = next(images.evaluation(6))
            assert tuple(batch.shape) == (6, *shape)
            assert labels.dtype == torch.int64


# -- what a set is --------------------------------------------------------------------------------------------------


def test_a_digest_tells_files_and_sizes_but_not_where_they_are(tmp_path):
    for name in ("a", "b"):
        write_folder(tmp_path / name, 16, count=3)
    (tmp_path / "a/train/cat/notes.txt").write_text("no image")

    def digest(name, part="train", **changes):
        settings = DataSettings(name="image-folder", path=name, holdout=1, **changes)
        return open_source(part, settings, model_of(3, 16, 16), 0, tmp_path, CPU).digest

    first = digest("a")
    assert first.startswith("sha256:")
    assert len(first) == 7 + 64
    assert first == digest("b") == digest("b", memory=0.0) == digest("b", "test")
    assert first != digest("a", limit=4)
    (tmp_path / "b/train/cat/0.png").rename(tmp_path / "b/train/cat/00.png")
    renamed = digest("b")
    assert renamed != first
    (tmp_path / "b/train/cat/00.png").write_bytes(b"longer" * 100)
    assert digest("b") not in (first, renamed)
    settings = DataSettings(name="image-folder", path="a", holdout=1)
    source = open_source("train", settings, model_of(3, 16, 16), 0, tmp_path, CPU)
    (tmp_path / "a/train/cat/1.png").unlink()
    with pytest.raises(AutoslimError, match=r"1\.png cannot be read"):
        source.digest  # noqa: B018


def test_a_digest_of_arrays_is_that_of_their_bytes(tmp_path):
    def source(part, **changes):
        return open_source(part, DataSettings(name="digits", holdout=9, **changes), DIGITS, 0, tmp_path, CPU)

    training = source("train")
    assert training.digest == source("train").digest
    assert len({training.digest, source("test").digest, source("train", limit=100).digest}) == 3
    changed = source("train")
    changed.images[0, 0, 0, 0] += 1
    assert changed.digest != training.digest


# -- files ----------------------------------------------------------------------------------------------------------


def save(path, image, **options):
    image.save(path, **options)
    return path


def test_files_of_every_kind_are_decoded(tmp_path):
    import numpy as np
    from PIL import Image

    colour = Image.new("RGB", (5, 4), (200, 100, 50))
    rgb = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 5)
    ramp = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    grey = torch.from_numpy((ramp // 256).astype(np.uint8)).unsqueeze(0)
    assert torch.equal(decode(save(tmp_path / "rgb.png", colour)), rgb)
    cmyk = decode(save(tmp_path / "cmyk.jpg", colour.convert("CMYK"), quality=100))
    assert (cmyk.int() - rgb.int()).abs().max() <= 3
    for name in ("16.png", "16.tif"):
        assert torch.equal(decode(save(tmp_path / name, Image.fromarray(ramp))), grey)
    (tmp_path / "16.pgm").write_bytes(b"P5 5 4 65535\n" + ramp.byteswap().tobytes())
    assert torch.equal(decode(tmp_path / "16.pgm"), grey)
    assert torch.equal(decode(save(tmp_path / "black.png", Image.new("1", (5, 4), 1))), torch.full_like(grey, 255))
    palette = Image.new("P", (5, 4), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(decode(save(tmp_path / "p.png", palette, transparency=bytes([255, 7]))), rgb)
        assert torch.equal(decode(save(tmp_path / "p1.png", palette, transparency=1)), rgb)
        assert torch.equal(decode(save(tmp_path / "rgba.png", Image.new("RGBA", (5, 4), (200, 100, 50, 0)))), rgb)
    assert torch.equal(decode(save(tmp_path / "la.png", Image.new("LA", (5, 4), (9, 0)))), torch.full_like(grey, 9))


def damaged(kind):
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    if kind == "floats":
        Image.fromarray(np.zeros((20, 20), np.float32)).save(buffer, "TIFF")
        return buffer.getvalue()
    Image.effect_noise((80, 80), 50).convert("RGB").save(buffer, "PNG" if kind == "broken png" else "JPEG")
    whole = buffer.getvalue()
    return {
        "truncated": whole[: len(whole) // 2],
        "text": b"this is a letter, not an image\n",
        "empty": b"",
        "broken png": whole[:40] + b"\0" * 60 + whole[100:],
    }[kind]


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "broken png", "floats"])
@pytest.mark.parametrize("where", [{"memory": 0.0, "workers": 0}, {"memory": 0.0, "workers": 1}, {"memory": 1.0}])
def test_a_damaged_file_is_named_in_one_line(tmp_path, kind, where):
    write_folder(tmp_path / "set", 16, count=3)
    (tmp_path / "set/train/dog/bad.jpg").write_bytes(damaged(kind))
    settings = DataSettings(name="image-folder", path="set", holdout=1, **where)
    images = opened("train", settings, model_of(3, 16, 16), 0, tmp_path)
    with pytest.raises(AutoslimError, match=r"^\S*bad\.jpg cannot be read as an image \(.+\); remove it") as raised:
        list(images.evaluation(4))
    assert len(str(raised.value).splitlines()) == 1
