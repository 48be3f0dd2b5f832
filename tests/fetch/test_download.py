"""A download ends as it should whatever the server does."""

from __future__ import annotations

import hashlib
import socket
import time
import tracemalloc
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from pipeline.fetch import dead_hosts
from pipeline.fetch.retry import FetchFailed
from pipeline.fetch.urls import parse_url
from pipeline.images.fetched import FetchedImage
from pipeline.records import Rejected
from pipeline.sources import hosts
from pipeline.sources.hosts import is_placeholder, is_placeholder_file
from tests.support.fetching import MAX_BYTES, SLACK_S, TIMEOUT_S, outcome, outcomes, pair, result, with_settings
from tests.support.hostile_answers import redirect
from tests.support.images import gone_jpeg, jpeg, rotated_jpeg
from tests.support.repetition import examples

ENDINGS = {
    "good/1": "fetched",
    "endless": "too_large",
    "endless_page": "not_an_image",
    "drip": "timeout",
    "stall": "timeout",
    "announces_much": "too_large",
    "announces_nonsense": "connection",
    "no_length": "fetched",
    "too_short": "connection",
    "too_short_and_open": "timeout",
    "too_long/keep-alive": "fetched",
    "too_long/close": "connection or fetched",  # by how the bytes fall into packets
    "half_announced": "corrupt_image",
    "gzipped": "fetched",
    "bomb_gzip": "too_large",
    "bomb_png": "too_many_pixels",
    "bomb_text": "corrupt_image",
    "half_gzipped": "corrupt_image",
    "loop": "http_other",
    "nowhere": "http_other",
    redirect("/good/2"): "fetched",
    redirect("../good/3?x=1#part"): "fetched",
    redirect("http://10.0.0.1/cat.jpg"): "refused_address",
    redirect("http://169.254.169.254/latest/meta-data/"): "refused_address",
    redirect("http://metadata@[::ffff:10.0.0.1]/"): "refused_address",
    redirect("file:///etc/passwd"): "refused_address",
    redirect("ftp://127.0.0.1/cat.jpg"): "refused_address",
    redirect("//[::1"): "bad_url",
    redirect("http://[]x@/"): "bad_url",  # an IndexError of yarl's
    redirect("http://[v1.x:localhost]/"): "bad_url",  # not a name, nor an address that could be checked
    redirect("http://x\udcff\udcfe/"): "bad_url",
    "status/404": "http_404",
    "status/410": "http_410",
    "status/403": "http_403",
    "status/500": "http_5xx",
    "status/503": "http_5xx",
    "status/451": "http_other",
    "status/206": "http_other",
    "status/408": "timeout",
    "status/600": "http_5xx",
    "busy/1/9": "http_429",
    "busy/x/9": "http_429",
    "busy/soon/9": "http_429",
    "busy/0/1/then": "fetched",
    "busy/x/1/then": "fetched",
    "unavailable_once": "fetched",
    "reset": "connection",
    "reset_at_once": "connection",
    "empty": "not_an_image",
    "page": "not_an_image",
    "truncated": "corrupt_image",
    "bad_chunks": "connection or timeout",  # likewise
    "cut_chunks": "connection",
    "endless_chunk_size": "connection",
    "endless_headers": "connection",
    "endless_header": "connection",
    "slow_headers": "timeout",
    "no_http": "connection",
    "placeholder": "placeholder",
    "same_placeholder": "placeholder",
    "says/X-Robots-Tag/noai": "opted_out",
    "says/X-Robots-Tag/noindex,%20nofollow": "opted_out",
    "says/X-Robots-Tag/otherbot:%20noai": "fetched",
    "says/TDM-Reservation/1": "opted_out",
    "says/TDM-Reservation/0": "fetched",
    "says/Content-Type/nonsense": "fetched",
    "rotated": "fetched",
    "animated": "fetched",
    "thin": "aspect_ratio",
    "sets_cookie": "fetched",
}


GOOD = 30


