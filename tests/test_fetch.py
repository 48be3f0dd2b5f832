"""Downloads end as they should whatever the server does, and hosts are treated as they ask."""

from __future__ import annotations

import collections
import hashlib
import ipaddress
import socket
import threading
import time
import tracemalloc

import pytest
from hostile_answers import redirect
from hostile_server import HostileServer
from hypothesis import given
from hypothesis import strategies as st
from made_pictures import gzip_bomb, jpeg, rotated_jpeg, text_bomb
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from pipeline import fetch as fetch_module
from pipeline.addresses import is_refused, literal_address
from pipeline.download import FetchConfig, is_placeholder, parse_url
from pipeline.fetch import Fetched, fetch_pictures, interleave_hosts
from pipeline.manners import FetchFailed, HostLimits, limits_for, opt_out, retry_after_s
from pipeline.pictures import PictureConfig
from pipeline.records import Pair, Rejected

TIMEOUT_S = 1.5
SLACK_S = 6.0  # for a busy machine
MAX_BYTES = 2_000_000
QUICK = FetchConfig(timeout_s=TIMEOUT_S, retries=0, max_bytes=MAX_BYTES, connections=128, per_host_connections=128,
                    per_host_rate=10_000, allow_addresses=("127.0.0.0/8",))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    gzip_bomb(), text_bomb()  # they take a moment, which no deadline should run through
    with HostileServer(tmp_path_factory.mktemp("tls")) as server:
        yield server


