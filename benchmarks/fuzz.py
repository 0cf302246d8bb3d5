"""Feed every reader of files with damaged ones: what is wrong in a file must end in one line, and soon.

python benchmarks/fuzz.py [--minutes 1] [--seed 0] [--input 12] [--keep DIR] [--json]

A corpus of sound files is made on the spot; bytes, JSON values, the facts and tensors of checkpoints, and the factory
that a file names are then mutated. Prints how many inputs each reader had, how many it took as sound, and `tracebacks`
(anything but autoslim's own errors; running out of 3 GiB is one, and a score or weight taken as sound that cannot be is
another), `hangs` (10 s) and `executions` (a process started, a connection opened): the last three should be 0. `--keep`
writes the inputs that did harm.
"""

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from fuzzing.corpus import REFUSED, corpus
from fuzzing.damage import PAYLOAD, mutated
from fuzzing.readers import Reader, readers_of

from autoslim_cli.errors import AutoslimError

HANG_S = 10
MEMORY = 3 * 2**30
BAD = ("tracebacks", "hangs", "executions")


@dataclass
class Counted:
    """What came of a reader's inputs."""

    inputs: int = 0
    sound: int = 0
    tracebacks: int = 0
    hangs: int = 0
    executions: int = 0
    harm: dict[str, str] = field(default_factory=dict)


class HangError(BaseException):
    """A reader took too long."""


EXECUTED: list[str] = []
READING = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what a file must never bring about."""
    if READING and event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
        EXECUTED.append(f"{event} {arguments!r}"[:200])


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def tried(reader: Reader, path: Path, counted: Counted) -> tuple[str, str]:
    """Let a reader read one input; return what it did wrong, nothing if it did not, and what it said."""
    global READING  # noqa: PLW0603  audit hooks take no arguments of ours
    problem = said = ""
    EXECUTED.clear()
    signal.alarm(HANG_S)
    READING = True
    try:
        reader.read(path)
        counted.sound += 1
    except AutoslimError as error:
        problem, said = "more than one line" if "\n" in str(error) else "", str(error)
        counted.tracebacks += bool(problem)
    except HangError:
        counted.hangs += 1
        problem = "hang"
    except (Exception, RecursionError) as error:
        counted.tracebacks += 1
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "autoslim_cli" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"
        problem = f"{type(error).__name__} at {where}"
        said = " ".join(str(error).split())
    finally:
        READING = False
        signal.alarm(0)
    if EXECUTED:
        counted.executions += 1
        problem = f"executed {EXECUTED[0]}"
    return problem, said[:200]


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, over all readers")
    parser.add_argument("--seed", type=int, default=0, help="which damage is done")
    parser.add_argument("--input", type=int, help="only the input of this number, as what did harm is named")
    parser.add_argument("--readers", help="which readers, by comma; by default all")
    parser.add_argument("--keep", type=Path, help="a directory for inputs that did harm")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Mutate and read until the time is over; print what came of it."""
    arguments = options()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _too_long)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        wanted = arguments.readers.split(",") if arguments.readers else None
        readers = [one for one in readers_of(corpus(directory)) if wanted is None or one.name in wanted]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        sys.addaudithook(_watch)
        refuse_unsound(readers)
        counts = fed(readers, directory, arguments)
    total = {key: sum(getattr(one, key) for one in counts.values()) for key in ("inputs", "sound", *BAD)}
    if arguments.json:
        seconds = round(time.monotonic() - began, 1)
        print(json.dumps({**total, "seconds": seconds, "readers": {name: vars(one) for name, one in counts.items()}}))
    else:
        for name, one in counts.items():
            wrong = ", ".join(f"{getattr(one, key)} {key}" for key in BAD)
            print(f"{name:16}{one.inputs:>8} inputs {one.sound:>8} sound {wrong}")
            for problem, where in one.harm.items():
                print(f"    {problem} ({where})")
    sys.exit(1 if any(total[key] for key in BAD) else 0)


def refuse_unsound(readers: Sequence[Reader]) -> None:
    """Exit if a reader does not read a file as it was made: damage would show nothing."""
    for reader in readers:
        for file in reader.files:
            as_made = Counted()
            problem = tried(reader, file, as_made)
            if not as_made.sound and file.name not in REFUSED:
                sys.exit(f"{reader.name} does not read {file.name} as it was made: {problem}")


def fed(readers: Sequence[Reader], directory: Path, arguments: argparse.Namespace) -> dict[str, Counted]:
    """Feed the readers in turn until the time is over, or the one input that was asked for."""
    originals = {file: file.read_bytes() for reader in readers for file in reader.files}
    inputs = directory / "inputs"
    inputs.mkdir()
    for place in (directory, inputs):
        (place / "payload.py").write_text(PAYLOAD)
    counts = {reader.name: Counted() for reader in readers}
    began, number = time.monotonic(), arguments.input or 0
    while time.monotonic() - began < 60 * arguments.minutes:
        reader, rng = readers[number % len(readers)], random.Random(f"{arguments.seed}-{number}")
        file = rng.choice(reader.files)
        path = inputs / f"input{file.suffix}"
        path.write_bytes(mutated(originals[file], file.suffix, rng))
        counted = counts[reader.name]
        counted.inputs += 1
        problem, said = tried(reader, path, counted)
        if problem and problem not in counted.harm:
            counted.harm[problem] = f"seed {arguments.seed}, input {number}: {said}"
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                kept = arguments.keep / f"{reader.name.replace(' ', '-')}-{number}{file.suffix}"
                kept.write_bytes(path.read_bytes())
        number += 1
        if arguments.input is not None:
            break
    return counts


if __name__ == "__main__":
    main()
