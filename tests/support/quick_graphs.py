"""Pure functions of Beam and the standard library, remembered for all the jobs that one test process builds.

A third of a small job's processor time is Beam looking through each DoFn's class for state and timers, three times for
each step, and argparse looking for translations of its messages.
"""

from __future__ import annotations

import functools
import gettext
from typing import Any

from apache_beam.transforms import userstate


def remember() -> None:
    """Called once in a process."""
    gettext.find = functools.lru_cache(maxsize=None)(gettext.find)
    userstate.get_dofn_specs = _remembered(userstate.get_dofn_specs)


def _remembered(get_dofn_specs: Any) -> Any:
    """What state and timers a DoFn has is decided by its class, and by its own `process` if it wraps a method."""
    known: dict[tuple[type, Any], tuple[set, set]] = {}

    def get(dofn: Any) -> tuple[set, set]:
        key = type(dofn), getattr(vars(dofn).get("process"), "__func__", None)
        if key not in known:
            known[key] = get_dofn_specs(dofn)
        return known[key]

    return get
