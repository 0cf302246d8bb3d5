"""Do a training from its settings to its files, unless they are there and current."""

from collections.abc import Callable
from pathlib import Path

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.lock import locked
from autoslim_cli.files.provenance import current_facts, decisive, decisive_difference, refuse_to_lose, set_aside
from autoslim_cli.progress import Reporter
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.job import Facts, Job, Training
from autoslim_cli.training.loop import fit


def trained(
    job: Job, build: Callable[[], Training], reporter: Reporter, ranks: Ranks, *, resume: bool
) -> dict[Path, Facts]:
    """Return the facts of each of a training's files, which are written unless they are there and current.

    `build` is called if there is anything to train. `resume` continues a stopped training, and keeps what is current;
    what is not, or is trained anew without it, is kept under another name. A stopped training that is not continued is
    lost if the job is forced. The processes of a job share the work, and the first one writes. Raises UsageError if a
    stopped training would be lost else, if a finished file would be replaced that the job may not replace, or another
    command makes one of the files, AutoslimError on a loss that is not finite.
    """
    assert job.state is not None  # of a job with files
    with locked(*job.channels, job.state):  # joint trainings of other networks have the same state
        return _trained(job, build, reporter, ranks, resume=resume)


def _trained(
    job: Job, build: Callable[[], Training], reporter: Reporter, ranks: Ranks, *, resume: bool
) -> dict[Path, Facts]:
    """Do a training while its files are locked."""
    assert job.state is not None
    # 1. Keep what is there and current, and lose nothing. Processes that train something else would wait for each
    # other in vain, or sum what does not belong together.
    ranks.agreed(
        {**decisive(job.made_from), "channels": job.decisive["channels"]}, f"conditions of a training ({job.name})"
    )
    current = _current(job, reporter) if resume else {}
    if resume:
        found = {path.name: current.get(path) or "missing or not current" for path in job.channels}
        ranks.agreed(found, "files made by training")
    if not resume:
        if not job.forced:
            refuse_to_lose(job.state)
        for path in filter(Path.exists, job.channels):
            if not job.replaces:
                raise UsageError(f"{path} is there: --resume keeps it if it is current, --force makes it anew")
            reporter.say(f"{path} is there: without --resume it is made anew, and the old one kept")
    elif current.keys() == job.channels.keys():
        for path in current:
            reporter.say(f"{path} is there and current")
        _clean_up(job, reporter, ranks)
        return current
    elif not job.replaces and not job.state.exists() and (there := next(filter(Path.exists, job.channels), None)):
        raise UsageError(f"{there} is finished, and not what would be made now; --force makes it anew, and keeps it")
    # 2. Build, and train to the end.
    with reporter.doing("opening the images and building the network"):
        training = build()
    if job.forced:
        _give_up(job, reporter, ranks, resume=resume)
    fit(job, training, reporter, ranks, resume=resume)
    # 3. Measure, and write; what it could be continued from goes last.
    with reporter.doing("measuring what was trained"):
        results = training.results()
    facts = {}
    for path, result in results.items():
        if path in current:  # of several the one that was written before a kill
            facts[path] = current[path]
            continue
        facts[path] = {**result.facts, "made_from": job.made_from}
        if not ranks.first:
            continue
        if path.exists():
            reporter.say(f"{path}: the one that was there is kept as {set_aside(path).name}")
        checkpoint.save(path, job.format, result.tensors, facts[path])
    _clean_up(job, reporter, ranks)
    return facts


def _give_up(job: Job, reporter: Reporter, ranks: Ranks, *, resume: bool) -> None:
    """Remove the states of a stopped training that is not continued; with `resume` one of these settings is."""
    assert job.state is not None
    if ranks.first:
        states = [path for path in (*checkpoint.older_states(job.state), job.state) if path.exists()]
        lost = [path for path in states if not resume or _of_another(path, job)]
        for path in lost:
            path.unlink()
        if lost:
            reporter.say(f"{lost[-1]}: the stopped training that was there is given up (--force)")
    ranks.wait("the stopped training that is given up")


def _clean_up(job: Job, reporter: Reporter, ranks: Ranks) -> None:
    """Remove what a training that is over could be continued from; all processes see the same files then.

    A state of other settings is another training's, which may have taken hours: it stays, and `reporter` says so.
    """
    if ranks.first and job.state:
        for path in filter(Path.exists, (*checkpoint.older_states(job.state), job.state)):
            if why := _of_another(path, job):
                reporter.say(f"{path} is kept: {why}")
            else:
                path.unlink()
    ranks.wait("the end of a training")


def _of_another(path: Path, job: Job) -> str:
    """Say why a state is not of this training: nothing if it is."""
    try:
        why = decisive_difference(checkpoint.load_state(path).get("decisive"), job.decisive)
    except (ArtifactError, RuntimeError):  # damaged, or of values that cannot be compared
        return "it cannot be read, so it may be of another training"
    return f"a stopped training with other settings ({why}); restore them, and --resume continues it" if why else ""


def _current(job: Job, reporter: Reporter) -> dict[Path, Facts]:
    """Return the facts of those of the job's files that are there and current."""
    found = {
        path: current_facts(path, job.format, job.made_from, counts, reporter.say)
        for path, counts in job.channels.items()
    }
    return {path: facts for path, facts in found.items() if facts}
