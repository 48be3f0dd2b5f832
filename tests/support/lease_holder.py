"""Tries to take an output for each line that it reads, with a quick lease; prints `held`, or why not.

python -m tests.support.lease_holder OUTPUT
"""

from __future__ import annotations

import sys

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.interrupt import end_process
from models.errors import UserError
from pipeline.output import lease
from pipeline.output.state import prepare_output, watch_lease

lease.RENEW_S, lease.STALE_S = 0.3, 3.0
output = sys.argv[1]
FileSystems.set_options(PipelineOptions([]))
print("ready", flush=True)
for _ in sys.stdin:
    try:
        prepare_output(output, "select", {}, "ledger.json", overwrite=False)
        watch_lease(output, lambda loss: end_process(loss, 2))
        print("held", flush=True)
    except UserError as error:
        print(error, flush=True)
