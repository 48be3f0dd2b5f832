"""The sample's server answers as its module says."""

import bz2
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from PIL import Image, ImageOps

from sample import formats, serve
from tests.support.narrowing import required
from tests.support.paths import ROOT

SAMPLE = ROOT / "sample"


@pytest.fixture(scope="module")
def server():
    with serve.start() as running:
        yield running


class Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments):
        return None  # a redirect is the answer


def get(url: str, follow: bool = True, **headers: str):
    """The answer, whatever its status, its body read into `.data`."""
    opener = urllib.request.build_opener(*([] if follow else [Redirects]))
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=5)
    except urllib.error.HTTPError as error:
        answer = error
    answer.data = answer.read()
    return answer


def test_serves_a_image(server):
    answer = get(f"{server.url}/images/colosseum.webp")
    assert answer.data == (SAMPLE / "images" / "colosseum.webp").read_bytes()
    assert answer.headers["Content-Type"] == "image/webp"
    assert ("/images/colosseum.webp", 200) in server.requests


def test_query_and_escapes_do_not_matter(server):
    assert get(f"{server.url}/images/hammer1.webp?width=640").status == 200
    assert get(f"{server.url}/images/hammer%31.webp").status == 200


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=5-99999999", 206, slice(5, None)),
        ("bytes=99999999-", 416, slice(0, 0)),
        ("bytes=0-1,5-6", 200, slice(None)),
        ("lines=0-1", 200, slice(None)),
    ],
)
def test_ranges(server, asked, status, part):
    answer = get(f"{server.url}/images/cat.jpg", Range=asked)
    assert (answer.status, answer.data) == (status, (SAMPLE / "images" / "cat.jpg").read_bytes()[part])


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/images/none.jpg",
        "/images/../README.md",
        "/images/%2e%2e/README.md",
        "/../../etc/passwd",
        "/images//etc/passwd",
        "/odd-routes/mirror/x/..%2f..%2fREADME.md",
        "/odd-routes/nonsense",
        "/odd-routes/status/x",
        "/odd-routes/status/999/y",
        "/odd-routes/redirect/200/images/cat.jpg",
        "/robots.txt",
    ],
)
def test_404(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path)  # urllib would tidy the path
    answer = connection.getresponse()
    assert answer.status == 404 and b"pairmill" not in answer.read()
    connection.close()