def pair(url: str, *fallback_urls: str, key: str | None = None) -> Pair:
    key = key or hashlib.sha256(repr((url, fallback_urls)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return Pair(key, "test", "list.tsv", 0, url, fallback_urls, "a cat", "A cat", None, None, "", "", "train")


def with_settings(**settings) -> FetchConfig:
    return FetchConfig(**{**QUICK.__dict__, **settings})


def outcomes(pairs: list[Pair], config: FetchConfig = QUICK) -> list[Fetched | Rejected]:
    """In the order of the pairs; every pair has one."""
    found = {(outcome.pair.key if isinstance(outcome, Fetched) else outcome.key): outcome
             for outcome in fetch_pictures(pairs, config, PictureConfig())}
    assert found.keys() == {pair.key for pair in pairs}
    return [found[pair.key] for pair in pairs]


def outcome(pair: Pair, config: FetchConfig = QUICK) -> Fetched | Rejected:
    return outcomes([pair], config)[0]


def result(outcome: Fetched | Rejected) -> str:
    return "fetched" if isinstance(outcome, Fetched) else outcome.reason


# --- one unit of everything ------------------------------------------------------------------------------------------

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
    "too_long": "fetched",
    "half_announced": "corrupt_image",
    "gzipped": "fetched",
    "bomb_gzip": "too_large",
    "bomb_png": "too_many_pixels",
    "bomb_text": "corrupt_image",
    "damaged_gzip": "connection",
    "loop": "http_other",
    "nowhere": "http_other",
    redirect("/good/2"): "fetched",
    redirect("good/../good/3?x=1#part"): "fetched",
    redirect("http://10.0.0.1/cat.jpg"): "refused_address",
    redirect("http://169.254.169.254/latest/meta-data/"): "refused_address",
    redirect("http://metadata@[::ffff:10.0.0.1]/"): "refused_address",
    redirect("file:///etc/passwd"): "refused_address",
    redirect("ftp://127.0.0.1/cat.jpg"): "refused_address",
    redirect("//[::1"): "bad_url",
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
    "reset": "connection",
    "reset_at_once": "connection",
    "empty": "not_an_image",
    "page": "not_an_image",
    "truncated": "corrupt_image",
    "bad_chunks": "connection",
    "cut_chunks": "connection",
    "endless_chunk_size": "connection",
    "endless_headers": "connection",
    "endless_header": "connection",
    "slow_headers": "timeout",
    "no_http": "connection",
    "placeholder": "placeholder",
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
}  # fmt: skip


@pytest.fixture(scope="module")
def unit(hostile):
    """What became of everything at once, each from a host of its own, and how long it took."""
    with socket.socket() as closed:  # a port where nobody listens any more
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    urls = {name: hostile.url(name, host) for host, name in enumerate(ENDINGS, 2)}
    urls |= {"refused port": refused, "slow to accept": hostile.silent_url, "TLS": hostile.tls_url("good"),
             "no TLS": hostile.url("good").replace("http:", "https:"), "dns": "http://no-such-host.invalid/cat.jpg",
             "impossible name": f"http://{'a' * 64}.org/", "no URL": "http://[::1", "bad port": "http://a.org:99999/"}
    # What nobody accepts queues up in the kernel; only the first is sure to be connected at all.
    queued = [socket.create_connection(("127.0.0.1", int(hostile.silent_url.split(":")[2].rstrip("/"))))]
    begun = time.monotonic()
    found = dict(zip(urls, outcomes([pair(url) for url in urls.values()]), strict=True))
    took_s = time.monotonic() - begun
    for connection in queued:
        connection.close()
    return found, took_s


@pytest.mark.parametrize(("name", "ending"), [*ENDINGS.items(), *{
    "refused port": "connection", "slow to accept": "timeout", "TLS": "connection", "no TLS": "connection",
    "dns": "dns", "impossible name": "bad_url", "no URL": "bad_url", "bad port": "bad_url"}.items()])
def test_ends_in_the_right_reason(unit, name, ending):
    found = unit[0][name]
    assert result(found) == ending, getattr(found, "detail", "")
    if isinstance(found, Rejected):
        assert found.detail
        found.detail.encode()


def test_a_unit_of_everything_ends_within_the_deadline(unit):
    assert unit[1] < TIMEOUT_S + SLACK_S


def test_pictures_arrive_byte_for_byte(unit):
    found = unit[0]
    for name in ("no_length", "too_long", "gzipped", "says/Content-Type/nonsense"):
        assert found[name].data == jpeg()
        assert found[name].sha256 == hashlib.sha256(jpeg()).hexdigest()
        assert found[name].rgb_HWC.shape == (150, 200, 3)
    assert found["rotated"].data == rotated_jpeg()
    assert found["rotated"].rgb_HWC.shape == (200, 150, 3)
    assert found["animated"].rgb_HWC.shape == (150, 200, 3)


def test_what_is_of_no_use_is_dropped_early(unit, hostile):
    in_flight = 8_000_000  # buffers of the kernel, on both sides
    for name in ("endless", "endless_page", "thin", "endless_header", "endless_headers", "endless_chunk_size"):
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


def test_memory_stays_bounded(hostile):
    names = ["endless", "endless/2", "endless/3", "bomb_gzip", "endless_header", "endless_chunk_size"]
    tracemalloc.start()
    try:
        outcomes([pair(hostile.url(name)) for name in names], with_settings(max_bytes=20_000_000, timeout_s=4))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000  # long bodies wait on disk


# --- addresses -------------------------------------------------------------------------------------------------------

LOOPBACK_SPELLINGS = """
    127.0.0.1 127.1 127.0.0.1. 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 0 ①②⑦.⓪.⓪.① １２７.0.0.1 127。0。0。1
    [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::]
    localhost LOCALHOST.""".split()  # noqa: SIM905


def test_no_spelling_of_the_loopback_is_connected_to(hostile):
    seen = len(hostile.log)
    pairs = [pair(f"http://{spelling}:{hostile.port}/good") for spelling in LOOPBACK_SPELLINGS]
    pairs += [pair(f"http://user@{spelling}:{hostile.port}/good") for spelling in LOOPBACK_SPELLINGS]
    found = outcomes(pairs, with_settings(allow_addresses=()))
    assert {one.url: one.reason for one in found} == {one.url: "refused_address" for one in found}
    assert len(hostile.log) == seen


def test_the_loopback_may_be_allowed_by_name(hostile):
    for host in ("127.0.0.1", "localhost"):
        assert result(outcome(pair(f"http://{host}:{hostile.port}/good"))) == "fetched"
    assert result(outcome(pair(hostile.url("good", host=1)), with_settings(allow_addresses=("127.0.0.2/32",)))
                  ) == "refused_address"


def test_a_redirect_is_resolved_and_checked_too(hostile):
    config = with_settings(allow_addresses=("127.0.0.3/32",))
    to_name = pair(hostile.url(redirect(f"http://localhost:{hostile.port}/good"), host=3))
    assert result(outcome(to_name, config)) == "refused_address"


def test_the_connection_goes_to_the_address_that_was_checked(hostile, monkeypatch):
    """A name that says something else each time it is asked for (DNS rebinding)."""
    answers = iter([["127.0.0.5"], ["127.0.0.6"]])
    asked = []

    def getaddrinfo(host, port, family=0, kind=0, proto=0, flags=0):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    config = with_settings(allow_addresses=("127.0.0.5/32",))
    assert result(outcome(pair(f"http://rebound.test:{hostile.port}/good/rebound"), config)) == "fetched"
    assert asked == ["rebound.test"]
    assert [request.host for request in hostile.requests("good/rebound")] == [5]


def test_of_several_addresses_only_public_ones_are_used(hostile, monkeypatch):
    def getaddrinfo(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("10.0.0.1", "127.0.0.5")]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = f"http://several.test:{hostile.port}/good/several"
    assert result(outcome(pair(url), with_settings(allow_addresses=("127.0.0.5/32",)))) == "fetched"


def test_a_name_server_that_hangs_costs_only_its_own_names(hostile, monkeypatch):
    resolve, hung = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host, *arguments, **options):
        if "hangs" in str(host):
            hung.wait(20)
        return resolve("127.0.0.1" if "works" in str(host) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    begun = time.monotonic()
    bad = [pair(f"http://hangs{number}.test/") for number in range(8)]
    good = [pair(f"http://works{number}.test:{hostile.port}/good") for number in range(8)]
    found = outcomes([*bad, *good])
    assert [result(one) for one in found] == ["timeout"] * 8 + ["fetched"] * 8
    assert time.monotonic() - begun < TIMEOUT_S + SLACK_S
    hung.set()


REFUSED = """
    127.0.0.1 127.255.255.255 0.0.0.0 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1
    100.100.100.200 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1
    255.255.255.255 168.63.129.16 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1
    ::ffff:10.0.0.1 ::ffff:0:10.0.0.1 ::10.0.0.1 64:ff9b::a00:1 64:ff9b:1::a00:1 2002:a00:1:: 2002:7f00:1::
    2001:0:4136:e378:8000:63bf:f5ff:fffe""".split()  # noqa: SIM905


@pytest.mark.parametrize("address", REFUSED)
def test_refused_addresses(address):
    assert is_refused(address, [])
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert not is_refused(address, everything)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.0.1", "2606:4700::1111",
                                     "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"])
