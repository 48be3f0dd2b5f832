"""Pure functions of Beam and the standard library, remembered for all the jobs that one test process builds.

A third of a small job's processor time would be Beam repeating itself: it looks for the parameters of each method of
each DoFn, and through its class for state and timers, three times for each step, packs and unpacks what it pickles, and
walks through all variables of all modules to weigh a value that it caches; and argparse looks for translations of its
messages.
"""

from __future__ import annotations

import bz2
import functools
import gettext
import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any

from apache_beam.internal import cloudpickle_pickler
from apache_beam.runners.worker import statecache
from apache_beam.transforms import core, userstate

WEIGHT = 1 << 10  # bytes of a cached value: the caches of tests never fill up


@functools.cache
def remember() -> None:
    """Does nothing when it is called again."""
    gettext.find = functools.lru_cache(maxsize=None)(gettext.find)
    userstate.get_dofn_specs = _remembered_specs(userstate.get_dofn_specs)
    compress, decompress = map(functools.lru_cache(maxsize=4096), (bz2.compress, bz2.decompress))
    cloudpickle_pickler.bz2 = types.SimpleNamespace(compress=compress, decompress=decompress)
    core.get_signature = _remembered_signatures(core.get_signature)
    statecache.get_deep_size = lambda *values: WEIGHT


def _remembered_specs(get_dofn_specs: Any) -> Any:
    """What state and timers a DoFn has is decided by its class, and by its own `process` if it wraps a method."""
    known: dict[tuple[type, Any], tuple[set, set]] = {}

    def get(dofn: Any) -> tuple[set, set]:
        key = type(dofn), getattr(vars(dofn).get("process"), "__func__", None)
        if key not in known:
            known[key] = get_dofn_specs(dofn)
        return known[key]

    return get


def _remembered_signatures(get_signature: Callable[[Any], inspect.Signature]) -> Callable[[Any], inspect.Signature]:
    """That of a method is decided by its function; other callables are inspected each time."""
    known: weakref.WeakKeyDictionary[Any, inspect.Signature] = weakref.WeakKeyDictionary()

    def get(called: Any) -> inspect.Signature:
        if not isinstance(called, types.MethodType) or not isinstance(called.__func__, types.FunctionType):
            return get_signature(called)
        if called.__func__ not in known:
            known[called.__func__] = get_signature(called)
        return known[called.__func__]

    return get
