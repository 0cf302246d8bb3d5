"""Run a latency suite through ONNX Runtime: what the runner of any device does, in forty lines.

    autoslim export --latency-suite suite -r RECIPE
    python benchmarks/run_suite.py suite --device "my board" [--threads 2]
    autoslim profile --import suite -r RECIPE

It reads manifest.json, runs every file that it names, and writes times.json:
{"suite": the manifest's id, "device": {"name": ...}, "ms": {file: ms}}.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime


def milliseconds(file: Path, threads: int, samples: int = 9) -> float:
    """Return the median time of a file, each sample of at least two milliseconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {one.name: np.random.rand(*one.shape).astype(np.float32) for one in session.get_inputs()}

    def sample(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            session.run(None, feed)
        return (time.perf_counter() - started) / calls * 1e3

    sample(2)
    calls = max(1, min(1000, int(2 / sample(2)) + 1))
    return statistics.median(sample(calls) for _ in range(samples))


def main() -> None:
    """Run all files of a suite; the networks twice, some time apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    manifest = json.loads((options.suite / "manifest.json").read_text())
    networks = [network["file"] for network in manifest["networks"]]
    first = {file: milliseconds(options.suite / file, options.threads) for file in networks}
    layers = [file for layer in manifest["layers"] for file in layer["files"]]
    ms: dict[str, float | list[float]] = {f: milliseconds(options.suite / f, options.threads) for f in layers}
    ms |= {file: [first[file], milliseconds(options.suite / file, options.threads)] for file in networks}
    version = f"onnxruntime {onnxruntime.__version__}"
    device = {"name": options.device, "kind": "cpu", "threads": options.threads, "version": version}
    (options.suite / "times.json").write_text(
        json.dumps({"suite": manifest["id"], "device": device, "ms": ms}, indent=1)
    )
    print(f"{options.suite / 'times.json'}: {len(ms)} files")


if __name__ == "__main__":
    main()
