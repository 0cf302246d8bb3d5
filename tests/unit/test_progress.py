"""What a person sees of long work: lines without a terminal, one bar and one summary on it. The clock is a fake."""

import io
import itertools
import threading

import pytest
from rich.console import Console

from autoslim_cli import progress
from autoslim_cli.progress import LINE_EVERY, Drawn, Lines, Reporter, Talk, duration, repeated


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def on_terminal(width=80):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def test_lines_come_at_least_every_half_minute_and_say_what_remains(clock):
    said = []
    bar = Lines("training 4 epochs", 400, lambda line: said.append((clock.now, line)), clock)
    for done in range(1, 401):
        clock.now += 0.5
        bar(done, lambda done=done: f"loss {done}")
    times = [1000.0, *(at for at, _ in said), clock.now]
    assert max(after - before for before, after in itertools.pairwise(times)) <= 30
    assert len(said) == 200 / LINE_EVERY
    assert said[0][1] == "training 4 epochs: 50/400  2/s, 3 min left  loss 50"
    assert said[-1][1] == "training 4 epochs: 400/400  2/s, 0 s left  loss 400"


def test_quiet_work_between_steps_is_told_of(clock):
    said = []
    bar = Lines("calibrating", 4, said.append, clock)
    for _ in range(60):  # a minute of decoding before anything is done
        clock.now += 1
        bar.tick()
    assert said == ["calibrating: 0/4  25 s so far", "calibrating: 0/4  50 s so far"]
    clock.now += 20
    bar(1, lambda: "width-1")
    assert said[2:] == ["calibrating: 1/4  80 s each, 4 min left  width-1"]
    clock.now += LINE_EVERY
    bar.tick()
    assert len(said) == 4


def test_no_line_is_composed_before_it_is_due(clock):
    bar = Lines("searching", 10, pytest.fail, clock)
    for done in range(1, 10):
        clock.now += 1
        bar(done, lambda: pytest.fail("looked, which waits for the work in flight"))
        bar.tick()


def test_a_resumed_rate_is_of_what_this_run_did(clock):
    said = []
    bar = Lines("training", 1000, said.append, clock)
    clock.now += 30
    bar(901, str)  # 900 were done before
    clock.now += 30
    bar(902, str)
    assert said == ["training: 901/1000  30 s each, 50 min left", "training: 902/1000  30 s each, 49 min left"]


def test_the_rate_is_of_late(clock):
    """A log that is read again goes by quickly; the work after it does not."""
    said = []
    bar = Lines("searching", 200, said.append, clock)
    for done in range(1, 101):
        bar(done, str)
    for done in range(101, 141):
        clock.now += 60
        bar(done, str)
    assert said[-1] == "searching: 140/200  60 s each, 60 min left"


def test_a_stretch_is_a_line_and_puts_the_next_one_off(clock):
    said = []
    bar = Lines("training", 40, said.append, clock)
    for done in range(1, 5):
        clock.now += 20
        bar(done, str)
        bar.passed(f"epoch {done}/40  loss 1.0")
    assert len(said) == 4
    assert said[0] == "epoch 1/40  loss 1.0  20 s each, 13 min left"


def test_without_a_terminal_a_silent_bar_still_speaks(clock, monkeypatch):
    """The thread that looks is real, the clock that it looks at is not."""
    spoke = threading.Event()

    class File(io.StringIO):
        def write(self, text):
            spoke.set()
            return super().write(text)

    monkeypatch.setattr(progress, "LOOK_EVERY", 0.001)
    file = File()
    with Reporter(Console(file=file, force_terminal=False, width=80, soft_wrap=True), clock=clock).bar("decoding", 8):
        assert not file.getvalue()
        clock.now += LINE_EVERY
        assert spoke.wait(60)
    assert file.getvalue() == "decoding: 0/8  25 s so far\n"


def test_work_that_counts_nothing_is_told_of(clock):
    said = []
    opening = Lines("opening the train images", 0, said.append, clock)
    for _ in range(2):
        clock.now += LINE_EVERY
        opening.tick()
    assert said == ["opening the train images: 25 s so far", "opening the train images: 50 s so far"]
    console = on_terminal()
    with Reporter(console, clock=clock).doing("opening the train images"):
        pass
    assert "opening the train images" in console.file.getvalue()
    assert console.file.getvalue().count("\n") == 1  # the line that is erased


def test_the_thread_that_looks_ends_with_the_work():
    before, looked = set(threading.enumerate()), threading.Event()
    with repeated(looked.set, 0.001):
        assert looked.wait(60)
        (thread,) = set(threading.enumerate()) - before
    assert not thread.is_alive()


def test_on_a_terminal_forty_epochs_leave_one_line(clock):
    console = on_terminal()
    with Reporter(console, clock=clock).bar("training 40 epochs", 40) as bar:
        assert isinstance(bar, Drawn)
        for done in range(1, 41):
            clock.now += 1
            bar(done, lambda: "410 images/s")
            bar.passed(f"epoch {done}/40  loss {1 / done:.3f}")
    written = console.file.getvalue()
    assert written.rstrip("\n").endswith("epoch 40/40  loss 0.025")
    assert written.count("\n") < 12  # what scrolls: the bar is drawn over itself
    assert [line for line in written.split("\n") if line.startswith("epoch")] in ([], ["epoch 40/40  loss 0.025"])


def test_a_narrow_terminal_cuts_no_figure_of_a_bar(clock):
    console = on_terminal()
    console.width = 60
    with Reporter(console, clock=clock).bar("searching", 21) as bar:
        for done in range(1, 22):
            clock.now += 1
            bar(done, lambda: "1.295M FLOPs, 912.9K FLOPs left  loss 0.515")
    written = console.file.getvalue()
    assert "21/21" in written
    assert "912.9K FLOPs left  loss 0.515" in written
    assert "\N{HORIZONTAL ELLIPSIS}" not in written


def test_a_bar_that_is_interrupted_keeps_its_last_stretch(clock):
    console = on_terminal()

    def work():
        with Reporter(console, clock=clock).bar("training", 9) as bar:
            bar.passed("epoch 1/9")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert console.file.getvalue().rstrip("\n").endswith("epoch 1/9")


def test_a_dumb_terminal_gets_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with Reporter(on_terminal(), clock=clock).bar("training", 9) as bar:
        assert isinstance(bar, Lines)


def test_a_warning_is_said_once(clock):
    file = io.StringIO()
    reporter = Reporter(Console(file=file), clock=clock)
    for text in ("this", "that", "this"):
        reporter.warn(text)
    assert file.getvalue() == "warning: this\nwarning: that\n"


def test_quiet_is_quiet(clock):
    file = io.StringIO()
    with Reporter(Console(file=file), talk=Talk.NOTHING, clock=clock).bar("training", 9) as bar:
        clock.now += 1000
        bar(1, lambda: "text")
        bar.passed("epoch 1/9")
    assert not file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9e3, "2.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
