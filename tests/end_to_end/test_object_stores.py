"""Lists on s3:// and gs://, and outputs there: through the clouds' own clients, from servers of their interfaces."""

from __future__ import annotations

import bz2
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from urllib3.connectionpool import HTTPConnectionPool

from beam_jobs import select_pairs
from models.errors import UserError
from pipeline.output import byte_ranges, conditional
from pipeline.output import files as output_files
from pipeline.output.spill import BINS, segments_size
from pipeline.records import malformed
from pipeline.select.spill import write_spills
from pipeline.select.url_duplicates import group_by_url
from pipeline.sources.file_ranges import count_lines, file_ranges, first_line_number, read_range
from pipeline.sources.paths import exists
from tests.support.narrowing import required
from tests.support.paths import ROOT


def test_lists_in_a_bucket(store, monkeypatch):
    monkeypatch.setattr("pipeline.sources.source.RANGE_BYTES", 40_000)
    dice = random.Random(0)
    data = b"".join(b"a boat %x\thttp://a.example/%d.jpg\n" % (dice.getrandbits(800), n) for n in range(1000))
    store.put("lists/one.tsv", data)
    store.put("lists/two.tsv.bz2", bz2.compress(data))
    for pattern, number in ((f"{store.url}/lists/one.tsv", 1), (f"{store.url}/lists/*", 2)):
        found = file_ranges("cc3m", pattern)
        before = [count_lines(piece) for piece in found]
        rows = [row for piece in found for row in read_range(piece, first_line=first_line_number(piece, before))]
        assert len(found) > 3 * number and [row.row for row in rows] == [*range(1000)] * number
    assert exists(f"{store.url}/lists/one.tsv") and not exists(f"{store.url}/lists/none.tsv")
    for name in ("lists/none.tsv", "none*", "lists"):
        with pytest.raises(UserError, match="no file matches"):
            file_ranges("cc3m", f"{store.url}/{name}")


def test_select_from_a_bucket_into_one(store, tmp_path):
    for path in (ROOT / "sample" / "sources").glob("yfcc100m_dataset-*"):
        store.put(f"sources/{path.name}", path.read_bytes())
    for base, output in ((f"{ROOT}/sample", str(tmp_path)), (store.url, f"{store.url}/out")):
        assert (
            select_pairs.main(
                [
                    f"--source=yfcc100m={base}/sources/yfcc100m_dataset-*",
                    f"--output={output}",
                    "--direct_num_workers=1",
                    "--no_auth",
                ]
            )
            == 0
        )
    files = output_files.list_files(str(tmp_path))
    assert output_files.list_files(f"{store.url}/out") == files and "pairs/00000-of-00001.parquet" in files
    for name in set(files) - {"settings.json"}:
        assert output_files.read(f"{store.url}/out/{name}") == (tmp_path / name).read_bytes()
    assert json.loads(output_files.read(f"{store.url}/out/ledger.json"))["sources"]["yfcc100m"]["kept"] > 50


def test_deletes_take_a_request_for_many_files(store, monkeypatch):
    names = [f"_work/units/{number:03d}.msgpack" for number in range(120)]
    for name in (*names, "manifest.json"):
        store.put(f"out/{name}", b"x")
    requests, urlopen = [], HTTPConnectionPool.urlopen

    def recorded(*arguments, **options):
        requests.append(arguments)
        return urlopen(*arguments, **options)

    monkeypatch.setattr(HTTPConnectionPool, "urlopen", recorded)
    assert output_files.list_files(f"{store.url}/out") == [*names, "manifest.json"]
    output_files.delete(f"{store.url}/out", [*names, "_work/not there"])
    assert len(requests) < 20
    assert output_files.list_files(f"{store.url}/out") == ["manifest.json"]


