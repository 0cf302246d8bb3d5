"""The backbone of a detector alone is slimmed: supernet = extracted detector, through its own forward and losses."""

import copy
import random
from functools import partial

import pytest
import torch
import torchvision
from conftest import randomise_norms
from torch import nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from autoslim_cli.cost import closed_form
from autoslim_cli.cost.activation_memory import ActivationMemory
from autoslim_cli.cost.configs import config_of, read_channels
from autoslim_cli.cost.costs import Costs
from autoslim_cli.cost.fvcore_count import agree
from autoslim_cli.data.batch import Each, forward
from autoslim_cli.errors import UsageError
from autoslim_cli.files.channel_config import write_config
from autoslim_cli.latency.building import build_network, build_piece
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.models.trust import Trust
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.tensors import tensors_in
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import Recipe
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.candidate import CURRENT, Candidate
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.stages.evaluate import untrained_model
from autoslim_cli.training.detection import detection

pytestmark = pytest.mark.slow

SHAPE = (3, 64, 64)
SMALL = {"min_size": 64, "max_size": 64, "box_batch_size_per_image": 16, "rpn_post_nms_top_n_train": 50}
SMALL |= {"rpn_pre_nms_top_n_train": 50, "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 20}
TAKEN = "what backbone gives to the rest of the network"


def ssdlite():
    network = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    )
    resize = network.transform  # for images of 320x320 alone: ten times the work
    network.transform = GeneralizedRCNNTransform(
        64, 64, resize.image_mean, resize.image_std, size_divisible=1, fixed_size=SHAPE[1:]
    )
    return network


def faster_rcnn():
    return torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=4, **SMALL
    )


def keypoint_rcnn():
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)
    network = KeypointRCNN(body, 2, num_keypoints=3, **SMALL)
    network.roi_heads.keypoint_head = KeypointRCNNHeads(256, (32,))
    network.roi_heads.keypoint_predictor = KeypointRCNNPredictor(32, 3)
    return network


DETECTORS = {"ssdlite": (ssdlite, 31, 6), "faster_rcnn": (faster_rcnn, 30, 2), "keypoint_rcnn": (keypoint_rcnn, 13, 4)}


def targets_of(count, keypoints=0):
    boxes = torch.tensor([[4.0, 4.0, 40.0, 44.0], [20.0, 10.0, 60.0, 60.0]])
    points = torch.cat([torch.full((2, keypoints, 2), 30.0), torch.ones(2, keypoints, 1)], 2)
    one = {"boxes": boxes, "labels": torch.tensor([1, 1]), **({"keypoints": points} if keypoints else {})}
    return [one] * count


