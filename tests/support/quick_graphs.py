"""Pure functions of Beam and the standard library, remembered for all the jobs that one test process builds.

Half of a small job's processor time would be Beam repeating itself: it parses the pipeline's options anew at each step
of the graph, a thousand times a job, looks for the parameters of each method of each DoFn, and through its class for
state and timers, three times for each step, and compresses what it pickles; and argparse looks for translations of its
messages.
"""

from __future__ import annotations

import argparse
import bz2
import copy
import functools
import gettext
import inspect
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from apache_beam.internal import cloudpickle_pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core, userstate


def remember() -> None:
    """Called once in a process."""
    gettext.find = functools.lru_cache(maxsize=None)(gettext.find)
    userstate.get_dofn_specs = _remembered_specs(userstate.get_dofn_specs)
    compress = functools.lru_cache(maxsize=4096)(bz2.compress)
    cloudpickle_pickler.bz2 = types.SimpleNamespace(compress=compress, decompress=bz2.decompress)
    core.get_signature = _remembered_signatures(core.get_signature)
    PipelineOptions.__init__ = _remembered_options(PipelineOptions.__init__)


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


def _remembered_options(initialise: Callable[..., None]) -> Callable[..., None]:
    """The options of a class say the same of the same command line. Beam's `__init__` parses it, and enters what it
    found where `values` gives nothing else; each object has lists of its own, which callers extend."""
    known: dict[tuple[type, tuple[str, ...]], argparse.Namespace] = {}

    def initialise_once(self: PipelineOptions, flags: Sequence[str] | None = None, **values: Any) -> None:
        if flags is None:  # those of this process
            initialise(self, flags, **values)
            return
        key = type(self), tuple(flags)
        if key not in known:
            initialise(self, flags)
            known[key] = copy.deepcopy(self._visible_options)
        found = copy.deepcopy(known[key])
        self._flags, self._visible_options, self._all_options = flags, found, vars(found) | values

    return initialise_once
