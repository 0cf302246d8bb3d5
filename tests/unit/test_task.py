"""Tasks: what they lose and score, that scores add up over batches, and what is refused in one line."""

import math

import pytest
import torch
import torch.nn.functional as F

from autoslim_cli import Metric, Task
from autoslim_cli.data.batch import joined, split
from autoslim_cli.errors import UsageError
from autoslim_cli.files.channel_config import Found, Holdout
from autoslim_cli.files.facts import possible
from autoslim_cli.recipe.schema import Recipe
from autoslim_cli.searching.problem import Problem
from autoslim_cli.training.measure import evaluate
from autoslim_cli.training.opening import task_of
from autoslim_cli.training.sandwich import sandwich_step
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import l1
from autoslim_cli.training.tasks import classification, multi_label, segmentation, super_resolution

CLASSES, SIDE = 4, 6


def masks_of(count, ignored=0.1):
    masks = torch.randint(CLASSES, (count, SIDE, SIDE))
    masks[torch.rand(masks.shape) < ignored] = 255
    return masks


def made(name):
    """Return a task, and outputs and targets of 12 images."""
    images = torch.rand(12, 3, SIDE, SIDE)
    return {
        "classification": (classification(CLASSES), torch.randn(12, CLASSES), torch.randint(CLASSES, (12,))),
        "segmentation": (segmentation(CLASSES), torch.randn(12, CLASSES, SIDE, SIDE), masks_of(12)),
        "dictionary": (
            segmentation(CLASSES),
            {"aux": torch.randn(12, CLASSES, SIDE, SIDE), "out": torch.randn(12, CLASSES, SIDE, SIDE)},
            masks_of(12),
        ),
        "super-resolution": (super_resolution(), images + 0.1 * torch.randn_like(images), images),
        "multi-label": (multi_label(CLASSES), torch.randn(12, CLASSES), (torch.rand(12, CLASSES) > 0.6).long()),
    }[name]


ALL = ("classification", "segmentation", "dictionary", "super-resolution", "multi-label")


def scored(task, outputs, targets, pieces=1):
    parts = zip(split(outputs, pieces), split(targets, pieces), strict=True)
    return evaluate(torch.nn.Identity(), parts, task)


@pytest.mark.parametrize("name", ALL)
def test_a_score_does_not_depend_on_the_batches(name):
    task, outputs, targets = made(name)
    whole = scored(task, outputs, targets)
    for pieces in (2, 5, 12):
        one = scored(task, outputs, targets, pieces)
        assert one.value == pytest.approx(whole.value, rel=1e-6)
        assert one.loss == pytest.approx(whole.loss, rel=1e-6)
    assert scored(task, joined(split(outputs, 5)), targets) == whole


def test_labels_may_be_shares_of_the_classes():
    task, outputs, labels = made("classification")
    shares = torch.nn.functional.one_hot(labels, outputs.shape[1])
    for given in (shares, shares.bool(), 0.9 * shares + 0.1 / outputs.shape[1]):
        assert task.sums(outputs, given)[1] == task.sums(outputs, labels)[1]
    torch.testing.assert_close(task.sums(outputs, shares), task.sums(outputs, labels))
    torch.testing.assert_close(task.learned(outputs, shares), task.learned(outputs, labels))


def test_mean_iou_is_of_all_pixels_together():
    task, outputs, masks = made("segmentation")
    masks[:6] = 0  # no other class occurs there
    named, counts = outputs.argmax(1), masks != 255
    shares = []
    for label in range(CLASSES):
        said, true = (named == label) & counts, (masks == label) & counts
        shares.append(float((said & true).sum() / (said | true).sum()))
    score = scored(task, outputs, masks)
    assert score.value == pytest.approx(sum(shares) / CLASSES, rel=1e-6)
    each = [scored(task, outputs[n : n + 1], masks[n : n + 1]).value for n in range(12)]
    assert abs(sum(each) / 12 - score.value) > 1e-3  # which a mean over images is not


def test_classes_that_do_not_occur_do_not_count():
    task, masks = segmentation(CLASSES), torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    outputs = torch.zeros(2, CLASSES, SIDE, SIDE)
    outputs[:, 0] = 1
    assert scored(task, outputs, masks).value == 1.0


def test_a_class_that_is_ignored_is_not_among_those_of_the_mean():
    """A pixel of another class that is called so would give it an intersection of nothing with something."""
    task = segmentation(3, ignore_index=0)
    masks = torch.tensor([[[1, 1, 2, 2]]])
    named = torch.tensor([[[0, 1, 2, 2]]])
    outputs = F.one_hot(named, 3).permute(0, 3, 1, 2).float()
    assert scored(task, outputs, masks).value == pytest.approx((1 / 2 + 1) / 2)


