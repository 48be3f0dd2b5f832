"""A web server on the loopback that does everything wrong that a host on the web may do: one handler for each way.

    with HostileServer() as server:
        server.url("endless")            # http://127.0.0.1:PORT/endless
        server.url("good", host=2)       # the same as another host, http://127.0.0.2:PORT/good
        server.tls_url("good")           # under a certificate that only its owner has signed

Every request is logged, and the bytes are counted that each path was allowed to send.
"""

from __future__ import annotations

import asyncio
import collections
import datetime
import socket
import ssl
import threading
import time
from pathlib import Path

from tests.support.hostile_answers import HANDLERS, Answer, Request

HOSTS = 80  # 127.0.0.1 to 127.0.0.80, to a fetcher a host each


class HostileServer:
    """Runs in a thread of its own while its `with` block lasts."""

    def __init__(self, tls_folder: Path | None = None):
        self._tls_folder = tls_folder
        self.log: list[Request] = []
        self.portal = False  # whether a page stands before the answers of `portal`
        self.sent: collections.Counter[str] = collections.Counter()  # bytes, by path
        self.most_at_once: collections.Counter[int] = collections.Counter()  # requests being answered, by host
        self.most_in_all = 0  # of all hosts together
        self._at_once: collections.Counter[int] = collections.Counter()
        self._running = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="hostile", daemon=True)

    def url(self, path: str, host: int = 1) -> str:
        return f"http://127.0.0.{host}:{self.port}/{path}"

    def tls_url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.tls_port}/{path}"

    def requests(self, path: str) -> list[Request]:
        return [request for request in self.log if request.path == path]

    def __enter__(self) -> HostileServer:
        # Nobody ever accepts what connects here, and the queue is full after a few.
        self._silent = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.silent_url = f"http://127.0.0.1:{self._silent.getsockname()[1]}/"
        self._thread.start()
        self._running.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._silent.close()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        first = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=256)
        self.port = first.sockets[0].getsockname()[1]
        others = [f"127.0.0.{number}" for number in range(2, HOSTS + 1)]
        servers = [first, await asyncio.start_server(self._connected, others, self.port)]
        if self._tls_folder:
            context = self_signed(self._tls_folder)
            servers.append(await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=context))
            self.tls_port = servers[-1].sockets[0].getsockname()[1]
        self._running.set()
        await self._stop.wait()
        for server in servers:
            server.close()  # what still runs is cancelled with the loop

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = int(writer.get_extra_info("sockname")[0].rpartition(".")[2])
        try:
            while request := await _read_request(reader, host):
                self.log.append(request)
                self._at_once[host] += 1
                self.most_at_once[host] = max(self.most_at_once[host], self._at_once[host])
                self.most_in_all = max(self.most_in_all, self._at_once.total())
                try:
                    answer = Answer(self, request, writer)
                    await HANDLERS[request.path.partition("/")[0]](answer)
                finally:
                    self._at_once[host] -= 1
                if not answer.keep_alive:
                    break
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass  # the client has hung up, as it should, or the server ends
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader, host: int) -> Request | None:
    lines = []
    while line := (await reader.readline()).strip():
        lines.append(line.decode("latin-1"))
    if not lines:
        return None
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Request(time.monotonic(), host, lines[0].split(" ")[1].removeprefix("/"), headers)


# --- TLS -------------------------------------------------------------------------------------------------------------


def self_signed(folder: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1, made on the spot."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "self_signed.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
