"""Run all stages of the cifar10-smoke recipe through the real commands, and check what comes out.

Expects the images in data/cifar10-jpeg/{train,test}/<class>/ (`make smoke` unpacks them). Works in runs/smoke.
"""

import shutil
import time
from pathlib import Path

from checked import autoslim, check

HERE = Path("runs/smoke")
BUDGET = "50%"
CHANCE = 0.1


def main() -> None:
    """Train, calibrate, search, retrain, evaluate."""
    started = time.monotonic()
    shutil.rmtree(HERE, ignore_errors=True)
    autoslim("recipes", "copy", "cifar10-smoke", str(HERE))
    recipe = ("-r", str(HERE))

    supernet = autoslim("train-supernet", *recipe)
    for width in ("largest", "base"):
        top1 = supernet["widths"][width]["top1"]
        check(top1 > 3.5 * CHANCE, f"supernet, {width} width: holdout top-1 {top1:.1%} is well above chance")

    found = autoslim("search", "--flops", BUDGET, *recipe)
    (config,) = found["configs"]
    facts = autoslim("info", config["path"])
    check(facts["fvcore_flops"] <= facts["base"]["flops"] / 2, f"the budget holds: {facts['fvcore_flops']} by fvcore")
    check(config["flops"] == facts["fvcore_flops"], "the search's FLOPs are fvcore's")

    cut = autoslim("calibrate-bn", "--widths", "0.5:1.0:0.5", "--channels", config["path"], *recipe)
    check(len(cut["subnetworks"]) == 3, "three calibrated sub-networks")
    subnet = cut["subnetworks"][-1]
    check(subnet["top1"] > 2.5 * CHANCE, f"searched, without retraining: holdout top-1 {subnet['top1']:.1%}")

    model = autoslim("retrain", config["path"])
    check(model["top1"] > 3.5 * CHANCE, f"searched, retrained: test top-1 {model['top1']:.1%} is well above chance")
    check(model["flops"] == config["flops"], "the retrained network has the searched FLOPs")
    again = autoslim("evaluate", model["path"])
    check(again["top1"] == model["top1"], "the written checkpoint evaluates to the same top-1")

    for name in ("supernet.safetensors", "search.jsonl", "arch-50pct.json", "model-50pct.safetensors"):
        check((HERE / name).is_file(), f"{HERE / name} is there")
    check(not list(HERE.glob("*.resume.pt")) and not list(HERE.glob(".*.part")), "nothing half-done is left")
    print(f"smoke passed in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