def test_public_addresses(address):
    assert not is_refused(address, [])


@pytest.mark.parametrize(("host", "address"), [
    ("8.8.8.8", "8.8.8.8"), ("134744072", "8.8.8.8"), ("0x8080808", "8.8.8.8"), ("010.8.8.8", "8.8.8.8"),
    ("::1", "::1"), ("fe80::1%25eth0", "fe80::1"), ("example.org", None), ("cafe", None), ("1.2.3.4.example", None),
    ("bücher.de", None), ("999.1.1.1", None)])  # fmt: skip
def test_literal_address(host, address):
    assert literal_address(host) == address


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "sent"), [
    ("http://a.org", "/"), ("HTTP://A.org/x", "/x"), ("http://a.org/x#part", "/x"),
    ("http://a.org/%7Ea/%27b'?q=%2B+%41", "/%7Ea/%27b'?q=%2B+%41"),  # as listed: it may be signed
    ("http://a.org/two words/ü?q=ä|b", "/two%20words/%C3%BC?q=%C3%A4%7Cb"), ("http://a.org/100%", "/100%25"),
    ("http://a.org/a\r\nHost: b.org", "/aHost:%20b.org"),
])  # fmt: skip
def test_what_is_asked_for(text, sent):
    assert parse_url(text).raw_path_qs == sent


