"""Silent hosts hold nobody up, cost few requests, and lose no row to one slow moment."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from types import SimpleNamespace

import pytest

from pipeline.fetch import dead_hosts, download, fetcher, network_watch, slots
from pipeline.fetch.dead_hosts import HostMemory
from pipeline.fetch.download import Downloads
from pipeline.fetch.fetcher import fetch_images
from pipeline.fetch.general_brake import SameFailures
from pipeline.fetch.network_watch import NetworkWatch
from pipeline.fetch.politeness import HostLimiter
from pipeline.fetch.retry import FetchFailed, HostGivenUp
from pipeline.fetch.slots import ActiveRows
from pipeline.images.validate import ImageConfig
from pipeline.records import Reason, Rejected
from pipeline.sources.hosts import HostLimits
from tests.support.fetching import SLACK_S, outcome, outcomes, pair, result, with_settings
from tests.support.narrowing import instances

SILENCE = FetchFailed(Reason.TIMEOUT, "", silent=True)
REFUSAL = FetchFailed(Reason.CONNECTION, "")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Not other tests' network."""
    monkeypatch.setattr(download, "network_watch", NetworkWatch())
    monkeypatch.setattr(fetcher, "same_failures", SameFailures())


@pytest.fixture
def quick(monkeypatch):
    """Hosts have half a second to say something, and half a second to rest."""
    for name in ("FIRST_TIMEOUT_S", "REST_S", "LAST_TIMEOUT_S"):
        monkeypatch.setattr(dead_hosts, name, 0.5)
    monkeypatch.setattr(dead_hosts, "POLL_S", 0.05)


