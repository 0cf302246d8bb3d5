"""Train a network from scratch at given channels, and measure it on the test set once, at the end."""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from autoslim_cli.files.checkpoint import MODEL
from autoslim_cli.stages.currency import is_current
from autoslim_cli.stages.workshop import Workshop, slug
from autoslim_cli.training.loop import Training, fit
from autoslim_cli.training.measure import evaluate


def retrain(
    shop: Workshop, name: str, channels: dict[str, int], *, resume: bool = False, keep: bool = False
) -> dict[str, Any]:
    """Train the network at `channels` and write `model-<name>.safetensors`; return its figures on the test set.

    `keep` returns a model that is already there and current instead of training it again.
    """
    recipe = shop.recipe
    path = shop.path(f"model-{slug(name)}.safetensors")
    made_from = shop.made_from("data", "retrain")
    cost = {"flops": shop.flops(channels), "params": shop.params(channels)}
    result = {"name": name, "path": str(path), **cost}
    if keep and (facts := is_current(path, MODEL, made_from, channels)):
        shop.reporter.say(f"{path} is there and current")
        return {**result, **facts["test"]}
    network = shop.fresh_network(channels)
    config = shop.config(channels, network=network)
    images = shop.all_training_images()
    shop.reporter.say(f"retraining {name}: {cost['flops'] / 1e6:.2f}M FLOPs, {cost['params'] / 1e6:.3f}M parameters")

    def step(batch: Tensor, labels: Tensor, _number: int) -> Tensor:
        loss = F.cross_entropy(network(batch).float(), labels, label_smoothing=recipe.retrain.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    training = Training(
        network=network,
        images=images,
        settings=recipe.retrain,
        seed=recipe.seed,
        state=state_path(shop, name),
        made_from={**made_from, "channels": channels},
        step=step,
        zero_gradients=lambda: network.zero_grad(set_to_none=True),
        after_epoch=lambda: "",
        key="retrain",
    )
    fit(training, shop.reporter, resume=resume)
    score = evaluate(network, shop.test_images().evaluation(512))
    test = {"loss": score.loss, "top1": score.top1}
    shop.save_model(path, network, config, {"made_from": made_from, "test": test})
    training.state.unlink(missing_ok=True)
    return {**result, **test}


def state_path(shop: Workshop, name: str) -> Path:
    """Return where the training state of a network is kept until it is trained."""
    return shop.path(f"model-{slug(name)}.resume.pt")