def test_ignored_pixels_teach_and_score_nothing():
    task, outputs, masks = made("segmentation")
    changed = outputs.clone().requires_grad_()
    task.learned(changed, masks).backward()
    ignored = (masks == 255).unsqueeze(1).expand_as(outputs)
    assert float(changed.grad[ignored].abs().sum()) == 0 < float(changed.grad[~ignored].abs().sum())
    others = torch.where(ignored, torch.randn_like(outputs), outputs)
    assert scored(task, others, masks) == scored(task, outputs, masks)
    assert float(task.learned(outputs, masks)) == pytest.approx(
        float(F.cross_entropy(outputs, masks, ignore_index=255))
    )
    assert float(task.learned(outputs, torch.full_like(masks, 255))) == 0


def test_further_outputs_of_a_segmentation_network_learn_and_one_is_scored():
    task, outputs, masks = made("dictionary")
    one, other = (F.cross_entropy(outputs[name], masks, ignore_index=255) for name in ("out", "aux"))
    assert float(task.learned(outputs, masks)) == pytest.approx(float(one + 0.5 * other))
    assert scored(task, outputs, masks) == scored(task, outputs["out"], masks)
    sums = [task.sums(one, masks).tolist() for one in ((outputs["out"], outputs["aux"]), outputs["out"])]
    assert sums[0] == sums[1]


def test_psnr_is_the_mean_of_the_images():
    task, images = super_resolution(), torch.rand(3, 1, 4, 4) * 0.5 + 0.25
    errors = torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)
    score = scored(task, images + errors, images)
    assert score.value == pytest.approx((20 + 40 + 100) / 3, rel=1e-4)
    assert score.loss == pytest.approx(0.11 / 3, rel=1e-4)
    assert scored(task, images * 0 + 7, images * 0 + 1).value == pytest.approx(100)  # cut off at 1


def test_f1_is_of_all_decisions():
    task = multi_label(2)
    outputs, labels = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1, 0], [1, 1]])
    assert scored(task, outputs, labels).value == pytest.approx(2 * 2 / (3 + 3))
    assert scored(task, -torch.ones(1, 2), torch.zeros(1, 2)).value == 1.0


@pytest.mark.parametrize("name", ALL)
def test_smaller_networks_learn_to_give_what_the_largest_gives(name):
    task, outputs, _ = made(name)
    target = task.target(outputs)
    same = {key: one.clone().requires_grad_() for key, one in outputs.items()} if name == "dictionary" else None
    copy = same or outputs.clone().requires_grad_()
    task.distilled(copy, target).backward()
    for tensor in same.values() if same else [copy]:
        assert float(tensor.grad.abs().max()) < 1e-6
    assert float(task.distilled(split(outputs, 2)[0], split(target, 2)[1])) > float(task.distilled(outputs, target))


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "words"),
    [
        ("classification", torch.zeros(3, 5), torch.zeros(3).long(), "(images, classes) = (3, 4)"),
        ("classification", torch.zeros(3, 4), torch.zeros(3, 6, 6).long(), "labels of shape (3,)"),
        ("classification", torch.zeros(3, 4), torch.zeros(3), "of whole numbers, but the data gives torch.float32"),
        ("classification", torch.zeros(3, 4), torch.tensor([0, 4, 3]), "labels from 0 to 3, as the network gives 4"),
        ("classification", torch.zeros(3, 4), torch.tensor([0, -1, 3]), "but the data gives -1 to 3"),
        ("segmentation", torch.zeros(3, 4, 3, 3), torch.zeros(3, 6, 6).long(), "gives (3, 4, 3, 3)"),
        ("segmentation", torch.zeros(3, 4), torch.zeros(3).long(), "masks (images, height, width), but the data gives"),
        ("segmentation", {"aux": torch.zeros(3, 4, 6, 6)}, torch.zeros(3, 6, 6).long(), "one is called out"),
        ("super-resolution", torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 8, 8), "(3, 1, 8, 8), but the network gives"),
        ("multi-label", torch.zeros(3, 4), torch.zeros(3).long(), "labels of 0 or 1 of shape (images, labels)"),
    ],
)  # fmt: skip
def test_outputs_and_targets_of_another_shape_are_named(name, outputs, targets, words):
    task, _, _ = made(name)
    for use in (task.learned, task.sums):
        with pytest.raises(UsageError) as error:
            use(outputs, targets)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["classification", "segmentation", "dictionary", "multi-label"])