def test_keeps_a_connection_and_answers_head(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    for method, path in (("HEAD", "/images/cat.jpg"), ("GET", "/odd-routes/status/404/x"), ("GET", "/images/cat.jpg")):
        connection.request(method, path)
        sock = connection.sock
        answer = connection.getresponse()
        body = answer.read()
        assert answer.version == 11 and connection.sock is sock is not None
    assert body == (SAMPLE / "images" / "cat.jpg").read_bytes()
    connection.close()


@pytest.mark.parametrize("status", [403, 404, 410, 429, 451, 500, 503])
def test_statuses(server, status):
    answer = get(f"{server.url}/odd-routes/status/{status}/picture.jpg")
    assert answer.status == status
    assert answer.headers["Retry-After"] == ("1" if status in (429, 503) else None)


def test_redirects(server):
    url = f"{server.url}/odd-routes/redirect/302/odd-routes/redirect/308/images/umbrella.png"
    assert get(url).data == (SAMPLE / "images" / "umbrella.png").read_bytes()
    answer = get(f"{server.url}/odd-routes/circle/train.jpg", follow=False)
    assert (answer.status, answer.headers["Location"]) == (302, "/odd-routes/circle/train.jpg")
    assert get(f"{server.url}/odd-routes/inward/x.jpg", follow=False).headers["Location"].startswith("http://10.")
    assert get(f"{server.url}/odd-routes/removed/1_a.jpg").url.endswith("/photo_unavailable.png")
    assert get(f"{server.url}/odd-routes/removed/1_a_l.jpg").url.endswith("/photo_unavailable_l.png")


def test_odd_files(server):
    assert get(f"{server.url}/odd/truncated.jpg").data == (SAMPLE / "odd" / "truncated.jpg").read_bytes()
    page = get(f"{server.url}/odd/page.jpg")
    assert page.data.startswith(b"<!DOCTYPE") and page.headers["Content-Type"] == "image/jpeg"
    assert get(f"{server.url}/odd/empty.jpg").data == b""


def test_opt_out_and_mirror(server):
    image = (SAMPLE / "images" / "cat.jpg").read_bytes()
    for route, tag in (("noai", "noai"), ("noimageai", "noimageai"), ("mirror/7", None)):
        answer = get(f"{server.url}/odd-routes/{route}/cat.jpg")
        assert answer.data == image and answer.headers["X-Robots-Tag"] == tag


def test_flaky_fails_every_first_time(server):
    statuses = [get(f"{server.url}/odd-routes/flaky/cat.jpg").status for _ in range(4)]
    assert statuses == [503, 200, 503, 200]


def test_stall_lasts_as_long_as_the_client_waits():
    with serve.start() as server:
        threads = threading.active_count()
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(f"{server.url}/odd-routes/stall/fox.jpg", timeout=0.3).read()
        while threading.active_count() > threads and time.monotonic() < started + 5:
            time.sleep(0.02)
        assert time.monotonic() - started < 3
        assert server.requests == [("/odd-routes/stall/fox.jpg", 0)]


def test_cut_answer_and_slow_one(server):
    with pytest.raises(http.client.IncompleteRead):
        get(f"{server.url}/odd-routes/cut/cat.jpg")
    assert get(f"{server.url}/odd-routes/slow/cat.jpg").status == 200


@pytest.mark.parametrize(("route", "length"), [("huge", str(512 << 20)), ("endless", None)])
def test_bodies_too_large(server, route, length):
    with urllib.request.urlopen(f"{server.url}/odd-routes/{route}/x.jpg", timeout=5) as answer:
        assert answer.headers["Content-Length"] == length
        assert len(answer.read(1 << 20)) == 1 << 20


def test_drip_comes_byte_by_byte(server):
    with urllib.request.urlopen(f"{server.url}/odd-routes/drip/cat.jpg", timeout=5) as answer:
        assert answer.read(2) == b"\xff\xd8"


def test_source_files_name_the_server(server):
    lines = get(f"{server.url}/sources/cc12m.tsv").data.decode().splitlines()
    ours = [line for line in lines if line.startswith(f"{server.url}/")]
    assert len(ours) > 100 and not any(":8093" in line for line in lines)
    numbered = bz2.decompress(get(f"{server.url}/sources/yfcc100m_dataset-1.bz2").data).decode().splitlines()
    fields = next(line.split("\t") for line in numbered if "/images/" in line)
    assert fields[16].startswith(server.url) and fields[2] == formats.yfcc_hash(fields[16])
    assert b'href="wit_v1.sample.tsv.gz"' in get(f"{server.url}/sources/").data


def test_every_row_that_should_be_kept_leads_to_a_image(server):
    entries = map(json.loads, get(f"{server.url}/sources/expected.jsonl").data.decode().splitlines())
    kept = [entry["url"] for entry in entries if entry["expected"] == "kept"]
    for url in kept:
        answer = get(url)
        if answer.status == 503:
            answer = get(url)
        with Image.open(io.BytesIO(answer.data)) as image:
            upright = ImageOps.exif_transpose(image)
            assert 0.5 <= upright.width / upright.height <= 2 and min(upright.size) >= 64, url


def test_the_command():
    process = subprocess.Popen(
        [sys.executable, "sample/serve.py", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        line = required(process.stdout).readline()
        assert re.fullmatch(r"serving http://127\.0\.0\.1:\d+\n", line)
        assert get(f"{line.split()[1]}/images/cat.jpg").status == 200
    finally:
        process.terminate()
    assert process.wait(10) == 0


def test_a_taken_port_is_one_line_and_status_2(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert serve.main(["--port", str(taken.getsockname()[1])]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "choose another" in message
