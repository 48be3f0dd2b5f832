"""Failed downloads: the exception, Retry-After, back-off."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime

from pipeline.records import Reason

BACK_OFF_S, MAX_BACK_OFF_S = 1.0, 60.0


class FetchFailed(Exception):
    """Why an attempt failed. `final` means not to try again in this run, even if the reason is transient; `silent` that
    neither the host nor a name server has sent anything."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        retry_after_s: float | None = None,
        final: bool = False,
        silent: bool = False,
    ):
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail, self.retry_after_s, self.final = reason, detail, retry_after_s, final
        self.silent = silent


class HostGivenUp(FetchFailed):
    """No request was made: the host has failed too often, or has asked for a long pause."""


def retry_after_s(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which is in seconds or an HTTP date; None if absent or malformed."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def back_off_s(attempt: int) -> float:
    """Seconds to wait after an attempt, counted from 0: exponential with full jitter, so that rows that failed together
    are not retried together."""
    return random.uniform(0, min(MAX_BACK_OFF_S, BACK_OFF_S * 2**attempt))
