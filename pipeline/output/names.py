"""Names of the files and folders that select and fetch write. Those of a dataset are in `models.data.format`."""

from __future__ import annotations

LEDGER_FILE = "ledger.json"
SETTINGS_FILE = "settings.json"
PAIRS_FOLDER, REJECTS_FOLDER = "pairs", "rejects"

WORK_FOLDER = "_work"  # inside the output, while it is unfinished
# Inside that:
LOCK_FILE, PLAN_FILE = "lock", "plan.json"
UNITS_FOLDER, TIMES_FOLDER = "units", "times"  # of encoded units: their rows, and where their time went
FETCHED_FOLDER = "fetched"  # statistics of each fetched shard
ROWS_FOLDER = "rows"  # spill files of select
SPILL_FOLDER = "spill"  # rows on their way from one step to the next
