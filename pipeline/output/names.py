"""Names of the files and folders that stages write. What a training machine reads is in `models.data.format`."""

from __future__ import annotations

from models.data.format import MANIFEST_FILE as MANIFEST_FILE  # for jobs, which import nothing of models.data

LEDGER_FILE = "ledger.json"
SETTINGS_FILE = "settings.json"
ATTEMPTS_FILE = "attempts.json"  # of fetch: how often it ran
README_FILE, CROISSANT_FILE = "README.md", "croissant.json"  # of a dataset: its cards
UNIT_STATS_SUFFIX = "_stats.json"  # of an image shard's statistics, written last: img2dataset's name
PAIRS_FOLDER, REJECTS_FOLDER = "pairs", "rejects"
SCORES_FILE = "scores.json"  # of `pairmill score`: names the files, written before its ledger
SCORES_FOLDER, EMBEDDINGS_FOLDER = "scores", "embeddings"

WORK_FOLDER = "_work"  # inside the output, while it is unfinished
# Inside that:
LOCK_FILE = "lock"  # of a local output; of a remote one there are:
LEASE_FILE = "lease.json"  # which launcher writes there
RUN_FILE = "run.json"  # which run the output belongs to, and the engine's job of it
PROGRESS_FOLDER = "progress"  # a file of counts for each worker process, and of the plan for each step
UNITS_FOLDER = "units"  # rows of encoded units
ROWS_FOLDER = "rows"  # spill files of select
SPILL_FOLDER = "spill"  # rows on their way from one step to the next
PREPARED_FOLDER = "prepared"  # images between the steps that fetch and encode them, where these are two
SHARDS_FOLDER = "shards"  # image shards of attempts that have not been published
LOOKUP_FILE = "scores.lookup"  # the scores of all keys that encode compares with bounds
CONCEPTS_FILE = "concepts"  # the phrases that are balanced; its suffix is that of the user's file
PARTS_FOLDER = "parts"  # a mark and a lock for each part of a job that several processes share
TOKENIZERS_FOLDER = "tokenizers"  # files of the image tokenizer, for workers on other machines
