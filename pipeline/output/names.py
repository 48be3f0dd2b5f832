"""Names of the files and folders that select and fetch write. Those of a dataset are in `models.data.format`."""

from __future__ import annotations

LEDGER_FILE = "ledger.json"
SETTINGS_FILE = "settings.json"
PAIRS_FOLDER, REJECTS_FOLDER = "pairs", "rejects"

WORK_FOLDER = "_work"  # inside the output, while it is unfinished
# Inside that:
LOCK_FILE = "lock"
PROGRESS_FOLDER = "progress"  # a file of counts for each worker process, and of the plan for each step
UNITS_FOLDER = "units"  # rows of encoded units
ROWS_FOLDER = "rows"  # spill files of select
SPILL_FOLDER = "spill"  # rows on their way from one step to the next
