"""Names of the files and folders that stages write. What a training machine reads is in `models.data.format`."""

from __future__ import annotations

from models.data.format import MANIFEST_FILE as MANIFEST_FILE  # for jobs, which import nothing of models.data

LEDGER_FILE = "ledger.json"
SETTINGS_FILE = "settings.json"
ATTEMPTS_FILE = "attempts.json"  # of fetch: how often it ran
README_FILE, CROISSANT_FILE = "README.md", "croissant.json"  # of a dataset: its cards
UNIT_STATS_SUFFIX = "_stats.json"  # of an image shard's statistics, written last: img2dataset's name
PAIRS_FOLDER, REJECTS_FOLDER = "pairs", "rejects"

WORK_FOLDER = "_work"  # inside the output, while it is unfinished
# Inside that:
LOCK_FILE, PLAN_FILE = "lock", "plan.json"
UNITS_FOLDER, TIMES_FOLDER = "units", "times"  # of encoded units: their rows, and where their time went
FETCHED_FOLDER = "fetched"  # statistics of each fetched shard
ROWS_FOLDER = "rows"  # spill files of select