@pytest.mark.parametrize("text", ["", "cat.jpg", "//a.org/x", "ftp://a.org/x", "javascript:alert(1)", "file:///etc/passwd",
                                  "data:image/png;base64,AA", "http://", "http:///x", "http://[::1", "http://a:b:c/",
                                  "http://a.org:99999/", "http://a\\@b/", "http://user@/x"])
def test_no_url(text):
    with pytest.raises(FetchFailed) as failure:
        parse_url(text)
    assert failure.value.reason == "bad_url"


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


@pytest.mark.parametrize(("url", "beginning", "expected"), [
    ("https://s.yimg.com/pw/images/en-us/photo_unavailable.png", b"", True),
    ("https://combo.staticflickr.com/pw/images/photo_unavailable_l.png", b"", True),
    ("https://i.imgur.com/removed.png", b"", True), ("https://a.org/removed.png", b"", False),
    ("http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg", b"\x89PNG\r\n\x1a\n", True),
    ("http://farm8.static.flickr.com/7205/6985418911_df7747990d.jpg", b"GIF89a", True),
    ("http://farm8.staticflickr.com/7205/6985418911_df7747990d.jpg", b"\xff\xd8\xff\xe0", False),
    ("http://farm8.staticflickr.com/7205/6985418911_df7747990d_o.png", b"\x89PNG\r\n\x1a\n", False),
    ("http://a.org/flickr.com/cat.jpg", b"GIF89a", False), ("http://a.org/my_photo_unavailable.txt", b"", False),
])  # fmt: skip
def test_placeholders(url, beginning, expected):
    assert is_placeholder(URL(url), beginning) is expected


# --- manners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("headers", "said"), [
    ([], None), ([("X-Robots-Tag", "nofollow, nosnippet")], None),
    ([("X-Robots-Tag", "noai")], "X-Robots-Tag: noai"), ([("X-Robots-Tag", "NoImageAI")], "X-Robots-Tag: noimageai"),
    ([("X-Robots-Tag", "nofollow, noindex")], "X-Robots-Tag: noindex"),
    ([("X-Robots-Tag", "nofollow"), ("X-Robots-Tag", "noimageindex")], "X-Robots-Tag: noimageindex"),
    ([("X-Robots-Tag", "googlebot: noindex, noai")], None),
    ([("X-Robots-Tag", "googlebot: noindex, pairmill: noai")], "X-Robots-Tag: noai"),
    ([("X-Robots-Tag", "*: noai")], "X-Robots-Tag: noai"),
    ([("X-Robots-Tag", "max-image-preview: large, noai")], "X-Robots-Tag: noai"),
    ([("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST, noai")], "X-Robots-Tag: noai"),
    ([("TDM-Reservation", "1")], "TDM-Reservation: 1"), ([("tdm-reservation", "0")], None),
])  # fmt: skip
def test_opt_out(headers, said):
    assert opt_out(CIMultiDictProxy(CIMultiDict(headers))) == said


@pytest.mark.parametrize(("value", "seconds"), [
    (None, None), ("3", 3.0), (" 120 ", 120.0), ("soon", None), ("-1", None), ("²", None), ("", None),
    ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("Wed, 99 Oct 2015 07:28:00 GMT", None)])  # fmt: skip
def test_retry_after(value, seconds):
    assert retry_after_s(value) == seconds


def test_retry_after_a_date():
    from email.utils import formatdate

    assert 55 < retry_after_s(formatdate(time.time() + 60, usegmt=True)) < 61


def test_hosts_that_ask_for_less_get_less():
    limits = HostLimits(8, 20.0)
    assert limits_for("upload.wikimedia.org", limits) == HostLimits(2, 20.0, 25e6 / 8)
    assert limits_for("upload.wikimedia.org", HostLimits(1, 5.0)) == HostLimits(1, 5.0, 25e6 / 8)
    assert limits_for("notwikimedia.org", limits) == limits