def test_outputs_are_checked_before_there_are_data(name):
    task, outputs, _ = made(name)
    two = split(outputs, 6)[0]
    task.check_outputs(two, (3, SIDE, SIDE))
    with pytest.raises(UsageError, match="expects"):
        task.check_outputs(torch.zeros(2, 9), (3, SIDE, SIDE))


def own(**changes):
    parts = {
        "loss": l1,
        "statistics": lambda outputs, targets: (outputs - targets).abs().sum(),
        "score": lambda sums, images: sums[0] / images,
    }
    metric = Metric(name="error", higher_is_better=False)
    return Task(**{"name": "own", "metric": metric, **parts, **changes})


def test_a_task_needs_no_more_than_a_loss_and_a_score():
    outputs, targets = torch.randn(7, 3), torch.randn(7, 3)
    whole = scored(own(), outputs, targets)
    assert whole.loss == pytest.approx(float((outputs - targets).abs().mean()))
    assert scored(own(), outputs, targets, 3).loss == pytest.approx(whole.loss)
    assert whole.value == pytest.approx(3 * whole.loss)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": lambda outputs, targets: (outputs - targets).abs()}, "a tensor of shape (), but it gives (7, 3)"),
        ({"loss": lambda outputs, targets: 3.0}, "but it gives float"),
        ({"score": lambda sums, images: math.nan}, "error of 7 images is nan, where a number was expected"),
        ({"statistics": lambda outputs, targets: outputs.sum() / 0}, "where a number was expected"),
        ({"score": lambda sums, images: None}, "its score is NoneType, where a number was expected"),
        ({"score": lambda sums, images: torch.ones(3)}, "its score is (3,), where a number was expected"),
        ({"statistics": lambda outputs, targets: None}, "its statistics are NoneType, where numbers were expected"),
        (
            {"statistics": lambda outputs, targets: outputs.mean(1)},
            "are 7 numbers of 7 images, 1 of one: they must add up",
        ),
        ({"losses": lambda outputs, targets: outputs.mean()}, "its losses are () of 7 images, where one of each"),
        ({"losses": lambda outputs, targets: outputs}, "its losses are (7, 3) of 7 images"),
        (
            {"metric": Metric(name="error", unit="%"), "score": lambda sums, images: 93.0},
            "error of 7 images is 93, and of the unit % a score is a fraction from 0 to 1",
        ),
        (
            {"metric": Metric(name="kappa", unit="%"), "score": lambda sums, images: -0.03},
            "kappa of 7 images is -0.03, and of the unit % a score is a fraction from 0 to 1",
        ),
    ],
)
def test_a_loss_that_is_not_one_number_and_a_score_that_is_none_are_refused(changes, words):
    with pytest.raises(UsageError) as error:
        scored(own(**changes), torch.ones(7, 3), torch.zeros(7, 3))
    assert words in str(error.value)


def test_statistics_of_batches_of_several_sizes_that_do_not_add_up_are_refused():
    """It ended in a traceback; those of a fixed number of sums may be as many as there are images."""
    each = own(statistics=lambda outputs, targets: outputs.mean(1))
    with pytest.raises(UsageError, match="its statistics are 1 numbers or 3: they must add up over batches"):
        each.together([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0]])
    three = own(statistics=lambda outputs, targets: outputs.sum(0), score=lambda sums, images: sum(sums) / images)
    assert scored(three, torch.ones(3, 3), torch.zeros(3, 3)).value == 3
    # What cannot be asked of one image alone is taken as it is.
    squeezed = own(statistics=lambda outputs, targets: [len(outputs), *outputs.squeeze()[0][:1]])
    assert squeezed.sums(torch.ones(2, 3), torch.zeros(2, 3)).tolist()[1:] == [2, 1]


def test_a_rate_of_errors_may_be_above_one():
    rate = own(metric=Metric(name="error", unit="%", higher_is_better=False), score=lambda sums, images: 1.2)
    score = scored(rate, torch.ones(7, 3), torch.zeros(7, 3))
    assert score.value == 1.2
    assert score.possible


def test_figures_without_calibration_may_be_below_zero_as_the_metric_may():
    possible({"loss": 1.0, "r2": 0.4, "uncalibrated_r2": -0.8, "flops": 3.0}, Metric(name="r2"))
    with pytest.raises(ValueError, match="flops is below zero"):
        possible({"loss": 1.0, "r2": 0.4, "flops": -3.0}, Metric(name="r2"))


def test_what_losses_of_own_tasks_come_to_is_not_known():
    metric = own().metric
    assert all(Score(loss, -5.0, metric).possible for loss in (-3.5, 2e6))
    assert not any(Score(loss, 1.0, metric).possible for loss in (math.nan, math.inf))
    assert not any(Score(loss, 0.5).possible for loss in (-3.5, 2e6, math.nan))