class Unit(NamedTuple):
    """A unit of everything at once: each answer from a host of its own, and good pictures of the same hosts."""

    found: dict[str, FetchedImage | Rejected]  # by the answer's name
    among: list[str]  # what became of the good ones
    took_s: float
    memory: int  # bytes at the worst moment, the server's own included


@pytest.fixture(scope="module")
def unit(hostile) -> Unit:
    with socket.socket() as closed:  # a port where nobody listens any more
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    urls = {name: hostile.url(name, host) for host, name in enumerate(ENDINGS, 2)}
    urls |= {
        "refused port": refused,
        "slow to accept": hostile.silent_url,
        "TLS": hostile.tls_url("good"),
        "not asked for TLS": hostile.tls_url("good").replace("https:", "http:"),
        "dns": "http://no-such-host.invalid/cat.jpg",
        "impossible name": f"http://{'a' * 64}.org/",
        "no URL": "http://[::1",
        "bad port": "http://a.org:99999/",
    }
    # What nobody accepts queues up in the kernel; only the first is sure to be connected at all.
    queued = [socket.create_connection(("127.0.0.1", int(hostile.silent_url.split(":")[2].rstrip("/"))))]
    among = [hostile.url(f"good/among{number}", host=2 + number) for number in range(GOOD)]
    gone = hashlib.md5(gone_jpeg()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "PLACEHOLDER_MD5", hosts.PLACEHOLDER_MD5 | {gone})
        patch.setattr(dead_hosts, "REST_S", TIMEOUT_S)  # until what keeps the processor busy has ended
        begun = time.monotonic()
        tracemalloc.start()
        try:
            found = outcomes([pair(url) for url in (*urls.values(), *among)], with_settings(retries=1))
            _, memory = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    took_s = time.monotonic() - begun
    for connection in queued:
        connection.close()
    return Unit(dict(zip(urls, found, strict=False)), list(map(result, found[-GOOD:])), took_s, memory)


OTHER_ENDINGS = {
    "refused port": "connection",
    "slow to accept": "timeout",
    "TLS": "connection",
    "not asked for TLS": "connection",
    "dns": "dns",
    "impossible name": "bad_url",
    "no URL": "bad_url",
    "bad port": "bad_url",
}


@pytest.mark.parametrize(("name", "ending"), [*ENDINGS.items(), *OTHER_ENDINGS.items()])
def test_ends_in_the_right_reason(unit, name, ending):
    found = unit.found[name]
    assert result(found) in ending.split(" or "), getattr(found, "detail", "")
    if isinstance(found, Rejected):
        assert found.detail
        found.detail.encode()


def test_nothing_else_of_the_unit_is_lost(unit):
    assert unit.among == ["fetched"] * GOOD


def test_a_unit_of_everything_ends_within_the_deadlines_of_three_attempts(unit):
    """That of a host which has not answered yet, and two of a row."""
    assert unit.took_s < 3 * TIMEOUT_S + SLACK_S


def test_memory_stays_bounded(unit):
    assert unit.memory < 30_000_000


def test_images_arrive_byte_for_byte(unit):
    found = unit.found
    for name in ("no_length", "too_long/keep-alive", "gzipped", "says/Content-Type/nonsense"):
        assert found[name].data == jpeg()
        assert found[name].sha256 == hashlib.sha256(jpeg()).hexdigest()
        assert found[name].rgb_HWC.shape == (150, 200, 3)
    assert found["rotated"].data == rotated_jpeg()
    assert found["rotated"].rgb_HWC.shape == (200, 150, 3)
    assert found["animated"].rgb_HWC.shape == (150, 200, 3)


def test_what_is_of_no_use_is_dropped_early(unit, hostile):
    in_flight = 20_000_000  # buffers of the kernel on both sides, which grow to 10 MB, and what a busy machine adds
    for name in ("endless", "endless_page", "thin", "endless_header", "endless_headers"):
        assert hostile.sent[name] < MAX_BYTES + in_flight, name


def test_only_what_must_be_is_sent(unit, hostile):
    [request] = hostile.requests("good/cookie")
    assert request.headers.keys() == {"host", "user-agent", "accept", "accept-encoding"}
    assert request.headers["user-agent"].startswith("pairmill/")


