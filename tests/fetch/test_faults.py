"""What is not the row's fault is not blamed on it, and what is one row's fault is not everybody's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import itertools
import os
import re
import socket
import tempfile
import threading
import time

import aiohttp
import pytest

from models.errors import UserError
from pipeline.fetch import (
    addresses,
    download,
    fetcher,
    general_brake,
    machine_faults,
    network_watch,
    politeness,
    shared_folder,
)
from pipeline.fetch.download import Downloads
from pipeline.fetch.fetcher import fetch_images
from pipeline.fetch.general_brake import SameFailures
from pipeline.fetch.machine_faults import UnexpectedErrors, machine_fault
from pipeline.fetch.network_watch import NetworkWatch
from pipeline.fetch.retry import FetchFailed
from pipeline.images.validate import ImageConfig
from pipeline.records import Reason, Rejected
from pipeline.sources.hosts import HostLimits, limits_for
from tests.support.fetching import SLACK_S, outcome, outcomes, pair, result, with_settings
from tests.support.hostile import HostileServer
from tests.support.narrowing import instance


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Neither other tests' network nor their unexpected errors."""
    monkeypatch.setattr(download, "network_watch", NetworkWatch())
    monkeypatch.setattr(fetcher, "unexpected_errors", UnexpectedErrors())
    monkeypatch.setattr(fetcher, "same_failures", SameFailures())


def asked(server, path):
    """The requests whose path begins so."""
    return [request for request in server.log if request.path.startswith(path)]


def raising(error):
    def function(*_, **__):
        raise error

    return function


# --- rows ------------------------------------------------------------------------------------------------------------


def test_an_exception_that_nothing_foresaw_is_the_rows_reject(hostile, monkeypatch, capsys):
    decode = fetcher._decode

    def faulty(file, one, **options):
        if one.url.endswith("bug"):
            raise KeyError("a bug")
        return decode(file, one, **options)

    monkeypatch.setattr(fetcher, "_decode", faulty)
    found = outcomes([pair(hostile.url("good/bug")), *(pair(hostile.url(f"good/other{n}")) for n in range(5))])
    assert [result(one) for one in found] == ["unexpected"] + ["fetched"] * 5
    assert instance(found[0], Rejected).detail == "KeyError: 'a bug'"
    assert fetcher.unexpected_errors.unexpected == 1
    assert "unexpected KeyError at test_faults.py:" in capsys.readouterr().err


def test_a_job_with_too_many_unexpected_errors_stops_and_says_why(hostile, monkeypatch):
    monkeypatch.setattr(fetcher, "_decode", raising(KeyError("a bug")))
    pairs = [pair(hostile.url(f"good/{host}", host=host)) for host in range(2, 60)]
    with pytest.raises(UserError, match=r"rows ended in an error .*test_faults.py:\d+: KeyError: 'a bug'"):
        outcomes(pairs)


def test_one_host_cannot_end_a_job_by_unexpected_errors(hostile, monkeypatch):
    monkeypatch.setattr(fetcher, "_decode", raising(KeyError("a bug")))
    found = outcomes([pair(hostile.url(f"good/many{number}")) for number in range(60)])
    assert {result(one) for one in found} == {"unexpected"}


def test_the_cause_is_not_hidden_from_a_caller_that_holds_an_image(hostile, monkeypatch):
    monkeypatch.setattr(machine_faults, "warn_once", lambda *_: None)
    fetch = fetcher._Fetcher.fetch

    async def ends(self, one):
        if one.url.endswith("fatal"):
            raise UserError("the cause")
        return await fetch(self, one)

    monkeypatch.setattr(fetcher._Fetcher, "fetch", ends)
    found = fetch_images([pair(hostile.url("plain")), pair(hostile.url("fatal"))], with_settings(), ImageConfig())
    with pytest.raises(UserError, match="the cause"):
        for _ in found:
            time.sleep(0.3)  # the loop ends meanwhile


# --- this machine ----------------------------------------------------------------------------------------------------

NOT_THE_HOSTS = [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EROFS]


@pytest.mark.parametrize("number", NOT_THE_HOSTS)
def test_limits_of_this_machine_end_the_job(hostile, monkeypatch, number):
    key = aiohttp.client_reqrep.ConnectionKey("a.org", 80, False, True, None, None, None)
    fault = aiohttp.ClientConnectorError(key, OSError(number, "no more"))
    monkeypatch.setattr(aiohttp.ClientSession, "get", raising(fault))
    with pytest.raises(UserError, match=r"this machine can't go on: .*no more"):
        outcome(pair(hostile.url("good")))


