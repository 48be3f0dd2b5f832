"""A server of images on a free port, and what clients do with it."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn

from models.sampling.checkpoint import ImageGenerator
from models.server.app import make_app
from models.server.connections import uvicorn_settings

ASK = {"text": "a red cat", "num_images": 1}


@contextlib.contextmanager
def serving(generator: ImageGenerator, **limits: Any) -> Iterator[httpx.Client]:
    running = uvicorn.Server(
        uvicorn.Config(
            make_app(generator, **limits),
            port=0,
            log_level="warning",
            timeout_graceful_shutdown=1,
            **uvicorn_settings(),
        )
    )
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        port = running.servers[0].sockets[0].getsockname()[1]
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=unlimited) as client:
            yield client
    finally:
        running.should_exit = True
        thread.join()


def finished(client: httpx.Client, job: dict) -> dict:
    deadline = time.monotonic() + 60
    while job["status"] in ("queued", "drawing"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
        job = client.get(f"/v1/images/{job['id']}").json()
    return job


def events_of(client: httpx.Client, job: dict) -> list[tuple[str, dict]]:
    text = client.get(f"/v1/images/{job['id']}/events").text
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n", text)]
