"""Pure functions of Beam and the standard library, remembered for all the jobs that one test process builds.

Half of a small job's processor time would be Beam repeating itself: it looks for the parameters of each method of each
DoFn, and through its class for state and timers, three times for each step, reads the source of each function for a
mixture of yield and return, formats the stack at each hint of a type, pickles each function once more to see that it
can, packs and unpacks what it pickles, and walks through all variables of all modules to weigh a value that it caches;
and argparse looks for translations of its messages.
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

from apache_beam.internal import cloudpickle_pickler, pickler
from apache_beam.runners.worker import statecache
from apache_beam.transforms import core, userstate
from apache_beam.typehints import decorators

WEIGHT = 1 << 10  # bytes of a cached value: the caches of tests never fill up


@functools.cache
def remember() -> None:
    """Does nothing when it is called again."""
    _replace(gettext, "find", functools.lru_cache(maxsize=None)(gettext.find))
    userstate.get_dofn_specs = _remembered_specs(userstate.get_dofn_specs)
    remembered = functools.lru_cache(maxsize=4096)
    packing = types.SimpleNamespace(compress=remembered(_quickly_compressed), decompress=remembered(bz2.decompress))
    _replace(cloudpickle_pickler, "bz2", packing)
    pickler.roundtrip = lambda value: value  # it is pickled again for the workers
    core.get_signature = decorators.get_signature = _remembered_signatures(core.get_signature)
    core._check_fn_use_yield_and_return = _remembered_checks(core._check_fn_use_yield_and_return)
    _replace(decorators.IOTypeHints, "_make_origin", lambda *arguments, **options: [])  # which only errors quote
    statecache.get_deep_size = lambda *values: WEIGHT


def _replace(owner: object, name: str, value: object) -> None:
    setattr(owner, name, value)


def _quickly_compressed(data: bytes, compresslevel: int) -> bytes:
    """Of small data the blocks of level 9 are mostly memory to be cleared."""
    return bz2.compress(data, 1)


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
    """Functions have one each, and their methods another; other callables are inspected each time."""
    of_functions: weakref.WeakKeyDictionary[Any, inspect.Signature] = weakref.WeakKeyDictionary()
    of_methods: weakref.WeakKeyDictionary[Any, inspect.Signature] = weakref.WeakKeyDictionary()

    def get(called: Any) -> inspect.Signature:
        is_method = isinstance(called, types.MethodType)
        function, known = (called.__func__, of_methods) if is_method else (called, of_functions)
        if not isinstance(function, types.FunctionType):
            return get_signature(called)
        if function not in known:
            known[function] = get_signature(called)
        return known[function]

    return get


def _remembered_checks(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """What a function's source holds is decided by its code."""
    known: dict[types.CodeType, bool] = {}

    def get(called: Any) -> bool:
        if (code := getattr(called, "__code__", None)) is None:
            return check(called)
        if code not in known:
            known[code] = check(called)
        return known[code]

    return get
