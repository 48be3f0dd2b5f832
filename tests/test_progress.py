"""The progress line, on a fake clock: in place on a terminal, lines in a log."""

from __future__ import annotations

import io
import types

import pytest

from models import progress
from models.progress import Progress, ProgressLine, print_above, track


class Clock:
    """A time that tests move."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def show_on(stream: io.StringIO, monkeypatch) -> None:
    """Lets the line see this as both outputs; pytest itself puts its own in place of those of `sys`."""
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stdout=stream, stderr=stream))


@pytest.fixture
def log(monkeypatch) -> io.StringIO:
    show_on(stream := io.StringIO(), monkeypatch)
    return stream


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    show_on(stream := Terminal(), monkeypatch)
    return stream


def run(line: ProgressLine, clock: Clock, steps: list[Progress], seconds: float = 10) -> None:
    """A call of `show` after every so many seconds."""
    for step in steps:
        clock.now += seconds
        line.show(step)


FORMS = {
    "of a known number": (
        Progress(20, "pairs", 100, "fetch", detail="90.0% fetched"),
        "job: fetch: 20/100 pairs (20%), 2 pairs/s, 00:40 left; 90.0% fetched",
    ),
    "by the share of the work": (Progress(5000, "rows", share=0.25), "job: 5,000 rows (25%), 500 rows/s, 00:30 left"),
    "of an unknown number": (Progress(5, "images"), "job: 5 images, 0.5 images/s, 00:10"),
    "without numbers": (Progress(0, "", stage="finish"), "job: finish, 00:10"),
    "after an interrupted run": (
        Progress(60, "pairs", 100, before=50),
        "job: 60/100 pairs (60%), 1 pairs/s, 00:40 left",
    ),
    "after an interrupted run, by work": (
        Progress(600, "rows", None, before=500, share=0.6, share_before=0.5),
        "job: 600 rows (60%), 10 rows/s, 00:40 left",
    ),
    "nothing new yet": (Progress(50, "pairs", 100, before=50), "job: 50/100 pairs (50%)"),
    "more than the work": (Progress(9, "rows", share=1.2), "job: 9 rows (100%), 0.9 rows/s, 00:00 left"),
    "a stage named like the command": (Progress(0, "rows", 9, "job"), "job: 0/9 rows (0%)"),
    "nothing to do": (Progress(0, "pairs", 0), "job: 0/0 pairs, 00:10"),
}


@pytest.mark.parametrize(("step", "text"), FORMS.values(), ids=FORMS)
def test_one_form(step, text, clock, log, monkeypatch):
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 10)
    run(ProgressLine("job"), clock, [step])
    assert log.getvalue() == text + "\n"


def test_a_log_has_a_line_every_so_often_and_one_at_the_end(clock, log):
    with ProgressLine("job") as line:
        run(line, clock, [Progress(done, "pairs", 9) for done in range(1, 10)])
    assert log.getvalue().splitlines() == [
        "job: 3/9 pairs (33%), 0.1 pairs/s, 01:00 left",
        "job: 6/9 pairs (66%), 0.1 pairs/s, 00:30 left",
        "job: 9/9 pairs (100%), 0.1 pairs/s, 00:00 left",
        "job: 9/9 pairs (100%), 0.1 pairs/s, took 01:30",
    ]


def test_a_stage_has_its_own_rate_and_the_end_tells_the_whole_time(clock, log):
    with ProgressLine("job") as line:
        run(line, clock, [Progress(1000, "rows", 1000, "select")] * 2)
        run(line, clock, [Progress(10, "pairs", 30, "fetch"), Progress(20, "pairs", 30, "fetch")])
    assert log.getvalue().splitlines()[0] == "job: fetch: 10/30 pairs (33%), 1 pairs/s, 00:20 left"
    assert log.getvalue().splitlines()[-1] == "job: fetch: 20/30 pairs (66%), 1 pairs/s, took 00:40"


def test_a_terminal_s_line_is_rewritten_and_cut(clock, terminal):
    with ProgressLine("job") as line:
        run(line, clock, [Progress(done, "pairs", 3, detail="many words " * 20) for done in (1, 2, 3)])
    shown = terminal.getvalue()
    assert shown.count("\n") == 1 and shown.endswith("\n")
    lines = shown.rstrip("\n").split("\r")[1:]
    assert all(len(line) <= progress.DEFAULT_COLUMNS for line in lines)
    assert [line[: len("job: 1/3")] for line in lines[:3]] == ["job: 1/3", "job: 2/3", "job: 3/3"]


def test_results_stand_above_a_terminal_s_line(clock, terminal):
    with ProgressLine("job") as line:
        run(line, clock, [Progress(1, "pairs", 3)])
        before = len(terminal.getvalue())
        print_above("a result")
        cleared, result, again = terminal.getvalue()[before:].removeprefix("\r").split("\r")
    assert not cleared.strip() and result == "a result\n" and again.startswith("job: 1/3 pairs")


def test_results_in_a_log_are_lines(clock, log):
    with ProgressLine("job") as line:
        run(line, clock, [Progress(1, "pairs", 3)], seconds=40)
        print_above("a result")
    assert [line[:8] for line in log.getvalue().splitlines()] == ["job: 1/3", "a result", "job: 1/3"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_quick_command_shows_nothing(is_terminal, clock, monkeypatch):
    shown = Terminal() if is_terminal else io.StringIO()
    show_on(shown, monkeypatch)
    with ProgressLine("job") as line:
        run(line, clock, [Progress(1, "pairs", 1)], seconds=0.1)
    assert shown.getvalue() == ""
    with ProgressLine("job", min_shown_s=0) as line:
        run(line, clock, [Progress(1, "pairs", 1)], seconds=0.1)
    assert "job: 1/1 pairs (100%), 10 pairs/s, took 00:00" in shown.getvalue()


def test_an_error_ends_the_line(clock, terminal):
    with pytest.raises(ValueError), ProgressLine("job") as line:
        run(line, clock, [Progress(1, "pairs", 3)])
        raise ValueError
    assert terminal.getvalue().endswith("\n") and "took" not in terminal.getvalue()


def test_items_are_tracked(clock, log):
    def items():
        for name in "abcd":
            clock.now += 31
            yield name

    assert list(track(items(), "job", "shards", 4)) == list("abcd")
    assert log.getvalue().splitlines()[1] == "job: 2/4 shards (50%), 0.0323 shards/s, 01:02 left"


def test_long_silences_are_announced(clock, log):
    line = ProgressLine("job")
    clock.now += 3
    line.show(Progress(0, "", stage="merge"), now=True)
    assert log.getvalue() == "job: merge, 00:03\n"
