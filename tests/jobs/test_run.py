"""What a job makes of its workers' errors."""

from __future__ import annotations

import traceback

import apache_beam as beam
import pytest

from beam_jobs import run, select_pairs
from beam_jobs.flags.common import beam_options
from models.errors import UserError
from tests.support.paths import ROOT, files_of


def fail(_: object) -> None:
    raise UserError("list.tsv, line 3: no URL; give one")


def test_a_workers_user_error_is_the_jobs(tmp_path):
    """Through Beam's own wrapping: text of a remote traceback, with the name of the step behind the message."""

    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | beam.Create([1]) | "Fail" >> beam.Map(fail)

    options = beam_options(["--direct_num_workers=1"])
    with pytest.raises(UserError, match=r"^list\.tsv, line 3: no URL; give one$"):
        run.run(options, str(tmp_path), "test", build)


@pytest.mark.parametrize("tail", ["", " [while running 'Read']", "\\n[while running]", "\nDuring handling"])
def test_the_message_ends_where_beam_goes_on(tail):
    try:
        fail(None)
    except UserError as error:
        text = "".join(traceback.format_exception(error)).rstrip("\n")
    assert run.user_error_in(f"RuntimeError: {text}{tail}") == "list.tsv, line 3: no URL; give one"


def test_an_output_that_is_refused_is_a_user_s_error():
    assert run.user_error_in("models.errors.WriteError: can't write x [while running 'Write']") == "can't write x"


def test_other_errors_hold_no_message():
    assert run.user_error_in("ValueError: wrong") is None
    assert run.user_error_in("other.UserError: wrong") is None


def test_a_finished_job_whose_launcher_died_is_not_run_again(tmp_path, monkeypatch, capsys):
    options = [f"--source=cc3m={ROOT}/sample/sources/cc3m.tsv", f"--output={tmp_path / 'out'}"]
    with monkeypatch.context() as patch:
        patch.setattr(run, "finish_output", lambda output: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            select_pairs.main([*options, "--direct_num_workers=1"])
    whole = {name: data for name, data in files_of(tmp_path / "out").items() if not name.startswith("_work/")}
    assert len(files_of(tmp_path / "out")) > len(whole)
    monkeypatch.setattr(run.beam, "Pipeline", lambda **_: pytest.fail("the job runs again"))
    with pytest.raises(UserError, match="other settings"):
        select_pairs.main([*options, "--min-words=4"])
    capsys.readouterr()
    assert select_pairs.main(options) == 0
    assert "rejected" in capsys.readouterr().out
    assert files_of(tmp_path / "out") == whole


def test_a_local_job_needs_its_launcher(tmp_path):
    with pytest.raises(UserError, match="--no-wait: this job ends with its launcher"):
        select_pairs.main([f"--source=cc3m={ROOT}/sample/sources/cc3m.tsv", f"--output={tmp_path}", "--no-wait"])


def test_a_template_is_handed_over(tmp_path, capsys):
    """Its job has not even begun when the launcher ends: the work folder stays."""
    (tmp_path / "_work").mkdir()
    (tmp_path / "_work" / "settings.json").write_text("{}")
    options = beam_options(["--runner=FnApiRunner", "--template_location=gs://b/template"])
    assert run.run(options, str(tmp_path), "test", lambda pipeline: None) == 0
    assert "test: handed over to Dataflow" in capsys.readouterr().out
    assert (tmp_path / "_work" / "settings.json").exists()
