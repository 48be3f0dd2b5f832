"""Options of fetch, and the settings of them that an output records."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from beam_jobs.flags.common import above, at_least
from beam_jobs.flags.images import image_config, store_config
from pipeline.fetch.addresses import parse_networks
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.opt_out import OPT_OUTS
from pipeline.fetch.politeness import shared_folder


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fetch")
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
        help="connections that all workers of one machine together keep open to one host",
    )
    group.add_argument(
        "--per-host-rate",
        type=above(0),
        default=FetchConfig.per_host_rate,
        metavar="R",
        help="requests per second that all workers of one machine together send to one host",
    )
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
    group.add_argument(
        "--pairs-per-unit",
        type=at_least(1),
        default=1000,
        metavar="N",
        help="pairs in one unit of work; a job that was interrupted does not repeat finished units",
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


def fetch_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the manifest says of the downloads: everything that may change which images arrive."""
    fetch, images = dataclasses.asdict(fetch_config(args)), dataclasses.asdict(image_config(args))
    names = ("timeout_s", "retries", "max_bytes", "user_agent", "obey", "allow_addresses")
    store = dataclasses.asdict(store_config(args)) if getattr(args, "resize", 0) else {"resize": 0}
    return {name: fetch[name] for name in names} | images | store
