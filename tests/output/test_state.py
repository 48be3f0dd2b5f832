"""What a job finds in its output before it starts."""

from __future__ import annotations

from pipeline.output import files
from pipeline.output.state import finish_output, prepare_output


def test_spilled_rows_of_a_killed_run_do_not_pile_up(tmp_path):
    output = str(tmp_path / "out")
    prepare_output(output, "fetch", {}, "ledger.json", overwrite=False)
    for name in ("_work/spill/a.arrow", "_work/spill/.b.tmp", "_work/units/c.msgpack"):
        files.write_file(output, name, b"rows")
    prepare_output(output, "fetch", {}, "ledger.json", overwrite=False)
    assert [name for name in files.list_files(output) if name != "_work/lock"] == [
        "_work/settings.json",
        "_work/units/c.msgpack",
    ]
    finish_output(output)
    assert files.list_files(output) == []
