"""One result for a process, though its threads ask at once."""

from __future__ import annotations

import concurrent.futures
import threading

from pipeline.fetch.per_process import per_process


def test_threads_that_ask_at_once_have_the_same_result():
    together = threading.Barrier(4)

    @per_process
    def made(name: str) -> list[str]:
        threading.Event().wait(0.05)  # lets the others in
        return [name]

    def ask(name: str) -> list[str]:
        together.wait()
        return made(name)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = [*threads.map(ask, "aaab")]
    assert found[0] is found[1] is found[2] and found[3] == ["b"]