def test_one_launcher_at_a_time(s3):
    """Of two at once one gets the output; the other takes it over when the first has stopped renewing its lease."""
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(_holder(f"{s3.url}/out")) for _ in range(2)]
        assert [_answer(process) for process in both] == ["ready", "ready"]
        for process in both:
            print("take", file=process.stdin, flush=True)
        answers = [_answer(process) for process in both]
        assert answers.count("held") == 1
        holder, other = both if answers[0] == "held" else reversed(both)
        refusal = _ask(other)
        assert f"another pairmill is writing there: process {holder.pid} on {socket.gethostname()}, since" in refusal
        assert "last renewed" in refusal and "wait for its end" in refusal
        time.sleep(4)
        assert _ask(other).startswith("--output")  # it is renewed
        os.kill(holder.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 60
        while _ask(other) != "held":
            assert time.monotonic() < deadline
            time.sleep(0.5)
        os.kill(holder.pid, signal.SIGCONT)
        assert holder.wait(60) == 2
        assert "another pairmill has taken over" in required(holder.stderr).read()
        required(other.stdin).close()
        assert other.wait(60) == 0
    assert output_files.list_files(f"{s3.url}/out/_work") == ["run.json", "settings.json"]


def _holder(output: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.lease_holder", output],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _ask(process: subprocess.Popen) -> str:
    print("take", file=process.stdin, flush=True)
    return _answer(process)


def _answer(process: subprocess.Popen) -> str:
    """Its next line but those about resuming."""
    while (line := required(process.stdout).readline().strip()).startswith("select: resuming"):
        pass
    return line


def test_a_store_without_conditions(s3, monkeypatch):
    """Written, waited for, read back."""
    monkeypatch.setattr(conditional, "SETTLE_S", 0.0)
    file = conditional.ConditionalFile(f"{s3.url}/lease")
    first = file.write(b"one", None)
    assert first and file.write(b"other", None) is None
    assert file.write(b"two", first) and file.write(b"three", first) is None
    assert required(file.read()).data == b"two"


def test_conditional_writes(store):
    file = conditional.conditional_file(f"{store.url}/lease")
    assert file.read() is None
    first = file.write(b"one", None)
    assert file.read() == (b"one", first)
    if store.url.startswith("s3:"):  # the emulator of Google's store ignores conditions
        assert first and file.write(b"other", None) is None
        assert file.write(b"two", first) and file.write(b"three", first) is None
        assert required(file.read()).data == b"two"


def test_a_store_that_can_not_be_reached(monkeypatch, tmp_path):
    """One line, whether the package or the network is missing."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("apache_beam.io.aws.clients.s3.boto3_client.boto3", None)
    lists = f"--source=cc3m={ROOT}/sample/sources/cc3m.tsv"
    for options in ([f"--output={tmp_path}", "--source=cc3m=s3://lists/a.tsv"], [lists, "--output=s3://lists/out"]):
        with pytest.raises(UserError, match="s3://lists") as error:
            select_pairs.main(options)
        assert "\n" not in str(error.value)


def test_a_range_of_bytes_is_one_request(s3, monkeypatch):
    monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions([]))
    s3.put("some/file", bytes(range(256)))
    asked = []
    client = byte_ranges.s3_client(FileSystems._pipeline_options)
    client.meta.events.register("before-send.s3", lambda request, **_: asked.append(request.headers["Range"]))
    assert byte_ranges.read_range(f"{s3.url}/some/file", 3, 9) == bytes(range(3, 9))
    assert asked == [b"bytes=3-8"]
    with pytest.raises(OSError, match="ends after 256 bytes"):
        byte_ranges.read_range(f"{s3.url}/some/file", 250, 260)


def test_the_second_half_of_select_reads_each_row_once(s3, monkeypatch):
    """One request for each spill file and part, and no byte that is of another part."""
    monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions([]))
    rows = [malformed("cc3m", "list.tsv", number, f"row {number}", "no URL") for number in range(1000)]
    spills = [spill for part in range(4) for spill in write_spills(s3.url, f"{part}", rows[part::4])]
    asked = []
    client = byte_ranges.s3_client(FileSystems._pipeline_options)
    client.meta.events.register("before-send.s3", lambda request, **_: asked.append(request.headers["Range"]))
    parts = [group_by_url(s3.url, spills, BINS * part // 10, BINS * (part + 1) // 10) for part in range(10)]
    found = [row["row"] for part in parts for table in part.tables() for row in table.to_pylist()]
    assert sorted(found) == list(range(1000)) and len(asked) == 40
    first, last = np.array([re.findall(rb"\d+", wanted) for wanted in asked]).astype(int).T
    assert (last - first + 1).sum() == sum(segments_size(spill, 0, BINS) for spill in spills)
