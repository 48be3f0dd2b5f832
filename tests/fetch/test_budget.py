"""Memory is granted in the order of the requests, and a cancelled request holds none."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.fetch.budget import Budget, BudgetLease
from tests.support.narrowing import required


def is_free(budget: Budget, length: int) -> bool:
    """Whether exactly so many bytes are free, with nothing waiting."""
    if budget.acquire(length) is not None:
        return False
    more = budget.acquire(1)
    if more:
        more.cancel()
    budget.release(length if more else length + 1)
    return more is not None


def test_a_small_request_does_not_overtake_a_large_one():
    budget = Budget(10)
    assert budget.acquire(6) is None
    large, small = budget.acquire(8), budget.acquire(2)  # the small one would fit
    assert large and small and not large.done() and not small.done()
    budget.release(3)
    assert not large.done() and not small.done()
    budget.release(1)
    assert large.done() and not small.done()
    budget.release(2)
    assert small.done()
    budget.release(10)
    assert is_free(budget, 10)


def test_a_cancelled_request_takes_nothing_and_blocks_nobody():
    budget = Budget(10)
    assert budget.acquire(6) is None
    cancelled, other = required(budget.acquire(9)), required(budget.acquire(5))
    assert cancelled.cancel()
    budget.release(6)
    assert other.done()
    budget.release(5)
    assert is_free(budget, 10)


def test_a_lease_that_is_cancelled_while_it_waits_holds_nothing():
    async def scenario() -> None:
        budget = Budget(10)
        first, second = BudgetLease(budget), BudgetLease(budget)
        assert await first.acquire(10) == 10
        waiting = asyncio.create_task(second.acquire(4))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.release(10)
        assert (first.held, second.held) == (0, 0) and is_free(budget, 10)

    asyncio.run(scenario())


def test_memory_granted_just_before_a_cancellation_is_released():
    async def scenario() -> None:
        budget = Budget(10)
        assert budget.acquire(10) is None
        lease = BudgetLease(budget)
        waiting = asyncio.create_task(lease.acquire(4))
        await asyncio.sleep(0.01)
        budget.release(10)  # grants the 4, of which the task learns in the next step of the loop
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert lease.held == 0 and is_free(budget, 10)

    asyncio.run(scenario())


def test_a_request_for_more_than_there_is_gets_all():
    async def scenario() -> None:
        budget = Budget(10)
        lease = BudgetLease(budget)
        assert await lease.acquire(99) == lease.held == 10
        lease.release(10)
        assert lease.held == 0 and is_free(budget, 10)

    asyncio.run(scenario())