def close(given, expected, tolerance=1e-5):
    for one, other in zip(tensors_in(given), tensors_in(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@pytest.mark.filterwarnings("ignore:grad and param do not obey")  # views of the full-size gradients, as meant
@pytest.mark.parametrize("name", DETECTORS)
def test_the_backbone_alone_is_slimmed(name):
    build, free, given = DETECTORS[name]
    network = build()
    randomise_norms(network)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    reading = read(network, SHAPE, part="backbone")
    table = reading.table
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert {row.name.partition(".")[0] for row in table.rows} == {"backbone"}
    assert len(list(table.free)) == free
    assert [unit.pinned for unit in table.units if unit.pinned] == [TAKEN] * given
    assert table.notes == ()
    assert reading.inputs == (SHAPE,)
    space = Space.of(table, width=1.5, min_width=0.25, groups=8, divisor=8)
    plain = fresh(network, table, space.largest)
    randomise_norms(plain)
    supernet = Supernet(copy.deepcopy(plain), reading, space.largest).eval()
    images = torch.rand(2, *SHAPE)
    channels = space.random(random.Random(1), low=0.5)
    extracted = supernet.extract(channels)
    supernet.activate(channels)
    with torch.inference_mode():
        # 1. The detector runs through its own forward pass, and finds the same boxes.
        close(supernet.body.backbone(images), extracted.backbone(images))
        close(supernet(images), extracted(images), 1e-3)
    # 2. What it costs is the part's; what it weighs is the whole's.
    assert agree(extracted, reading, channels) == closed_form.flops(table, channels)
    # 3. Losses and gradients of all sub-networks of a step are those of extracted detectors, and add up in place.
    targets = targets_of(2, 3 if name == "keypoint_rcnn" else 0)
    supernet.train()
    supernet.zero_gradients()
    expected: dict[str, torch.Tensor] = {}
    for counts in (space.largest, channels):
        supernet.activate(counts)
        torch.manual_seed(0)
        losses = supernet(images, targets)
        sum(losses.values()).backward()
        alone = supernet.extract(counts).train()
        torch.manual_seed(0)
        wanted = alone(images, targets)
        sum(wanted.values()).backward()
        assert losses.keys() == wanted.keys()
        for key, loss in losses.items():
            torch.testing.assert_close(loss, wanted[key], rtol=1e-4, atol=1e-5)
        for key, parameter in alone.named_parameters():
            if not key.startswith("backbone") and parameter.grad is not None:
                expected[key] = expected.get(key, 0) + parameter.grad
    gradients = {key: parameter.grad for key, parameter in supernet.body.named_parameters()}
    for key, gradient in expected.items():
        torch.testing.assert_close(gradients[key], gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max()))
    assert all(gradients[row.name + ".weight"].abs().sum() > 0 for row in table.rows if row.multiplies)
    # 4. No running average is kept, in the heads neither.
    for key, buffer in supernet.body.named_buffers():
        if "running" in key:
            assert torch.equal(buffer, dict(plain.named_buffers())[key]), key


@pytest.mark.parametrize("name", ["ssdlite", "faster_rcnn"])
def test_candidates_are_scored_through_the_whole_detector(name):
    network = DETECTORS[name][0]()
    reading = read(network, SHAPE, part="backbone")
    space = Space.of(reading.table, width=1.0, min_width=0.25, groups=4, divisor=8)
    supernet = Supernet(fresh(network, reading.table, space.largest), reading, space.largest)
    evaluator = ForkedEvaluator(supernet)
    images, targets = torch.rand(2, *SHAPE), targets_of(2)
    options = [Candidate.of({unit: count}) for unit in space.units if (count := space.slimmed(space.largest, unit))]
    some = [CURRENT, *random.Random(1).sample(options, 3)]
    forked = dict(evaluator.forked_logits(images, space.largest, some, targets))
    assert set(forked) == set(some)
    for option, (losses, found) in forked.items():
        whole = evaluator.logits(images, option.applied(space.largest), targets)
        assert losses.keys() == whole.losses.keys()
        for key, loss in losses.items():
            torch.testing.assert_close(loss, whole.losses[key], rtol=1e-3, atol=1e-4)
        assert [set(one) for one in found] == [{"boxes", "labels", "scores"}] * 2
    detections = evaluator.logits(images, space.largest)
    assert [set(found) for found in detections] == [{"boxes", "labels", "scores"}] * 2
    assert not any(module.training for module in supernet.modules())
    assert evaluator.peak_bytes(images, space.largest, some[:2]) > 0


@pytest.mark.parametrize("name", ["faster_rcnn", "keypoint_rcnn"])
def test_a_detector_computes_its_losses_itself(name):
    """In training mode as ever; measured, with the very same outputs, and losses that do not depend on chance."""
    network = DETECTORS[name][0]()
    task, images = detection(4, "backbone"), Each(torch.rand(3, 64, side) for side in (64, 48))
    targets = Each(targets_of(2, 3 if name == "keypoint_rcnn" else 0))
    learned = task.learned(task.run(partial(forward, network.train()), images, targets), targets)
    assert learned > 0
    assert learned.requires_grad
    network.eval()
    with torch.inference_mode():
        losses, found = task.measured(network, images, targets)
        again = task.measured(network, images, targets)
        close(found, network(images))
    assert not any(module.training for module in network.modules())
    assert ("loss_keypoint" in losses) == (name == "keypoint_rcnn")
    assert all(torch.equal(loss, again.losses[key]) for key, loss in losses.items())
    kept = task.sums(again, targets).tolist()
    assert task.scored(task.together([kept, kept]), 4).loss == pytest.approx(float(sum(losses.values())), rel=1e-5)
    with pytest.raises(UsageError, match=r"gives no losses of targets .* KeyError"):
        task.run(lambda given: {}["masks"], images, targets)


def test_a_searched_classifier_becomes_a_backbone():
    """A slim ResNet, cut out of a supernet of classifiers, reads as the body of a Faster R-CNN."""
    classifier = torchvision.models.resnet18(num_classes=10)
    reading = read(classifier, SHAPE)
    space = Space.of(reading.table, width=1.0, min_width=0.25, groups=8, divisor=8)
    channels = space.random(random.Random(2))
    slim = Supernet(copy.deepcopy(classifier), reading, reading.table.base).extract(channels)
    stages = [getattr(slim, f"layer{n}")[-1].conv2.out_channels for n in (1, 2, 3, 4)]
    body = BackboneWithFPN(slim, {f"layer{n}": str(n) for n in (1, 2, 3, 4)}, stages, 32)
    detector = FasterRCNN(body, 4, min_size=64, max_size=64).eval()
    assert len(detector(torch.rand(2, *SHAPE))) == 2
    table = read(detector, SHAPE, part="backbone").table
    assert table.base["backbone.body.layer1.0.conv1"] == channels["layer1.0.conv1"]
    assert not [unit.pinned for unit in table.units if unit.pinned and "backbone gives" not in unit.pinned]


class Twice(nn.Module):
    """A network whose part is called with words, never, or twice."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.unused, self.head = nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        return self.head(self.features(input=x))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            "featurs",
            "Twice has no part 'featurs'; expected is one of features, unused, head, .* did you mean features",
        ),
        ("unused", "the forward pass never calls unused"),
        ("features", "features is called with more than tensors by position"),
    ],
)
def test_a_part_that_cannot_be_found_is_one_line(part, words):
    with pytest.raises(UsageError, match=words) as error:
        read(Twice(), (3, 8, 8), part=part)
    assert "\n" not in str(error.value)


def test_frozen_norms_are_refused():
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    with pytest.raises(UsageError, match=r"backbone\.body\.bn1 is a FrozenBatchNorm2d, .* torch\.nn\.BatchNorm2d"):
        read(FasterRCNN(body, 2, min_size=64, max_size=64), SHAPE, part="backbone")


def test_a_part_that_is_called_twice_is_refused_where_it_is_scored():
    class Again(Twice):
        def forward(self, x):
            return self.head(self.features(self.head(self.features(x))))

    network = Again()
    reading = read(network, (3, 8, 8), part="features")
    evaluator = ForkedEvaluator(Supernet(network, reading, reading.table.base))
    with pytest.raises(UsageError, match="features is called more than once in a forward pass"):
        evaluator.logits(torch.rand(1, 3, 8, 8), reading.table.base)


def test_a_recipe_names_the_part(tmp_path):
    """Pins by pattern, costs, latency pieces, a config and a checkpoint's digest are those of the traced part."""
    (tmp_path / "net.py").write_text(NET)
    recipe = Recipe.model_validate(
        {
            "model": {"name": "./net.py:detector", "input": SHAPE, "classes": 4, "trace": "inner.backbone"},
            "data": {"name": "digits", "holdout": 10},
            "space": {"pin": ["*layer1*"], "groups": 4},
            "supernet": {"width": 1.0, "min_width": 0.25},
            "train": {"epochs": 1},
            "retrain": {"epochs": 1},
        }
    )
    network = BaseNetwork.of(recipe, tmp_path, torch.device("cpu"))
    reading, table = network.reading, network.reading.table
    pins = {unit.name: unit.pinned for unit in table.units if unit.pinned}
    assert pins.pop("inner.backbone.body.layer1.0.conv1") == "space.pin: *layer1*"
    assert all(name.startswith("inner.backbone.") for name in table.base)
    assert "inner.backbone.body.layer3.0.conv1" not in pins
    assert BaseNetwork.of(recipe, tmp_path, torch.device("cpu")).digest == network.digest
    # 1. A config whose FLOPs fvcore agrees with, written and read.
    channels = network.space.uniform(0.5)
    costs = Costs.closed_form(table)
    config = config_of(network, costs, channels)
    write_config(tmp_path / "arch-half.json", config)
    assert read_channels(tmp_path / "arch-half.json", network, costs, bounded=True) == channels
    built, config = untrained_model(tmp_path / "arch-half.json", Trust(anything=True))
    assert config.model.trace == "inner.backbone"
    assert len(built(torch.rand(2, *SHAPE))) == 2
    # 2. Memory and latency are of the part.
    whole = pieces(reading)
    assert ActivationMemory.of(reading, whole)(channels) > 0
    part, inputs = build_network(reading, channels, 2)
    assert [tuple(tensor.shape) for tensor in inputs] == [(2, *SHAPE)]
    assert set(part.eval()(*inputs)) == {"0", "1", "2", "3", "pool"}
    first, given = build_piece(reading, whole[0], channels, 2)
    assert first(*given) is not None


NET = """
from functools import partial
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

class Detector(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        body = resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
        self.inner = FasterRCNN(body, num_classes, min_size=64, max_size=64, rpn_pre_nms_top_n_test=20)

    def forward(self, images):
        return self.inner(images)

def detector(num_classes):
    return Detector(num_classes)
"""