def test_a_full_disk_ends_the_job(hostile, monkeypatch):
    class Full(tempfile.SpooledTemporaryFile):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(UserError, match="No space left on device; make room, then run the same command again"):
        outcome(pair(hostile.url("good/full")))


def test_a_folder_for_temporary_files_that_is_gone_ends_the_job(hostile, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    monkeypatch.setattr(download, "SPOOLED_BYTES", 100)
    with pytest.raises(UserError, match=r"gone.*No such file"):
        outcome(pair(hostile.url("good/gone")))


def test_no_memory_for_a_moment_costs_no_image(hostile, monkeypatch):
    decode, failures = fetcher._decode, [MemoryError()]

    def scarce(*arguments, **options):
        if failures:
            raise failures.pop()
        return decode(*arguments, **options)

    monkeypatch.setattr(fetcher, "_decode", scarce)
    found = outcomes([pair(hostile.url(f"good/scarce{number}")) for number in range(5)])
    assert {result(one) for one in found} == {"fetched"}


def test_an_image_that_takes_more_memory_than_its_size_explains(hostile, monkeypatch):
    monkeypatch.setattr(fetcher, "_decode", raising(MemoryError()))
    assert result(outcome(pair(hostile.url("good/greedy")))) == "corrupt_image"


def test_a_machine_without_memory_ends_the_job(hostile, monkeypatch):
    monkeypatch.setattr(fetcher, "_decode", raising(MemoryError()))
    monkeypatch.setattr(fetcher, "DECODING_BYTES", 1 << 40)
    with pytest.raises(UserError, match="not enough memory for an image of 200 x 150 px"):
        outcome(pair(hostile.url("good/poor")))


def test_a_refused_connection_is_not_this_machines_fault():
    assert machine_fault(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
    assert machine_fault(FetchFailed(Reason.TIMEOUT, "")) is None
    assert machine_faults.machine_fault(RuntimeError()) is None


# --- the network -----------------------------------------------------------------------------------------------------


class NameServers:
    """Names that end in .test lead to the loopback, while the name servers answer."""

    def __init__(self, monkeypatch):
        self.resolve, self.down_until, self.asked = socket.getaddrinfo, 0.0, 0
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)

    def getaddrinfo(self, host, *arguments, **options):
        if not str(host).endswith(".test"):
            return self.resolve(host, *arguments, **options)
        self.asked += 1
        if time.monotonic() < self.down_until:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self.resolve("127.0.0.1", *arguments, **options)


@pytest.fixture
def name_servers(monkeypatch):
    return NameServers(monkeypatch)


def test_name_servers_that_are_down_cost_no_row(hostile, monkeypatch, name_servers, capsys):
    monkeypatch.setattr(network_watch, "PROBE_INTERVAL_S", 0.1)
    assert result(outcome(pair(f"http://first.test:{hostile.port}/good/first"))) == "fetched"
    name_servers.down_until = time.monotonic() + 1.5
    found = outcomes([pair(f"http://name{number}.test:{hostile.port}/good/{number}") for number in range(40)])
    assert {result(one) for one in found} == {"fetched"}
    assert "no host answers any more" in capsys.readouterr().err


def test_a_network_that_was_down_from_the_start_costs_no_row(hostile, monkeypatch, name_servers):
    monkeypatch.setattr(network_watch, "PROBE_INTERVAL_S", 0.1)
    name_servers.down_until = time.monotonic() + 1.5
    found = outcomes([pair(f"http://name{number}.test:{hostile.port}/good/{number}") for number in range(40)])
    missed = [one for one in found if result(one) != "fetched"]
    assert len(missed) < network_watch.MIN_SILENT_HOSTS  # so many are asked before it is known


def test_a_network_that_does_not_come_back_ends_the_job(hostile, monkeypatch, name_servers):
    monkeypatch.setattr(network_watch, "PROBE_INTERVAL_S", 0.1)
    monkeypatch.setattr(network_watch, "MAX_PAUSE_S", 0.5)
    assert result(outcome(pair(f"http://first.test:{hostile.port}/good/first"))) == "fetched"
    name_servers.down_until = time.monotonic() + 60
    with pytest.raises(UserError, match=r"no host has answered .*see to the network"):
        outcomes([pair(f"http://name{number}.test/") for number in range(40)])


def test_names_that_do_not_exist_are_their_own_fault(hostile, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", raising(socket.gaierror(socket.EAI_NONAME, "Name or service unknown")))
    begun = time.monotonic()
    found = outcomes([pair(f"http://name{number}.test/") for number in range(40)], with_settings(retries=2))
    assert {result(one) for one in found} == {"dns"}
    assert time.monotonic() - begun < SLACK_S


def portal_pairs(server, what):
    return [pair(server.url(f"portal/{what}{host}", host=host)) for host in range(2, 70)]


def test_a_page_before_all_hosts_costs_few_rows(hostile, monkeypatch, capsys):
    """As of a hotel's network: rows wait until it is gone."""
    monkeypatch.setattr(general_brake, "PROBE_INTERVAL_S", 0.1)
    assert result(outcome(pair(hostile.url("portal/first")))) == "fetched"
    hostile.portal = True
    timer = threading.Timer(3, lambda: setattr(hostile, "portal", False))
    timer.start()
    found = outcomes(portal_pairs(hostile, "held"), with_settings(connections=8))
    timer.join()
    assert sum(result(one) == "not_an_image" for one in found) < general_brake.MIN_HOSTS + 8
    assert sum(result(one) == "fetched" for one in found) > 68 - general_brake.MIN_HOSTS - 8
    assert "all hosts fail with not_an_image" in capsys.readouterr().err


def test_a_page_that_stays_ends_the_job(hostile, monkeypatch):
    monkeypatch.setattr(general_brake, "PROBE_INTERVAL_S", 0.1)
    monkeypatch.setattr(general_brake, "MAX_PAUSE_S", 0.5)
    assert result(outcome(pair(hostile.url("portal/first")))) == "fetched"
    hostile.portal = True
    try:
        with pytest.raises(UserError, match="all hosts have failed with not_an_image"):
            outcomes(portal_pairs(hostile, "ended"))
    finally:
        hostile.portal = False


def test_hosts_that_fail_alike_for_themselves_are_no_reason_to_wait(hostile):
    assert result(outcome(pair(hostile.url("plain")))) == "fetched"
    begun = time.monotonic()
    found = outcomes([pair(hostile.url(f"status/404/{host}", host=host)) for host in range(2, 70)])
    assert {result(one) for one in found} == {"http_404"}
    assert time.monotonic() - begun < SLACK_S
    assert len(hostile.requests("plain")) >= 2  # which was the test


# --- time -----------------------------------------------------------------------------------------------------------


def test_a_connection_has_a_deadline_of_its_own(hostile, monkeypatch, tmp_path):
    async def never(*_, **__):
        raise aiohttp.ConnectionTimeoutError("Connection timeout to host")

    config = with_settings(connect_timeout_s=0.5, shared_folder=str(tmp_path / "hosts"))
    assert result(outcome(pair(hostile.url("good/reachable")), config)) == "fetched"
    monkeypatch.setattr(aiohttp.TCPConnector, "_wrap_create_connection", never)
    found = instance(outcome(pair(hostile.url("good/unreachable")), config), Rejected)
    assert (result(found), found.detail) == ("timeout", "not connected after 0.5 s")


def test_a_name_is_looked_up_once_for_all_its_rows(hostile, name_servers):
    found = outcomes([pair(f"http://same.test:{hostile.port}/good/same{number}") for number in range(30)])
    assert {result(one) for one in found} == {"fetched"}
    assert name_servers.asked == 1


# --- limits ----------------------------------------------------------------------------------------------------------


def test_503_with_retry_after_rests_the_host(hostile):
    pairs = [pair(hostile.url(f"unavailable/3600/{number}", host=66)) for number in range(40)]
    found = outcomes(pairs, with_settings(per_host_connections=4, retries=2))
    assert {result(one) for one in found} == {"http_5xx"}
    assert len(asked(hostile, "unavailable/3600")) <= 4


def test_503_with_a_short_retry_after_delays_the_host(hostile):
    pairs = [pair(hostile.url(f"unavailable/1/{number}", host=68)) for number in range(3)]
    outcomes(pairs, with_settings(per_host_connections=1, retries=0))
    times = [request.time for request in asked(hostile, "unavailable/1/")]
    assert len(times) == 3 and min(after - before for before, after in itertools.pairwise(times)) > 0.95


def test_limits_count_for_an_address_as_well(hostile, monkeypatch):
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        return resolve("127.0.0.80" if str(host).endswith(".test") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    pairs = [pair(f"http://name{number}.test:{hostile.port}/slow/{number}") for number in range(40)]
    found = outcomes(pairs, with_settings(per_host_connections=2))
    assert {result(one) for one in found} == {"fetched"}
    assert hostile.most_at_once[80] == 2 * politeness.NAMES_PER_GROUP


@pytest.fixture
def many_names(monkeypatch):
    """A server of its own; names that begin with nN lead to its address 127.0.0.N."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        number = re.match(r"n(\d+)\.", str(host))
        return resolve(f"127.0.0.{number[1]}" if number else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with HostileServer() as server:
        yield server


def names_of(domain, server):
    return [pair(f"http://n{number}.{domain}:{server.port}/slow/{number}{domain}") for number in range(1, 41)]


def test_limits_count_for_a_registrable_domain_as_well(many_names):
    """Forty names of one owner, each with an address of its own."""
    found = outcomes(names_of("example.co.uk", many_names), with_settings(per_host_connections=2))
    assert {result(one) for one in found} == {"fetched"}
    assert many_names.most_in_all == 2 * politeness.NAMES_PER_GROUP


def test_names_below_a_public_suffix_have_limits_of_their_own(many_names):
    found = outcomes(names_of("co.uk", many_names), with_settings(per_host_connections=2))
    assert {result(one) for one in found} == {"fetched"}
    assert many_names.most_in_all > 2 * politeness.NAMES_PER_GROUP


def test_the_rate_of_a_registrable_domain_is_kept(many_names):
    found = outcomes(names_of("example.com", many_names), with_settings(per_host_rate=5))
    assert {result(one) for one in found} == {"fetched"}
    times = [request.time for request in many_names.log if request.path.endswith("example.com")]
    assert times[-1] - times[0] > 39 / (5 * politeness.NAMES_PER_GROUP) - 0.1


def test_units_that_overlap_share_the_limits_of_a_domain(many_names):
    """One unit waits for slow hosts while the process fetches the next ones."""
    config = with_settings(per_host_connections=2, per_host_rate=15)
    pairs = names_of("example.org", many_names)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        units = list(threads.map(lambda unit: outcomes(pairs[unit::4], config), range(4)))
    assert {result(one) for unit in units for one in unit} == {"fetched"}
    assert many_names.most_in_all <= 2 * politeness.NAMES_PER_GROUP
    times = [request.time for request in many_names.log if request.path.endswith("example.org")]
    assert times[-1] - times[0] > 39 / (15 * politeness.NAMES_PER_GROUP) - 0.1


@pytest.mark.parametrize("host", ["live.staticflickr.com", "upload.wikimedia.org", "i.imgur.com"])
def test_the_limits_of_a_domain_are_above_those_of_each_of_its_names(host):
    """One name for the images of millions of people gets what it got before."""
    limits = limits_for(host, HostLimits(4, 20.0))
    assert limits.connections < politeness.NAMES_PER_GROUP * 4 and limits.rate < politeness.NAMES_PER_GROUP * 20


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.co.uk", "example.co.uk"),
        ("upload.wikimedia.org", "wikimedia.org"),
        ("example.com.", "example.com"),
        ("alice.github.io", "alice.github.io"),
        ("bucket.s3.amazonaws.com", "bucket.s3.amazonaws.com"),
        ("www.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
        ("a.unheard-of", "a.unheard-of"),
        ("co.uk", None),
        ("localhost", None),
        ("127.0.0.1", None),
        ("0x7f.1", None),
        ("2001:db8::1", None),
    ],
)
def test_registrable_domains(host, domain):
    assert addresses.registrable_domain(host) == domain


def test_addresses_of_one_network_of_ipv6_are_one():
    assert addresses.address_key("2001:db8::1") == addresses.address_key("2001:db8::ffff:1")
    assert addresses.address_key("2001:db8::1") != addresses.address_key("2001:db8:0:1::1")
    assert addresses.address_key("192.0.2.1") != addresses.address_key("192.0.2.2")


def test_workers_without_the_launcher_s_temporary_folder_share_one_of_their_own(tmp_path, monkeypatch):
    """As another user's do, to whom it is closed."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = shared_folder.own_folder(f"{tmp_path}/file/pairmill-hosts-1")
    assert folder == f"{tmp_path}/pairmill-hosts-1-{os.geteuid()}"
    assert os.stat(folder).st_mode & 0o777 == 0o700
    os.chmod(folder, 0o777)
    shared_folder.own_folder.cache_clear()
    with pytest.raises(UserError, match="not a folder of this user alone"):
        shared_folder.own_folder(f"{tmp_path}/file/pairmill-hosts-1")


def test_a_folder_of_locks_that_others_may_write_is_refused(hostile, tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UserError, match="not a folder of this user alone"):
        outcome(pair(hostile.url("good")), with_settings(shared_folder=str(folder)))


def test_a_lock_that_leads_elsewhere_is_not_followed(hostile, tmp_path):
    folder, victim = tmp_path / "hosts", tmp_path / "victim"
    folder.mkdir(mode=0o700)
    (folder / "dead-hosts").symlink_to(victim)
    with pytest.raises((UserError, OSError)):
        outcome(pair(hostile.url("good")), with_settings(shared_folder=str(folder)))
    assert not victim.exists()


def test_downloads_close_without_a_row():
    async def nothing() -> None:
        async with Downloads(with_settings(), ImageConfig()):
            pass

    asyncio.run(nothing())