@pytest.fixture
def clock(monkeypatch):
    """The time for dead_hosts, which only the test moves."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(dead_hosts, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(dead_hosts, "POLL_S", -1.0)
    return clock


def asked(server, path):
    """How many requests there were whose path begins so."""
    return sum(request.path.startswith(path) for request in server.log)


def reason_given_up(health):
    with contextlib.suppress(HostGivenUp):
        health.check()
        return None
    with pytest.raises(HostGivenUp) as given_up:
        health.check()
    return given_up.value.reason


def ask_in_vain(health, clock, seconds):
    """An attempt that meets silence."""
    begun = clock.now
    assert health.claim_request(30)
    clock.now += seconds
    health.failed(SILENCE, begun)


# --- what a host is asked --------------------------------------------------------------------------------------------


def test_a_host_that_never_answers_is_asked_twice(clock):
    health = HostMemory("").health("a.org")
    assert health.timeout_s(30) == dead_hosts.FIRST_TIMEOUT_S
    ask_in_vain(health, clock, 6)
    assert not health.may_ask and reason_given_up(health) is None
    clock.now += dead_hosts.REST_S
    assert health.may_ask and health.timeout_s(30) == dead_hosts.LAST_TIMEOUT_S
    ask_in_vain(health, clock, 10)
    assert reason_given_up(health) is Reason.TIMEOUT
    clock.now += dead_hosts.SILENT_MEMORY_S
    assert health.may_ask and health.timeout_s(30) == dead_hosts.FIRST_TIMEOUT_S


def test_first_requests_that_end_late_are_not_the_second_attempt(clock):
    health = HostMemory("").health("a.org")
    begun = clock.now
    for _ in range(4):  # connections, or units, or processes
        clock.now += 1
        health.failed(SILENCE, begun)
    assert reason_given_up(health) is None


def test_one_row_asks_again_for_all(clock):
    health = HostMemory("").health("a.org")
    ask_in_vain(health, clock, 6)
    clock.now += dead_hosts.REST_S
    assert health.claim_request(30)
    assert not health.may_ask and not health.claim_request(30)
    clock.now += dead_hosts.LAST_TIMEOUT_S + dead_hosts.DECISION_S + 1  # its process was killed
    assert health.may_ask


def test_more_time_for_an_attempt_is_more_time_to_answer(clock):
    health = HostMemory("").health("a.org")
    ask_in_vain(health, clock, 6)
    assert health.timeout_s(120) == 40
    assert health.timeout_s(5) == 5


def test_hosts_have_more_time_while_all_are_slow(clock):
    """Since this machine, or its connection, is busy."""
    memory = HostMemory("")
    for number in range(200):
        memory.health(f"{number}.org").answered(5)
    assert 19 < memory.health("a.org").timeout_s(30) <= 20
    assert memory.health("a.org").timeout_s(10) == 10


def test_an_answer_ends_the_rest_and_silence_is_a_rows_own_from_then_on(clock):
    health = HostMemory("").health("a.org")
    ask_in_vain(health, clock, 6)
    health.answered(1)
    for _ in range(dead_hosts.MAX_CONSECUTIVE_FAILURES - 1):
        assert health.may_ask and health.timeout_s(30) == 30
        ask_in_vain(health, clock, 30)
    assert reason_given_up(health) is None
    ask_in_vain(health, clock, 30)
    assert reason_given_up(health) is Reason.TIMEOUT
    clock.now += dead_hosts.SHORT_MEMORY_S
    assert reason_given_up(health) is None


def test_a_refusal_ends_the_rest(clock):
    health = HostMemory("").health("a.org")
    ask_in_vain(health, clock, 6)
    health.failed(REFUSAL, clock.now)
    assert health.may_ask and not health.has_answered


def test_a_host_that_refuses_is_given_up_for_an_hour(clock):
    health = HostMemory("").health("a.org")
    for _ in range(dead_hosts.MAX_CONSECUTIVE_FAILURES):
        assert reason_given_up(health) is None
        health.failed(REFUSAL, clock.now)
    clock.now += dead_hosts.MEMORY_S - 1
    assert reason_given_up(health) is Reason.CONNECTION
    clock.now += 2
    assert reason_given_up(health) is None


def test_requests_that_fail_together_are_one_sign(clock):
    health = HostMemory("").health("a.org")
    health.answered(1)
    for _ in range(dead_hosts.MIN_ROUNDS):
        assert reason_given_up(health) is None
        begun = clock.now
        clock.now += 30  # all at once, as after a pause of this machine
        for _ in range(dead_hosts.MAX_CONSECUTIVE_FAILURES):
            health.failed(SILENCE, begun)
    assert reason_given_up(health) is Reason.TIMEOUT


def test_a_pause_that_a_host_asks_for_is_kept_though_other_requests_are_answered(clock):
    health = HostMemory("").health("a.org")
    health.answered(1)
    health.failed(FetchFailed(Reason.HTTP_429, "", retry_after_s=600.0), clock.now)
    health.answered(1)
    assert reason_given_up(health) is Reason.HTTP_429


def test_what_no_longer_holds_is_forgotten_in_time(clock, monkeypatch):
    monkeypatch.setattr(dead_hosts, "MAX_KNOWN_HOSTS", 10)
    memory = HostMemory("")
    for number in range(50):
        clock.now += dead_hosts.REST_S
        ask_in_vain(memory.health(f"{number}.org"), clock, 6)
    assert len(memory._news) <= 10
    for number in range(50, 70):
        memory.health(f"{number}.org").failed(SILENCE, clock.now)
    assert len(memory._news) >= 20


# --- who learns of it ------------------------------------------------------------------------------------------------


@pytest.fixture
def processes(tmp_path):
    """The memories of two processes."""
    return HostMemory(str(tmp_path / "hosts")), HostMemory(str(tmp_path / "hosts"))


def test_units_that_run_and_other_processes_learn_at_once_what_one_learns(clock, processes):
    here, other_unit, there = processes[0].health("a.org"), processes[0].health("a.org"), processes[1].health("a.org")
    ask_in_vain(here, clock, 6)
    assert not other_unit.may_ask and not there.may_ask
    clock.now += dead_hosts.REST_S
    ask_in_vain(there, clock, 10)
    assert reason_given_up(here) is reason_given_up(other_unit) is reason_given_up(there) is Reason.TIMEOUT
    with pytest.raises(HostGivenUp, match=r"a\.org was silent, and some seconds later as well"):
        here.check()


def test_one_process_asks_again_for_all_whatever_the_others_have_read(clock, processes, monkeypatch):
    monkeypatch.setattr(dead_hosts, "POLL_S", 1e9)
    here, there = (memory.health("a.org") for memory in processes)
    ask_in_vain(here, clock, 6)
    processes[1]._refresh()
    clock.now += dead_hosts.REST_S
    assert here.claim_request(30)
    assert there.may_ask  # as far as it has read
    assert not there.claim_request(30)


def test_an_answer_to_one_process_ends_the_rest_in_all(clock, processes):
    here, there = (memory.health("a.org") for memory in processes)
    ask_in_vain(here, clock, 6)
    there.answered(1)
    assert here.may_ask and here.has_answered


def test_silence_towards_others_does_not_stop_a_process_that_gets_answers(clock, processes):
    here, there = (memory.health("a.org") for memory in processes)
    there.answered(1)
    ask_in_vain(here, clock, 6)
    clock.now += dead_hosts.REST_S
    ask_in_vain(here, clock, 10)
    assert reason_given_up(here) is Reason.TIMEOUT
    assert there.may_ask
    there.answered(1)
    assert here.may_ask


# --- fetching --------------------------------------------------------------------------------------------------------


def test_silent_hosts_hold_nobody_up(hostile, monkeypatch, quick):
    """Forty hosts that say nothing, room for four, and images of others."""
    monkeypatch.setattr(slots, "SILENT_AFTER_S", 0.2)
    assert result(outcome(pair(hostile.url("plain")))) == "fetched"  # else ten silent hosts are a network that is down
    silent = [pair(hostile.url(f"stall/silent{host}", host=host)) for host in range(2, 42)]
    good = [pair(hostile.url(f"good/beside{number}", host=42 + number % 20)) for number in range(100)]
    found = list(fetch_images([*silent, *good], with_settings(connections=4, timeout_s=1.5), ImageConfig()))
    assert sum(result(one) == "fetched" for one in found) == 100
    assert asked(hostile, "stall/silent") <= 80  # twice each; on a busy machine the server may miss one


def test_the_other_rows_of_a_silent_host_rest_until_it_was_asked_again(hostile, quick):
    pairs = [pair(hostile.url(f"stall/rests{number}", host=64)) for number in range(30)]
    found = instances(outcomes(pairs, with_settings(timeout_s=1, per_host_connections=2)), Rejected)
    assert {(result(one), one.detail) for one in found} == {
        ("timeout", "127.0.0.64 was silent, and some seconds later as well")
    }
    assert asked(hostile, "stall/rests") <= 3  # two, then one for all


def test_units_that_run_at_once_ask_a_silent_host_no_more_often(hostile, quick, tmp_path):
    """Its connections are the same for all, and while one unit held them, the others waited to do so as well."""
    config = with_settings(timeout_s=1, per_host_connections=2, retries=2, shared_folder=str(tmp_path / "hosts"))
    pairs = [pair(hostile.url(f"stall/units{number}", host=62)) for number in range(12)]
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        found = [one for unit in threads.map(lambda unit: outcomes(pairs[unit::3], config), range(3)) for one in unit]
    assert {result(one) for one in found} == {"timeout"}
    assert asked(hostile, "stall/units") <= 3


def test_a_slow_moment_of_a_host_costs_no_row(hostile, quick):
    assert result(outcome(pair(hostile.url("stall_once/moment", host=63)))) == "fetched"
    assert asked(hostile, "stall_once/moment") == 2


def test_no_row_begins_while_it_is_asked_whose_fault_a_silence_is(hostile, monkeypatch, quick):
    """The rows that waited for the slot of the first one would each take the time of an attempt in vain."""
    monkeypatch.setattr(network_watch, "FRESH_S", 0.0)  # another host is asked each time
    assert result(outcome(pair(hostile.url("good/before")))) == "fetched"
    pairs = [pair(hostile.url(f"stall/judged{number}", host=66)) for number in range(30)]
    found = outcomes(pairs, with_settings(timeout_s=1, per_host_connections=2))
    assert {result(one) for one in found} == {"timeout"}
    assert asked(hostile, "stall/judged") == 3


def test_a_host_that_has_never_answered_has_less_time(hostile, monkeypatch, quick):
    in_time, seconds = Downloads._in_time, []

    async def noted(self, ends_at, awaitable):
        seconds.append(ends_at - time.monotonic())
        return await in_time(self, ends_at, awaitable)

    monkeypatch.setattr(Downloads, "_in_time", noted)
    monkeypatch.setattr(dead_hosts, "LAST_TIMEOUT_S", 0.25)
    pairs = [pair(hostile.url(f"stall/last{number}", host=67)) for number in range(5)]
    assert {result(one) for one in outcomes(pairs, with_settings(timeout_s=0.6, per_host_connections=1))} == {"timeout"}
    assert len(seconds) == 2 and 0.25 < seconds[0] <= 0.5 and seconds[1] <= 0.25


def test_one_timeout_of_a_host_that_answers_costs_one_row(hostile):
    """A list of one host: the others neither rest nor are given up."""
    stalls = [pair(hostile.url(f"stall/among{number}", host=70)) for number in range(3)]
    good = [pair(hostile.url(f"slow/{number}", host=70)) for number in range(30)]
    mixed = [*good[:4], stalls[0], *good[4:12], stalls[1], *good[12:20], stalls[2], *good[20:]]
    found = outcomes(mixed, with_settings(timeout_s=1, per_host_connections=2))
    assert sum(result(one) == "fetched" for one in found) == 30


def test_rows_that_rest_are_not_active_and_go_on_once_the_host_wakes_up():
    health, rows = HostMemory("").health("a.org"), ActiveRows(3)
    limiter = HostLimiter(health, HostLimits(4, 100), rows, 30.0)

    async def scenario() -> None:
        limiter.failed(SILENCE, time.monotonic())
        resting = asyncio.create_task(limiter.ready())
        await asyncio.sleep(0.05)
        assert not resting.done() and rows.number == 2
        limiter.answered(1)
        await asyncio.wait_for(resting, SLACK_S)
        assert rows.number == 3

    asyncio.run(scenario())


def test_what_was_learned_of_a_host_outlives_the_unit(hostile, quick, tmp_path, monkeypatch):
    config = with_settings(timeout_s=1, retries=1, shared_folder=str(tmp_path / "hosts"))
    for unit in range(3):
        pairs = [pair(hostile.url(f"stall/learned{unit}/{number}", host=65)) for number in range(2)]
        assert {result(one) for one in outcomes(pairs, config)} == {"timeout"}
    assert asked(hostile, "stall/learned") == 3
    monkeypatch.setattr(dead_hosts, "_shared_memory", HostMemory)  # as another process
    assert result(outcome(pair(hostile.url("stall/other", host=65)), config)) == "timeout"
    assert not asked(hostile, "stall/other")
