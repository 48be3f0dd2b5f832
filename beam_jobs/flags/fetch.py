"""Options of fetch, and the settings of them that an output records."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from typing import Any

from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, WorkerOptions

from beam_jobs.flags.common import Group, above, at_least
from beam_jobs.flags.engine import DATAFLOW, environment_of, has_remote_workers
from beam_jobs.flags.images import image_config, store_config
from pipeline.fetch.addresses import parse_networks
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.opt_out import OPT_OUTS
from pipeline.fetch.shared_folder import shared_folder
from pipeline.sources.hosts import HostLimits


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fetch")
    _add_attempt_options(group)
    _add_limit_options(group)
    _add_politeness_options(group)
    group.add_argument(
        "--pairs-per-unit",
        type=at_least(1),
        default=1000,
        metavar="N",
        help="pairs in one unit of work; a job that was interrupted does not repeat finished units",
    )


def _add_attempt_options(group: Group) -> None:
    """What one download may take."""
    group.add_argument(
        "--timeout",
        type=above(0),
        default=FetchConfig.timeout_s,
        metavar="S",
        help="seconds that one attempt to download an image may take, redirects included",
    )
    group.add_argument(
        "--retries",
        type=at_least(0),
        default=FetchConfig.retries,
        metavar="N",
        help="further attempts after a failure that may be temporary, such as a timeout or status 503",
    )
    group.add_argument(
        "--max-bytes",
        type=at_least(1),
        default=FetchConfig.max_bytes,
        metavar="N",
        help="reject images whose file has more than N bytes",
    )


def _add_limit_options(group: Group) -> None:
    """How much is downloaded at once, and from one host."""
    group.add_argument(
        "--connections",
        type=at_least(1),
        default=FetchConfig.connections,
        metavar="N",
        help="connections that one worker process keeps open at once, to all hosts together",
    )
    group.add_argument(
        "--per-host-connections",
        type=at_least(1),
        default=FetchConfig.per_host_connections,
        metavar="N",
        help="connections that the job keeps open to one host; each of several machines has its share, at least one",
    )
    group.add_argument(
        "--per-host-rate",
        type=above(0),
        default=FetchConfig.per_host_rate,
        metavar="R",
        help="requests per second that the job sends to one host; each of several machines has its share",
    )
    group.add_argument(
        "--machines",
        type=at_least(1),
        metavar="N",
        help="machines that fetch at the same time, each of which has an N-th of the limits of hosts (default: "
        "the N of --part, or what --max_num_workers allows on a remote engine, on Dataflow times the cores of its "
        "--machine_type, each of which has a container)",
    )


def _add_politeness_options(group: Group) -> None:
    """Adds --user-agent and the options that limit what is requested."""
    group.add_argument(
        "--user-agent", default=FetchConfig.user_agent, metavar="TEXT", help="User-Agent header of every request"
    )
    group.add_argument(
        "--contact",
        metavar="TEXT",
        help="URL or e-mail address to add to the User-Agent header; some hosts block clients that name no contact",
    )
    group.add_argument(
        "--ignore-opt-out",
        action="append",
        nargs="?",
        const="all",
        default=[],
        choices=("all", *OPT_OUTS),
        help="download images although their site sends this opt-out in a header; without a name, any opt-out; "
        "repeatable",
    )
    group.add_argument(
        "--allow-address",
        action="append",
        default=[],
        metavar="CIDR",
        help="network that may be connected to although its addresses are not public, such as 127.0.0.0/8; repeatable",
    )


def fetch_config(args: argparse.Namespace) -> FetchConfig:
    """Raises UserError for an --allow-address that is not a network."""
    ignored = OPT_OUTS if "all" in args.ignore_opt_out else args.ignore_opt_out
    user_agent = f"{args.user_agent} ({args.contact})" if args.contact else args.user_agent
    return FetchConfig(
        timeout_s=args.timeout,
        retries=args.retries,
        max_bytes=args.max_bytes,
        connections=args.connections,
        per_host_connections=args.per_host_connections,
        per_host_rate=args.per_host_rate,
        user_agent=user_agent,
        obey=tuple(name for name in OPT_OUTS if name not in ignored),
        allow_addresses=parse_networks(args.allow_address),
        shared_folder=shared_folder(),
    )


def host_limits(args: argparse.Namespace) -> HostLimits:
    """What the job as a whole may ask of a host that has no limits of its own."""
    return HostLimits(args.per_host_connections, args.per_host_rate)


def fetching_machines(args: argparse.Namespace, options: PipelineOptions) -> int:
    """How many machines may fetch for the job at once; containers that share no files count as machines. Warns on
    stderr where that is unknown."""
    return args.machines or _machines_of_engine(options) * (args.part.total if args.part else 1)


def _machines_of_engine(options: PipelineOptions) -> int:
    if not has_remote_workers(options):
        return 1
    workers = options.view_as(WorkerOptions)
    machines, containers = workers.max_num_workers or workers.num_workers, _containers_a_machine(options)
    if machines and containers:
        return machines * containers
    print(
        "warning: the limits of hosts hold for each machine of the engine; --machines N divides them", file=sys.stderr
    )
    return 1


_CORES = re.compile(r"(?:standard|highmem|highcpu|custom)-(\d+)")  # in the name of a machine type


def _containers_a_machine(options: PipelineOptions) -> int | None:
    """Dataflow starts a container for each core, unless it is told not to; None if the machine's cores are unknown."""
    single = options.view_as(DebugOptions).lookup_experiment("no_use_multiple_sdk_containers")
    if environment_of(options) != DATAFLOW or single:
        return 1
    cores = _CORES.search(options.view_as(WorkerOptions).machine_type or "")
    return int(cores[1]) if cores else None


def fetch_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the manifest records of the downloads: all that may change which images arrive, and what decides the units,
    with which an interrupted job goes on."""
    fetch, images = dataclasses.asdict(fetch_config(args)), dataclasses.asdict(image_config(args))
    names = ("timeout_s", "retries", "max_bytes", "user_agent", "obey", "allow_addresses")
    store = dataclasses.asdict(store_config(args)) if getattr(args, "resize", 0) else {"resize": 0}
    return {name: fetch[name] for name in names} | images | store | {"pairs_per_unit": args.pairs_per_unit}