def test_a_limit_of_two_connections_is_kept(hostile):
    pairs = [pair(hostile.url(f"slow/{number}", host=71)) for number in range(12)]
    assert {result(one) for one in outcomes(pairs, with_settings(per_host_connections=2))} == {"fetched"}
    assert hostile.most_at_once[71] == 2


def test_a_rate_is_kept(hostile):
    pairs = [pair(hostile.url(f"good/rate{number}", host=72)) for number in range(11)]
    assert {result(one) for one in outcomes(pairs, with_settings(per_host_rate=10))} == {"fetched"}
    times = [request.time for request in hostile.log if request.host == 72]
    assert times[-1] - times[0] > 0.9  # ten gaps of a tenth of a second, give or take the way to the server
    assert max(sum(start <= time < start + 0.5 for time in times) for start in times) <= 6


def test_limits_hold_for_all_processes_that_share_a_folder(hostile, tmp_path):
    config = with_settings(per_host_connections=2, per_host_rate=20, shared_folder=str(tmp_path / "hosts"))
    found: collections.Counter[str] = collections.Counter()

    def process(name: str) -> None:  # file locks don't care whether two are in one process
        pairs = [pair(hostile.url(f"slow/{name}{number}", host=73)) for number in range(8)]
        found.update(map(result, outcomes(pairs, config)))

    threads = [threading.Thread(target=process, args=name) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [request.time for request in hostile.log if request.host == 73]
    assert found == {"fetched": 24}
    assert hostile.most_at_once[73] == 2
    assert times[-1] - times[0] > 23 / 20 - 0.1


def test_a_host_that_is_slow_does_not_hold_up_others(hostile):
    """Room for four, and a host whose turns take seconds in all."""
    slow = [pair(hostile.url(f"slow/waits{number}", host=74)) for number in range(20)]
    quick = [pair(hostile.url(f"good/passes{number}", host=75)) for number in range(20)]
    config = with_settings(connections=4, per_host_connections=1)
    order = [outcome.pair.url for outcome in fetch_pictures([*slow, *quick], config, PictureConfig())]
    assert max(order.index(pair.url) for pair in quick) < len(order) - 5


def test_503_then_200(hostile):
    one = pair(hostile.url("unavailable_once/a"))
    assert result(outcome(one, with_settings(retries=1))) == "fetched"
    assert len(hostile.requests("unavailable_once/a")) == 2


def test_retries_are_counted(hostile):
    assert result(outcome(pair(hostile.url("status/502/counted")), with_settings(retries=1))) == "http_5xx"
    assert len(hostile.requests("status/502/counted")) == 2


def test_what_will_not_pass_is_not_tried_again(hostile):
    urls = [hostile.url("status/404/once"), hostile.url("page/once"), hostile.tls_url("good/once")]
    begun = time.monotonic()
    found = outcomes([pair(url) for url in urls], with_settings(retries=5))
    assert [result(one) for one in found] == ["http_404", "not_an_image", "connection"]
    assert time.monotonic() - begun < SLACK_S
    assert len(hostile.requests("status/404/once")) == len(hostile.requests("page/once")) == 1


def test_retry_after_is_kept_for_the_whole_host(hostile):
    pairs = [pair(hostile.url("busy/1/1/a", host=76)), *(pair(hostile.url(f"good/{n}", host=76)) for n in range(5))]
    found = outcomes(pairs, with_settings(retries=1, per_host_connections=1))
    assert {result(one) for one in found} == {"fetched"}
    first, second, *_ = (request.time for request in hostile.log if request.host == 76)
    assert second - first >= 0.95


def test_a_host_that_asks_for_a_long_rest_is_left_alone(hostile):
    pairs = [pair(hostile.url(f"busy/3600/9/{number}", host=77)) for number in range(5)]
    begun = time.monotonic()
    found = outcomes(pairs, with_settings(retries=3, per_host_connections=1))
    assert {result(one) for one in found} == {"http_429"}
    assert [request.host for request in hostile.log].count(77) == 1
    assert time.monotonic() - begun < SLACK_S


def test_a_dead_host_is_given_up(hostile):
    pairs = [pair(hostile.url(f"reset_at_once/{number}", host=78)) for number in range(40)]
    found = outcomes(pairs, with_settings(per_host_connections=2))
    assert {result(one) for one in found} == {"connection"}
    assert "given up" in found[-1].detail
    assert [request.host for request in hostile.log].count(78) <= 12


# --- fallbacks and order ---------------------------------------------------------------------------------------------


def test_a_fallback_is_used(hostile):
    one = pair(hostile.url("status/404/a"), hostile.url("truncated/a"), hostile.url("good/fallback"))
    found = outcome(one)
    assert result(found) == "fetched"
    assert found.pair == one


@pytest.mark.parametrize(("paths", "reason"), [
    (["status/404", "status/403"], "http_404"), (["status/404", "status/500"], "http_5xx"),
    (["page", "status/404"], "not_an_image"), (["status/404", "says/X-Robots-Tag/noai", "good/mirror"], "http_404"),
    (["says/X-Robots-Tag/noai", "good/mirror"], "opted_out")])  # fmt: skip
def test_the_reason_when_all_fail(hostile, paths, reason):
    assert result(outcome(pair(*(hostile.url(path) for path in paths)))) == reason
    assert not hostile.requests("good/mirror")  # who opts out is not got round


def test_opting_out_can_be_ignored(hostile):
    one = pair(hostile.url("says/X-Robots-Tag/noai"))
    assert result(outcome(one, with_settings(obey_opt_out=False))) == "fetched"


HOST_NAMES = st.sampled_from(["http://a.org/", "http://b.org:80/", "https://c.org/", "http://[::1", ""])


@given(st.lists(HOST_NAMES))
def test_hosts_take_turns(urls):
    pairs = [pair(url, key=f"{number:032x}") for number, url in enumerate(urls)]
    ordered = interleave_hosts(pairs)
    assert sorted(ordered) == sorted(pairs)
    rounds: collections.Counter[str] = collections.Counter()
    turns = []
    for one in ordered:
        turns.append(rounds[fetch_module._host_of(one.url)])
        rounds[fetch_module._host_of(one.url)] += 1
    assert turns == sorted(turns)  # nobody's second before everybody's first
    for url in urls:
        keys = [one.key for one in ordered if one.url == url]
        assert keys == sorted(keys)


# --- the caller ------------------------------------------------------------------------------------------------------


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("fetch", "decode"))}


