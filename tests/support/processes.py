"""Runs tests in several processes that are forked once all of them are imported.

A worker of pytest-xdist is a new Python, which spends twenty seconds of a processor on importing them again. The tests
of a file stay together: they share its fixtures.
"""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import os
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import thread as executors
from multiprocessing import connection
from typing import Any, NoReturn

import pytest
from _pytest import runner

Files = Sequence[Sequence[pytest.Item]]
NUMBER_BYTES = 2  # of a file in the pipe of those that wait


def run(session: pytest.Session, count: int, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Runs the session's tests in `count` processes, each of which calls `begin` before its first test and `end` after
    its last. Whichever is free takes the next file, in the order of the session."""
    files = [list(items) for _, items in itertools.groupby(session.items, key=lambda item: item.path)]
    waiting = _pipe_of(range(len(files)))
    pids: dict[connection.Connection, int] = {}
    try:
        for _ in range(count):
            reports, theirs = multiprocessing.Pipe(duplex=False)
            if not (pid := os.fork()):
                _child(session.config, files, waiting, theirs, begin, end)
            theirs.close()
            pids[reports] = pid
        _pass_on(session, pids)
    finally:
        os.close(waiting)
        for pid in pids.values():
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def _pipe_of(numbers: range) -> int:
    """An open file from which several processes read the numbers, each of which one of them gets."""
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "wb") as pipe:
        for number in numbers:
            pipe.write(number.to_bytes(NUMBER_BYTES, "big"))
    return ours


def _pass_on(session: pytest.Session, pids: dict[connection.Connection, int]) -> None:
    """Hands the processes' reports to pytest, as if the tests had run here, until all have ended."""
    hook = session.config.hook
    last = dict.fromkeys(pids, "before its first test")
    while pids:
        for reports in connection.wait(list(pids)):
            assert isinstance(reports, connection.Connection)
            message = _received(reports)
            if not message:
                _, status = os.waitpid(pids.pop(reports), 0)
                if status or message is None:
                    how = os.waitstatus_to_exitcode(status)
                    pytest.exit(f"a process of tests ended with {how}, {last[reports]}", returncode=1)
            elif "warning_message" in message:
                hook.pytest_warning_recorded.call_historic(kwargs=message)
            else:
                report = hook.pytest_report_from_serializable(config=session.config, data=message)
                hook.pytest_runtest_logreport(report=report)
                if report.when == "teardown":
                    hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)
                    last[reports] = f"after {report.nodeid}"
            if session.shouldfail:
                raise session.Failed(session.shouldfail)


def _received(reports: connection.Connection) -> dict[str, Any] | None:
    """A report or the arguments of a warning's hook; an empty one at the end; None if there was no word of that."""
    try:
        return reports.recv()
    except EOFError:  # it was killed, before it could tell its end
        return None


def _child(
    config: pytest.Config,
    files: Files,
    waiting: int,
    reports: connection.Connection,
    begin: Callable[[], None],
    end: Callable[[], None],
) -> NoReturn:
    """Runs tests as long as files wait, and ends the process."""
    status = 1
    try:
        capture = config.pluginmanager.getplugin("capturemanager")
        capture.suspend_global_capture(in_=True)  # into files that all processes share, and to which torch's logs go on
        capture._global_capturing = None
        capture.start_global_capturing()
        os.register_at_fork(after_in_child=reports.close)  # it ends with this process, not with one that outlives it
        config.pluginmanager.register(_Reporter(config, reports))
        begin()
        items = _items(files, waiting)
        item = next(items, None)
        while item:
            following = next(items, None)
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            item = following
        end()
        for process in multiprocessing.active_children():  # readers of trainings that tests have stopped
            process.kill()
        _report_threads(reports)
        atexit._run_exitfuncs()  # without Python's wait for threads: a failed test may have left one that never ends
        reports.send({})
        status = 0
    except KeyboardInterrupt:  # pytest's own process tells
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _report_threads(reports: connection.Connection) -> None:
    """Warns of threads for which Python would wait at its exit. Those of executors end then by themselves."""
    ending = {threading.main_thread(), *executors._threads_queues}
    names = [thread.name for thread in threading.enumerate() if thread not in ending and not thread.daemon]
    if names:
        found = warnings.WarningMessage(f"tests left threads: {', '.join(names)}", ResourceWarning, __file__, 0)
        reports.send({"warning_message": found, "when": "runtest", "nodeid": "", "location": None})


def _items(files: Files, waiting: int) -> Iterator[pytest.Item]:
    while number := os.read(waiting, NUMBER_BYTES):
        yield from files[int.from_bytes(number, "big")]


class _Reporter:
    """Sends what became of a test, instead of printing it here."""

    def __init__(self, config: pytest.Config, reports: connection.Connection):
        self._config = config
        self._reports = reports

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        for report in runner.runtestprotocol(item, log=False, nextitem=nextitem):
            self._reports.send(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))
        return True

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        found = warning_message  # its source may be anything, which can't be sent
        bare = warnings.WarningMessage(str(found.message), found.category, found.filename, found.lineno)
        self._reports.send({"warning_message": bare, "when": when, "nodeid": nodeid, "location": location})
