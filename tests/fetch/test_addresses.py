"""No address that is not public is connected to, however it is spelled and whatever leads there."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time

import pytest

from pipeline.fetch import dead_hosts
from pipeline.fetch.addresses import is_refused, literal_address
from pipeline.records import Rejected
from tests.support.fetching import SLACK_S, TIMEOUT_S, outcome, outcomes, pair, result, with_settings
from tests.support.hostile_answers import redirect
from tests.support.narrowing import instances

LOOPBACK_SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "①②⑦.⓪.⓪.①",
    "１２７.0.0.1",
    "127。0。0。1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "localhost",
    "LOCALHOST",
]


def test_no_spelling_of_the_loopback_is_connected_to(hostile):
    seen = len(hostile.log)
    pairs = [pair(f"http://{spelling}:{hostile.port}/good") for spelling in LOOPBACK_SPELLINGS]
    pairs += [pair(f"http://user@{spelling}:{hostile.port}/good") for spelling in LOOPBACK_SPELLINGS]
    found = instances(outcomes(pairs, with_settings(allow_addresses=())), Rejected)
    assert {one.url: one.reason for one in found} == {one.url: "refused_address" for one in found}
    assert len(hostile.log) == seen


def test_the_loopback_may_be_allowed_by_name(hostile):
    for host in ("127.0.0.1", "localhost"):
        assert result(outcome(pair(f"http://{host}:{hostile.port}/good"))) == "fetched"
    assert (
        result(outcome(pair(hostile.url("good", host=1)), with_settings(allow_addresses=("127.0.0.2/32",))))
        == "refused_address"
    )


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
            hung.wait(30)
        return resolve("127.0.0.1" if "works" in str(host) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    begun = time.monotonic()
    bad = [pair(f"http://hangs{number}.test/") for number in range(8)]
    good = [pair(f"http://works{number}.test:{hostile.port}/good") for number in range(8)]
    found = outcomes([*bad, *good])
    assert [result(one) for one in found] == ["dns"] * 8 + ["fetched"] * 8
    assert time.monotonic() - begun < 2 * TIMEOUT_S + dead_hosts.REST_S + SLACK_S  # asked again after a rest
    hung.set()


REFUSED = [
    "127.0.0.1",
    "127.255.255.255",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1",
    "::10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "2002:a00:1::",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]


@pytest.mark.parametrize("address", REFUSED)
def test_refused_addresses(address):
    assert is_refused(address, [])
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert not is_refused(address, everything)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.15.255.255",
        "172.32.0.1",
        "100.63.0.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::",
    ],
)
def test_public_addresses(address):
    assert not is_refused(address, [])


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("134744072", "8.8.8.8"),
        ("0x8080808", "8.8.8.8"),
        ("010.8.8.8", "8.8.8.8"),
        ("::1", "::1"),
        ("fe80::1%25eth0", "fe80::1"),
        ("example.org", None),
        ("cafe", None),
        ("1.2.3.4.example", None),
        ("bücher.de", None),
        ("999.1.1.1", None),
    ],
)
def test_literal_address(host, address):
    assert literal_address(host) == address
