"""Train a network from scratch at given channels, and measure it on the test set once, at the end."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from autoslim_cli.files.checkpoint import MODEL
from autoslim_cli.files.provenance import current_facts, decisive, refuse_to_lose
from autoslim_cli.stages.workshop import Workshop, slug
from autoslim_cli.training.loop import Training, fit
from autoslim_cli.training.measure import evaluate
from autoslim_cli.training.task import classification


def retrain(
    shop: Workshop, name: str, channels: dict[str, int], *, config: Path | None = None, resume: bool = False
) -> dict[str, Any]:
    """Train the network at `channels` and write `model-<name>.safetensors`; return its figures on the test set.

    `config` is the file that the channels come from, if they come from one.
    `resume` continues a stopped training, and keeps a model that is already there and current.
    Raises AutoslimError on a loss that is not finite.
    """
    recipe = shop.recipe
    path = shop.path(f"model-{slug(name)}.safetensors")
    made_from = shop.made_from("data", "retrain", parents=shop.sha256_of(config) if config else None)
    cost = shop.cost(channels)
    result = {"name": name, "path": str(path), **cost}
    state = shop.path(f"model-{slug(name)}.resume.pt")
    if not resume:
        refuse_to_lose(state)
    elif facts := current_facts(path, MODEL, made_from, shop.space.spelled_out(channels)):
        shop.reporter.say(f"{path} is there and current")
        state.unlink(missing_ok=True)
        return {**result, **facts["test"]}
    network = shop.fresh_network(channels)
    agreed = shop.config(channels, network=network)
    images, test = shop.all_training_images(), shop.test_images()
    task = classification(recipe.model.classes, recipe.retrain.label_smoothing)
    shop.reporter.say(f"retraining {name}: {cost['flops'] / 1e6:.2f}M FLOPs, {cost['params'] / 1e6:.3f}M parameters")

    def step(batch: Tensor, labels: Tensor, _number: int) -> Tensor:
        outputs = network(batch)
        task.check(outputs)
        loss = task.loss(outputs, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    training = Training(
        network=network,
        images=images,
        settings=recipe.retrain,
        seed=recipe.seed,
        state=state,
        decisive={**decisive(made_from), "channels": channels},
        step=step,
        zero_gradients=lambda: network.zero_grad(set_to_none=True),
        after_epoch=lambda: "",
        key="retrain",
    )
    fit(training, shop.reporter, resume=resume)
    score = evaluate(network, test.evaluation(512), task)
    shop.save_model(path, network, agreed, {"made_from": made_from, "test": asdict(score)})
    state.unlink(missing_ok=True)
    return {**result, **asdict(score)}
