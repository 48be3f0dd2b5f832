"""No client can keep others from the server, and no page of another site can use it."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from models.sampling.generate import GenerationRequest
from models.server import connections, job_queue
from models.server.job_queue import JobQueue, QueueFull
from tests.support.servers import ASK, serving

HALVES = {
    "nothing": b"",
    "half a line": b"GET /healthz HT",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    "half a body": b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    "half of a second one": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
}


def connect(client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)


def is_closed(connection: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1 << 16):
            pass
    return True


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_half_a_request_is_waited_for_but_not_long(generator, monkeypatch, half):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.5)
    with serving(generator) as client, connect(client) as connection:
        connection.sendall(half)
        began = time.monotonic()
        assert is_closed(connection)
        assert time.monotonic() - began < 9  # what came with another request is uvicorn's to end, after 5 s


def test_a_request_that_drips_is_not_waited_for(generator, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.5)
    with serving(generator) as client, connect(client) as connection:
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100):
                connection.sendall(b"G")
                time.sleep(0.1)
        assert time.monotonic() - began < 5


def test_an_answer_may_take_longer(generator, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    steps = job_queue.sample_steps

    def slow(*arguments):
        time.sleep(1)
        yield from steps(*arguments)

    monkeypatch.setattr(job_queue, "sample_steps", slow)
    with serving(generator) as client:
        assert client.post("/generate", json=ASK).status_code == 200


def test_one_address_has_only_a_share_of_the_connections(generator, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    with serving(generator) as client, contextlib.ExitStack() as stack:
        others = [stack.enter_context(connect(client)) for _ in range(10)]
        with connect(client) as one_more:
            assert is_closed(one_more)
        others.pop().close()
        time.sleep(0.2)
        assert client.get("/healthz").status_code == 200


def test_connections_need_at_most_half_of_the_files(monkeypatch):
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (100, 1000))
    assert connections.max_connections() == 50


# --- clients take turns ----------------------------------------------------------------------------------------------


def asked(prompt: str, count: int, sampling) -> GenerationRequest:
    return GenerationRequest(prompt, count, 1, sampling)


def test_clients_take_turns(generator):
    queue = JobQueue(generator, 64)
    for client, count in (("a", 6), ("b", 2), ("c", 1)):
        queue.submit(asked(f"{client} cat", count, generator.sampling), client)
    assert "".join(job.client for job, _ in queue._waiting) == "abcabaaaa"


def test_a_client_alone_keeps_its_order(generator):
    queue = JobQueue(generator, 64)
    jobs = [queue.submit(asked(f"cat {number}", 2, generator.sampling), "a") for number in range(3)]
    assert [job for job, _ in queue._waiting] == [job for job in jobs for _ in range(2)]


def test_one_client_leaves_places_for_others(generator):
    queue = JobQueue(generator, 8)
    queue.submit(asked("cat", 4, generator.sampling), "a")
    with pytest.raises(QueueFull):
        queue.submit(asked("cat", 1, generator.sampling), "a")
    queue.submit(asked("cat", 4, generator.sampling), "b")
    with pytest.raises(QueueFull):
        queue.submit(asked("cat", 1, generator.sampling), "c")


# --- other sites -----------------------------------------------------------------------------------------------------

OURS = ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:8000", "[::1]:8000", "192.168.1.7", "draw.example.org"]
NOT_OURS = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "[v1.x:y]", ""]


@pytest.mark.parametrize(("host", "status"), [*((host, 200) for host in OURS), *((host, 403) for host in NOT_OURS)])
def test_only_our_names_are_answered(generator, host, status):
    """Another name that leads here is a page's that means to read our answers as its own."""
    with serving(generator, allow_hosts=["draw.example.org"]) as client:
        answer = client.get("/v1/model", headers={"Host": host})
        assert answer.status_code == status
        assert status == 200 or "--allow-host" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 202),
        ("http://localhost:8000", 202),
        ("https://example.org", 202),
        ("http://evil.example", 403),
        ("http://localhost:9000", 403),
        ("null", 403),
    ],
)
def test_only_our_pages_and_those_allowed_may_ask(generator, origin, status):
    with serving(generator, allow_origins=["https://example.org"]) as client:
        headers = {"Host": "localhost:8000"} | ({"Origin": origin} if origin else {})
        assert client.post("/v1/images", json=ASK, headers=headers).status_code == status