def test_a_caller_that_stops_early_ends_the_downloads(hostile):
    pairs = [pair(hostile.url(f"good/stop{number}")) for number in range(5)]
    pairs += [pair(hostile.url(f"stall/{number}", host=60 + number)) for number in range(10)]
    begun = time.monotonic()
    for _ in fetch_pictures(pairs, with_settings(timeout_s=30), PictureConfig()):
        break
    assert time.monotonic() - begun < SLACK_S
    assert not threads()


def test_a_caller_that_is_slow_slows_the_downloads(hostile):
    pairs = [pair(hostile.url(f"good/slowed{number}")) for number in range(30)]
    found = fetch_pictures(pairs, with_settings(connections=3), PictureConfig())
    next(found)
    time.sleep(0.5)
    assert sum(request.path.startswith("good/slowed") for request in hostile.log) <= 4
    assert len(list(found)) == 29
    assert not threads()


def test_pictures_larger_than_the_memory_come_one_by_one(hostile):
    pairs = [pair(hostile.url(f"large/1500x1200/{number}")) for number in range(6)]
    found = outcomes(pairs, with_settings(memory_bytes=1_000_000))
    assert {one.rgb_HWC.shape for one in found} == {(1200, 1500, 3)}


def test_no_pairs():
    assert list(fetch_pictures([], QUICK, PictureConfig())) == []


def test_a_fault_in_the_program_reaches_the_caller(hostile, monkeypatch):
    monkeypatch.setattr(fetch_module, "_decode", lambda *_: {}["a bug"])
    with pytest.raises(KeyError, match="a bug"):
        outcome(pair(hostile.url("good/bug")))
    assert not threads()
