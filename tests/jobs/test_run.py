"""What a job makes of its workers' errors."""

from __future__ import annotations

import traceback

import apache_beam as beam
import pytest

from beam_jobs import run
from beam_jobs.flags.common import beam_options
from models.errors import UserError


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


def test_other_errors_hold_no_message():
    assert run.user_error_in("ValueError: wrong") is None
    assert run.user_error_in("other.UserError: wrong") is None


def test_a_template_is_handed_over(tmp_path, capsys):
    """Its job has not even begun when the launcher ends: the work folder stays."""
    (tmp_path / "_work").mkdir()
    (tmp_path / "_work" / "settings.json").write_text("{}")
    options = beam_options(["--runner=FnApiRunner", "--template_location=gs://b/template"])
    assert run.run(options, str(tmp_path), "test", lambda pipeline: None) == 0
    assert "test: handed over to Dataflow" in capsys.readouterr().out
    assert (tmp_path / "_work" / "settings.json").exists()
