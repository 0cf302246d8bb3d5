"""Train several found networks as one slimmable network, and split it after (AutoSlim, section 4.1)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from autoslim_cli.errors import UsageError
from autoslim_cli.files.provenance import decisive, refuse_to_lose
from autoslim_cli.slimming.supernet import Supernet, largest
from autoslim_cli.stages.workshop import Workshop
from autoslim_cli.training.loop import Training, fit
from autoslim_cli.training.measure import evaluate
from autoslim_cli.training.sandwich import run_switches, sandwich_step
from autoslim_cli.training.task import classification

STATE_FILE = "joint.resume.pt"


def retrain_jointly(shop: Workshop, configs: list[Path], *, resume: bool = False) -> list[dict[str, Any]]:
    """Train the networks of channel configs with shared weights and private BN; write `model-<name>.safetensors` each.

    All learn from the labels, in every step. Returns their figures on the test set.
    """
    recipe = shop.recipe
    found = {path.stem.removeprefix("arch-"): shop.read_channels(path, bounded=False) for path in configs}
    if len(found) < 2:
        raise UsageError("--joint: name two or more channel configs of different names")
    switches = dict(sorted(found.items(), key=lambda item: shop.flops(item[1]), reverse=True))
    made_from = shop.made_from("data", "retrain", parents=shop.sha256_of(*configs))
    state = shop.path(STATE_FILE)
    if not resume:
        refuse_to_lose(state)
    full = largest(switches)
    network = Supernet(shop.fresh_network(full), shop.reading, full, switches)
    agreed = {name: shop.config(channels) for name, channels in switches.items()}
    images, test = shop.all_training_images(), shop.test_images()
    task = classification(recipe.model.classes, recipe.retrain.label_smoothing)
    first, *others = switches

    def step(batch: Tensor, labels: Tensor, _number: int) -> Tensor:
        return sandwich_step(run_switches(network), batch, labels, first, others, task=task, distill=False)

    costs = "  ".join(f"{name} {shop.flops(channels) / 1e6:.2f}M" for name, channels in switches.items())
    shop.reporter.say(f"retraining jointly: FLOPs {costs}")
    training = Training(
        network=network,
        images=images,
        settings=recipe.retrain,
        seed=recipe.seed,
        state=state,
        decisive={**decisive(made_from), "switches": switches},
        step=step,
        zero_gradients=network.zero_gradients,
        after_epoch=lambda: "",
        key="retrain",
    )
    fit(training, shop.reporter, resume=resume)
    rows = []
    for name, channels in switches.items():
        plain = network.extract(channels, name)
        score = evaluate(plain, test.evaluation(512), task)
        path = shop.path(f"model-{name}.safetensors")
        facts = {"made_from": made_from, "test": asdict(score), "joint": list(switches)}
        shop.save_model(path, plain, agreed[name], facts)
        rows.append({"name": name, "path": str(path), **shop.cost(channels), **asdict(score)})
    state.unlink(missing_ok=True)
    return rows
