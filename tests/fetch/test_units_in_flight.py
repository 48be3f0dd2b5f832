"""A unit whose last rows wait for silent hosts holds up no other unit."""

from __future__ import annotations

import threading

import pytest

from models.errors import UserError
from pipeline.fetch import units_in_flight
from pipeline.fetch.stage import FetchUnit
from pipeline.fetch.units import Unit
from pipeline.fetch.units_in_flight import UnitsInFlight
from pipeline.images.shard_writer import StoreConfig
from pipeline.images.validate import ImageConfig
from tests.support.fetching import pair, with_settings


def blocked(event, busy_rows):
    """A unit that is busy with so many rows until the event."""

    def fetch(activity):
        activity.begin(lambda: busy_rows)
        event.wait()
        return busy_rows

    return fetch


def test_a_unit_that_is_busy_is_waited_for():
    units, ends = UnitsInFlight[int](128), threading.Event()
    passed: list[int] = []
    thread = threading.Thread(target=lambda: passed.extend(units.start(blocked(ends, 64))))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    ends.set()
    thread.join()
    assert passed == [64]


def test_the_next_unit_begins_beside_units_that_wait_for_few_rows():
    units, ends = UnitsInFlight[int](128), threading.Event()
    assert list(units.start(blocked(ends, 40))) == list(units.start(blocked(ends, 20))) == []
    ends.set()
    assert sorted(units.finish()) == [20, 40]


def test_rows_of_all_units_count_together():
    units, ends = UnitsInFlight[int](128), threading.Event()
    assert list(units.start(blocked(ends, 40))) == []
    threading.Timer(0.3, ends.set).start()
    assert list(units.start(blocked(ends, 30)))  # 70 are too many for a third one


def test_the_number_of_units_is_limited(monkeypatch):
    monkeypatch.setattr(units_in_flight, "MAX_UNITS", 3)
    units, ends = UnitsInFlight[int](128), threading.Event()
    assert [list(units.start(blocked(ends, 1))) for _ in range(2)] == [[], []]
    threading.Timer(0.3, ends.set).start()
    assert list(units.start(blocked(ends, 1)))


def test_what_a_unit_raises_ends_the_bundle():
    def faulty(_):
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"):
        list(UnitsInFlight(128).start(faulty))


def test_a_silent_host_of_one_unit_does_not_hold_up_the_next(hostile, tmp_path):
    config = with_settings(timeout_s=4, shared_folder=str(tmp_path / "hosts"))
    stage = FetchUnit(str(tmp_path / "output"), 1, config, ImageConfig(), StoreConfig())
    stage.start_bundle()
    found = [row for number in range(3) for row in stage.process(unit_with_a_silent_host(number, hostile))]
    found += [value.value for value in stage.finish_bundle() if hasattr(value, "windows")]
    assert len({row.url for row in found}) == 30
    stalls = [request.time for request in hostile.log if request.path.startswith("stall/in_flight")]
    good = [request.time for request in hostile.log if request.path.startswith("good/in_flight2")]
    assert min(good) < min(stalls) + 4  # by itself, the first unit takes eight seconds


def unit_with_a_silent_host(number, server):
    pairs = [pair(server.url(f"good/in_flight{number}_{row}", host=2 + row)) for row in range(10)]
    pairs.append(pair(server.url(f"stall/in_flight{number}", host=20 + number)))
    return Unit(number, 3, sorted(pairs, key=lambda one: one.key))
