"""Which rejects the warning of a job that kept no row names."""

from __future__ import annotations

import pytest

from pipeline import cli
from pipeline.output.nothing_kept import warning
from tests.support.fetching import pair, write_pairs


@pytest.mark.parametrize(
    ("job", "rejected", "expected"),
    [
        ("fetch", {"select": {"video": 9}, "fetch": {"dns": 1, "too_large": 2}}, "2 of 12 were too_large: --max-bytes"),
        ("fetch", {"select": {"video": 9}}, "9 of 9 were video: "),  # no row came as far as fetch
        ("build", {"select": {"video": 9}, "fetch": {"dns": 1}}, "9 of 10 were video: "),
        ("encode", {"fetch": {"dns": 9}, "encode": {"too_small": 1}}, "1 of 10 were too_small: "),
        ("repack", {"encode": {"sampled_out": 4}}, "4 of 4 were sampled_out: --share"),
    ],
)
def test_rejects_of_the_job_itself_come_first(job, rejected, expected):
    read = sum(number for reasons in rejected.values() for number in reasons.values())
    line = warning({"sources": {"cc3m": {"read": read, "kept": 0, "rejected": rejected}}}, "OUT", job)
    assert line and expected in line


def test_fetch_warns_each_time(tmp_path, capsys):
    write_pairs(tmp_path / "pairs", [pair("http://127.0.0.1:1/a.jpg")])
    for _ in range(2):  # the second run finds a complete output
        options = [f"--pairs={tmp_path}/pairs", f"--output={tmp_path}/out", "--direct_num_workers=1"]
        assert cli.main(["fetch", *options]) == 0
        assert "pairmill fetch: warning: no row was kept; 1 of 1 were refused_address" in capsys.readouterr().err
