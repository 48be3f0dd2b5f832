"""A finished output of fetch: whether its transient failures are tried once more."""

from __future__ import annotations

from typing import Any

from pipeline.fetch.stage import count_transient_failures, read_attempt, write_attempt
from pipeline.output import state
from pipeline.output.names import LEDGER_FILE


def start_next_attempt(output: str, settings: dict[str, Any], max_attempts: int) -> str:
    """Makes a finished output unfinished again, for the next of at most `max_attempts` runs. Returns a line that says
    why there is nothing to do, or "" if there is. Raises UserError for an output of other settings or another job."""
    if not state.is_finished(output, LEDGER_FILE) or state.is_started(output):
        return ""
    state.check_finished(output, "fetch", settings)
    if not (failed := count_transient_failures(output)):
        return f"{output} is complete, and no row in it failed for a transient reason: nothing to do"
    if (attempt := read_attempt(output)) >= max_attempts:
        return (
            f"{output} is complete; {failed} rows failed for a transient reason, after {attempt} runs: nothing to do; "
            f"--attempts {attempt + 1} tries them once more"
        )
    state.reopen_output(output, "fetch", settings, LEDGER_FILE)
    write_attempt(output, attempt + 1)
    return ""