def test_pixels_are_counted_beyond_what_floats_count():
    side = 4097  # squared: 8,193 more than 2 ** 24
    logits = torch.zeros(1, CLASSES, 1, 1).expand(1, CLASSES, side, side)
    counted = segmentation(CLASSES).statistics(logits, torch.zeros(1, side, side, dtype=torch.int64))
    assert counted.tolist() == [side**2, 0, 0, 0] * 2


def test_inputs_may_be_several():
    a, b, targets = torch.randn(6, 3), torch.randn(6, 3), torch.randn(6, 3)
    network = torch.nn.Bilinear(3, 3, 3)
    whole = evaluate(network, [((a, b), targets)], own())
    parts = evaluate(network, zip(split((a, b), 2), split(targets, 2), strict=True), own())
    assert whole.loss == pytest.approx(parts.loss)
    seen = []

    def run(inputs, key):
        seen.append(key)
        return network(*inputs)

    losses = sandwich_step(run, (a, b), targets, "largest", ["smallest"], task=own(), distill=True)
    assert seen == ["largest", "smallest"]
    assert float(losses[1]) == 0 < float(losses[0])


def test_harm_is_by_the_score_where_that_is_asked_for_and_whichever_way_is_better():
    recipe = Recipe.model_validate(MINIMAL)
    for metric, worse in ((Metric(name="psnr", unit="dB"), 20.0), (Metric(name="error", higher_is_better=False), 40.0)):
        before, after = Score(1.0, 30.0, metric), Score(1.5, worse, metric)
        for score, harm in (("loss", (0.5, 10.0)), (metric.name, (10.0, 0.5))):
            settings = recipe.search.model_copy(update={"score": score})
            problem = Problem(None, None, (), settings, noise=(1e-5, 0.01))
            assert problem.harm(after, before) == harm
            assert problem.noises == ((1e-5, 0.01) if score == "loss" else (0.01, 1e-5))


MINIMAL = {
    "model": {"name": "autoslim/cifar_resnet", "input": [1, 8, 8], "classes": 10},
    "data": {"name": "digits", "holdout": 100},
    "train": {"epochs": 1},
    "retrain": {"epochs": 1},
}


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"name": "detections"}, "classification, segmentation, super-resolution, multi-label, detection, or your own"),
        ({"name": "segmentation", "scale": 2}, "scale is of task.name: super-resolution"),
        ({"ignore_index": 3}, "ignore_index is of task.name: segmentation"),
        ({"args": {"a": 1}}, "args are those of your own task's factory"),
        ({"scale": 2.5, "name": "super-resolution"}, "scale"),
    ],
)
def test_what_a_task_does_not_have_is_refused(task, words):
    with pytest.raises(ValueError, match=words):
        Recipe.model_validate({**MINIMAL, "task": task})


def test_a_task_without_classes_needs_none(tmp_path):
    model = {"name": "autoslim/edsr", "input": [1, 8, 8]}
    recipe = Recipe.model_validate({**MINIMAL, "model": model, "task": {"name": "super-resolution", "distill": "l1"}})
    assert task_of(recipe, tmp_path).metric.unit == "dB"
    with pytest.raises(UsageError, match=r"model\.classes is missing"):
        task_of(Recipe.model_validate({**MINIMAL, "model": model}), tmp_path)
    with pytest.raises(UsageError, match="label_smoothing"):
        task_of(recipe, tmp_path, recipe.train.model_copy(update={"label_smoothing": 0.1}))


def test_a_found_config_holds_its_score_under_its_name():
    of = {"budget": "flops<=1", "holdout": Holdout(images=3, seed=0), "loss": 1.0, "step": 3, "supernet": "sha256:0"}
    assert Found.model_validate({**of, "top1": 0.5}).score == 0.5
    psnr = {"name": "psnr", "label": "PSNR", "unit": "dB"}
    found = Found.model_validate({**of, "metric": psnr, "psnr": 27.5})
    assert found.model_dump(mode="json")["psnr"] == found.score == 27.5
    assert found.metric.show(found.score) == "27.50 dB"
    for wrong in ({}, {"top1": 0.5, "other": 1}, {"metric": psnr, "top1": 0.5}, {"top1": "half"}):
        with pytest.raises(ValueError):  # noqa: PT011
            Found.model_validate({**of, **wrong})


def test_a_metric_is_not_called_what_files_have_for_something_else():
    for name in ("loss", "flops", "Top-1", ""):
        with pytest.raises(ValueError):  # noqa: PT011
            Metric(name=name)