def test_credentials_in_a_url_are_not_sent(hostile):
    url = hostile.url("good/credentials").replace("//", "//user:secret@")
    assert result(outcome(pair(url))) == "fetched"
    assert result(outcome(pair(hostile.url(redirect(url.replace("credentials", "credentials2")))))) == "fetched"
    for name in ("good/credentials", "good/credentials2"):
        [request] = hostile.requests(name)
        assert "authorization" not in request.headers
        assert "secret" not in repr(request)


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("http://a.org", "/"),
        ("HTTP://A.org/x", "/x"),
        ("http://a.org/x#part", "/x"),
        ("http://a.org/%7Ea/%27b'?q=%2B+%41", "/%7Ea/%27b'?q=%2B+%41"),  # as listed: it may be signed
        ("http://a.org/two words/ü?q=ä|b", "/two%20words/%C3%BC?q=%C3%A4%7Cb"),
        ("http://a.org/100%", "/100%25"),
        ("http://a.org/a\r\nHost: b.org", "/aHost:%20b.org"),
    ],
)
def test_what_is_asked_for(text, sent):
    assert parse_url(text).raw_path_qs == sent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cat.jpg",
        "//a.org/x",
        "ftp://a.org/x",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:image/png;base64,AA",
        "http://",
        "http:///x",
        "http://[::1",
        "http://a:b:c/",
        "http://a.org:99999/",
        "http://a\\@b/",
        "http://user@/x",
        "http://[]x@/",
        "http://[v1.x:name]/",
        "http://[v1.x:127.0.0.1]/",
        "http://1.2.3.4.5/",
    ],
)
def test_no_url(text):
    with pytest.raises(FetchFailed) as failure:
        parse_url(text)
    assert failure.value.reason == "bad_url"


@examples(50)
@given(st.text() | st.text("htps:/@[]%.0123456789x?#\\ ö").map("http://".__add__))
def test_any_text_is_a_url_without_credentials_or_none(text):
    try:
        url = parse_url(text)
    except FetchFailed as failure:
        assert failure.reason == "bad_url"
    else:
        assert url.scheme in ("http", "https")
        assert url.raw_host
        assert url.raw_user is url.raw_password is None


@pytest.mark.parametrize(
    ("url", "beginning", "expected"),
    [
        ("https://s.yimg.com/pw/images/en-us/photo_unavailable.png", b"", True),
        ("https://combo.staticflickr.com/pw/images/photo_unavailable_l.png", b"", True),
        ("https://i.imgur.com/removed.png", b"", True),
        ("https://a.org/removed.png", b"", False),
        ("http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg", b"\x89PNG\r\n\x1a\n", True),
        ("http://farm8.static.flickr.com/7205/6985418911_df7747990d.jpg", b"GIF89a", True),
        ("http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg", b"\xff\xd8\xff\xe0", False),
        ("http://farm8.staticflickr.com/7205/6985418911_df7747990d_o.png", b"\x89PNG\r\n\x1a\n", False),
        ("http://a.org/flickr.com/cat.jpg", b"GIF89a", False),
        ("http://a.org/my_photo_unavailable.txt", b"", False),
    ],
)
def test_placeholders(url, beginning, expected):
    assert is_placeholder(URL(url), beginning) is expected


def test_placeholders_by_their_hash(monkeypatch):
    assert not is_placeholder_file(gone_jpeg())
    monkeypatch.setattr(hosts, "PLACEHOLDER_MD5", frozenset({hashlib.md5(gone_jpeg()).hexdigest()}))
    assert is_placeholder_file(gone_jpeg())
    assert not is_placeholder_file(jpeg())


def test_one_deadline_holds_for_all_redirects_of_an_attempt(hostile):
    """Each of the four requests is done in half a second; all of them take longer than the attempt may."""
    assert result(outcome(pair(hostile.url("slow_redirects/1")))) == "fetched"
    assert result(outcome(pair(hostile.url("slow_redirects/4")), with_settings(timeout_s=1.5))) == "timeout"
