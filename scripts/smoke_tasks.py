"""Run the recipes of other tasks than classification to their end, through the real commands, and check what comes out.

Their images are generated from the embedded digits: nothing else is needed. Works in runs/smoke-tasks.
"""

import json
import shutil
import time
from pathlib import Path

from checked import autoslim, check

HERE = Path("runs/smoke-tasks")
BUDGET = "50%"
LEAST = {
    "digits-segmentation": ("miou", 0.6),
    "digits-super-resolution": ("psnr", 15.0),
    "digits-multi-label": ("f1", 0.6),
    "digits-detection": ("ap50", 0.6),
}
"""The score that a recipe's searched network reaches on the test images, by its name, well above what chance gives."""


def main() -> None:
    """Do all stages of each recipe at once."""
    started = time.monotonic()
    shutil.rmtree(HERE, ignore_errors=True)
    for name, (score, least) in LEAST.items():
        directory = HERE / name
        autoslim("recipes", "copy", name, str(directory))
        result = autoslim("run", "-r", str(directory), "--flops", BUDGET)
        searched = next(row for row in result["networks"] if row["network"] == "searched")
        check(searched[score] > least, f"{name}, searched, retrained: test {score} {searched[score]:.4g} above {least}")
        again = autoslim("evaluate", searched["path"])
        check(again[score] == searched[score], f"the written checkpoint evaluates to the same {score}")
        config = json.loads((directory / "arch-50pct.json").read_text())
        check(config["cost"]["flops"] == searched["flops"], f"{searched['flops']:,} FLOPs, and fvcore agrees")
    print(f"smoke of tasks passed in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
