"""Arguments to what the stages are given, and to the settings that an output remembers."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
from typing import Any

from beam_jobs.flags.images import image_config, store_config
from models.errors import UserError
from pipeline.fetch.download import FetchConfig
from pipeline.fetch.opt_out import OPT_OUTS
from pipeline.fetch.politeness import shared_folder


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fetch")
    group.add_argument(
        "--timeout",
        type=float,
        default=FetchConfig.timeout_s,
        metavar="S",
        help="seconds for one attempt at one picture",
    )
    group.add_argument(
        "--retries", type=int, default=FetchConfig.retries, metavar="N", help="after a failure that may pass"
    )
    group.add_argument("--max-bytes", type=int, default=FetchConfig.max_bytes, help="of one picture")
    group.add_argument("--connections", type=int, default=FetchConfig.connections, help="of one worker, in all")
    group.add_argument(
        "--per-host-connections", type=int, default=FetchConfig.per_host_connections, metavar="N", help="of one machine"
    )
    group.add_argument(
        "--per-host-rate", type=float, default=FetchConfig.per_host_rate, metavar="R", help="requests/s of one machine"
    )
    group.add_argument("--user-agent", default=FetchConfig.user_agent, metavar="TEXT", help="of your own")
    group.add_argument(
        "--contact", metavar="TEXT", help="a URL or an e-mail address, for the User-Agent: hosts block what hides"
    )
    group.add_argument(
        "--ignore-opt-out",
        action="append",
        nargs="?",
        const="all",
        default=[],
        choices=("all", *OPT_OUTS),
        help="fetch in spite of this header; without a name, of any",
    )
    group.add_argument(
        "--allow-address",
        action="append",
        default=[],
        metavar="CIDR",
        help="a network that is refused otherwise, such as 127.0.0.0/8",
    )
    group.add_argument(
        "--pairs-per-unit",
        type=int,
        default=1000,
        metavar="N",
        help="pairs fetched, and remembered after a kill, together",
    )


def fetch_config(args: argparse.Namespace) -> FetchConfig:
    """Raises UserError for an --allow-address that is no network."""
    for network in args.allow_address:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UserError(f"--allow-address {network}: {error}; give a network such as 127.0.0.0/8") from None
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
        allow_addresses=tuple(args.allow_address),
        shared_folder=shared_folder(),
    )


def fetch_settings(args: argparse.Namespace) -> dict[str, Any]:
    fetch, images = dataclasses.asdict(fetch_config(args)), dataclasses.asdict(image_config(args))
    names = ("timeout_s", "retries", "max_bytes", "user_agent", "obey", "allow_addresses")
    store = dataclasses.asdict(store_config(args)) if getattr(args, "resize", 0) else {"resize": 0}
    return {name: fetch[name] for name in names} | images | store
