"""What a job finds in its output before it starts."""

from __future__ import annotations

import pytest

from models.errors import UserError
from pipeline.output import files, state
from pipeline.output.finish import call_owner
from pipeline.output.run_record import begin_run, own_runs, record_engine
from pipeline.output.state import (
    Found,
    finish_output,
    lock_output,
    prepare_output,
    release_output,
    reopen_output,
    withdraws_on_error,
)
from tests.support.paths import files_of


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


def finished_but_for_the_clean_up(output: str) -> None:
    prepare_output(output, "fetch", {"a": 1}, "ledger.json", overwrite=False)
    files.write_file(output, "_work/units/c.msgpack", b"rows")
    files.write_file(output, "ledger.json", b"{}")


def test_a_finished_output_is_no_new_one_for_the_next_run_of_this_process(tmp_path):
    output = str(tmp_path / "out")
    prepare_output(output, "fetch", {}, "ledger.json", overwrite=False)
    finish_output(output)
    files.write_file(output, "_work/units/c.msgpack", b"rows")
    with pytest.raises(UserError), withdraws_on_error(output):
        raise UserError("wrong")
    assert files.list_files(output) == ["_work/units/c.msgpack"]


def test_a_job_is_finished_though_its_launcher_died(tmp_path):
    output = str(tmp_path / "out")
    finished_but_for_the_clean_up(output)
    with pytest.raises(UserError, match=r"other settings \(settings.a: 1 -> 2\)"):
        prepare_output(output, "fetch", {"a": 2}, "ledger.json", overwrite=False)
    assert prepare_output(output, "fetch", {"a": 1}, "ledger.json", overwrite=False) is Found.FINISHED
    finish_output(output)
    assert files.list_files(output) == ["ledger.json"]


def test_a_run_killed_while_it_reopens_an_output_leaves_a_finished_one(tmp_path, monkeypatch):
    output = str(tmp_path / "out")
    files.write_file(output, "ledger.json", b"{}")
    with monkeypatch.context() as patch:
        patch.setattr(files, "delete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reopen_output(output, "fetch", {"a": 1}, "ledger.json")
    release_output(output)
    assert prepare_output(output, "fetch", {"a": 1}, "ledger.json", overwrite=False) is Found.FINISHED
    finish_output(output)
    assert files.list_files(output) == ["ledger.json"]


def test_a_job_that_its_engine_still_runs(tmp_path):
    output = str(tmp_path / "out")

    def prepare(is_running, overwrite=False):
        return prepare_output(output, "fetch", {}, "ledger.json", overwrite, is_running=is_running)

    assert prepare(lambda engine: pytest.fail("nothing was submitted")) is Found.READY
    record_engine(output, {"job": "7"})
    files.write_file(output, "_work/spill/a.arrow", b"rows")
    assert prepare(lambda engine: engine == {"job": "7"}) is Found.RUNNING
    assert "_work/spill/a.arrow" in files.list_files(output)
    for is_running, overwrite, refusal in ((lambda engine: True, True, "cancel it"), (None, False, "another engine")):
        with pytest.raises(UserError, match=refusal):
            prepare(is_running, overwrite)
    assert prepare(lambda engine: False) is Found.READY
    assert "_work/spill/a.arrow" not in files.list_files(output)
    finish_output(output)
    assert files.list_files(output) == []


def test_a_run_that_another_has_replaced_changes_nothing(tmp_path):
    output = str(tmp_path / "out")
    prepare_output(output, "fetch", {}, "ledger.json", overwrite=False, is_running=lambda engine: True)
    first = own_runs()
    call_owner(first, print)
    begin_run(output)
    with pytest.raises(UserError, match="another run has taken over"):
        call_owner(first, pytest.fail)
    finish_output(output)
    with pytest.raises(UserError, match="another run has taken over"):
        call_owner(first, pytest.fail)


def test_an_interruption_before_the_lock_leaves_no_folder(tmp_path, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(state, "take_lock", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lock_output(str(tmp_path / "new" / "out"))
    (tmp_path / "users").mkdir()
    with pytest.raises(KeyboardInterrupt):
        lock_output(str(tmp_path / "users"))
    assert files_of(tmp_path) == {} and [path.name for path in tmp_path.rglob("*")] == ["users"]
