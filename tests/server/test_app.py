"""The demo's server, over real connections: what clients send, rightly and wrongly."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from models.errors import UserError
from models.sampling import checkpoint
from models.sampling.sampler import SamplingConfig
from models.server import app
from models.server.job_queue import JobQueue
from models.server.middleware import MAX_BODY
from tests.support.narrowing import required
from tests.support.servers import ASK, finished, serving

JSON = {"Content-Type": "application/json"}


# --- as DALLE-server answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_generate_answers_as_dalle_server_does(client, count):
    """Its README: {"text", "num_images"} gives ["/9j/4AAQSkZJRg...", ...]: base64 of JPEGs, with no data: before."""
    answer = client.post("/generate", json={"text": "apple", "num_images": count})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json(), list) and len(answer.json()) == count
    for data in answer.json():
        assert data.startswith("/9j/4AAQSkZJRg")
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            assert image.format == "JPEG" and image.size == (64, 64)


def test_dalle_answers_as_dalle_playground_expects(client):
    answer = client.post("/dalle", json={"text": "apple", "num_images": 2})
    assert answer.status_code == 200
    assert set(answer.json()) == {"generatedImgs", "generatedImgsFormat"}
    assert answer.json()["generatedImgsFormat"] == "jpeg" and len(answer.json()["generatedImgs"]) == 2
    for data in answer.json()["generatedImgs"]:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            assert image.format == "JPEG" and image.size == (64, 64)


def test_errors_and_health_have_dalle_servers_form(client):
    answer = client.post("/generate", json={"text": "apple"})
    assert answer.status_code == 422 and list(answer.json()) == ["Error"]
    assert answer.json()["Error"].startswith("Invalid request: num_images")
    assert (client.get("/healthz").status_code, client.get("/healthz").text) == (200, "Health")


# --- what is wrong ---------------------------------------------------------------------------------------------------


BAD_NUMBERS = [
    "0",
    "-1",
    "1000000000",
    "1" + "0" * 30,
    "1" + "0" * 5000,
    '"3"',
    "NaN",
    "Infinity",
    "1.5",
    "true",
    "null",
    "[]",
    "{}",
    "11",
]


@pytest.mark.parametrize("path", ["/generate", "/v1/images"])
@pytest.mark.parametrize("number", BAD_NUMBERS, ids=lambda number: number[:12])
def test_bad_numbers_of_images(client, path, number):
    answer = client.post(path, content=f'{{"text": "a cat", "num_images": {number}}}', headers=JSON)
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"Error" if path == "/generate" else "detail"}


@pytest.mark.parametrize("path", ["/generate", "/v1/images"])
@pytest.mark.parametrize(
    "text",
    ['""', '"   "', '"\\n\\t"', json.dumps("x" * 10_000), '"\\ud800"', "3", "null", "[]"],
    ids=lambda text: text[:12],
)
def test_bad_texts(client, path, text):
    answer = client.post(path, content=f'{{"text": {text}, "num_images": 1}}', headers=JSON)
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    "text", ["😺😺😺", "x" * 1000, "' OR 1=1; --", "<script>alert(1)</script>", "\0", "../../etc/passwd", "猫", "مرحبا"]
)
def test_any_other_text_draws(client, text):
    assert client.post("/generate", json={"text": text, "num_images": 1}).status_code == 200


@pytest.mark.parametrize("path", ["/generate", "/v1/images"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 20_000,
        b'{"text": "a"',
        b'{"text": "a", "num_images": 1}{',
    ],
)
def test_broken_json(client, path, body):
    assert client.post(path, content=body, headers=JSON).status_code in (400, 422)


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "nonsense", ""],
)
def test_wrong_content_types(client, kind):
    answer = client.post("/generate", content=json.dumps(ASK), headers={"Content-Type": kind})
    assert answer.status_code in (400, 415, 422)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/generate", "/v1/images"])
def test_a_long_body_is_refused(client, chunked, path):
    parts = [b" " * 1024] * (MAX_BODY // 1024 + 1)
    answer = client.post(path, content=iter(parts) if chunked else b"".join(parts), headers=JSON)
    assert answer.status_code == 413
    assert set(answer.json()) == {"Error" if path == "/generate" else "detail"}


DALLE_PATHS = ["/generate", "/dalle"]


@pytest.mark.parametrize("path", DALLE_PATHS)
@pytest.mark.parametrize(
    "method, body, kind, status",
    [
        ("POST", "{", "application/json", 422),
        ("POST", "\xff", "application/json", 422),
        ("POST", '{"text": 3, "num_images": 1}', "application/json", 422),
        ("POST", '{"text": "a cat", "num_images": 99}', "application/json", 422),
        ("POST", json.dumps({"text": "x" * 1001, "num_images": 1}), "application/json", 422),
        ("POST", json.dumps({"text": "x" * MAX_BODY, "num_images": 1}), "application/json", 413),
        ("POST", json.dumps(ASK), "text/plain", 422),
        ("GET", "", "application/json", 405),
    ],
)
def test_every_error_has_dalle_servers_form(client, path, method, body, kind, status):
    answer = client.request(method, path, content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert list(answer.json()) == ["Error"] and isinstance(answer.json()["Error"], str)


@pytest.mark.parametrize("path", DALLE_PATHS)
def test_an_internal_fault_has_dalle_servers_form(generator, monkeypatch, path):
    monkeypatch.setattr(JobQueue, "submit", lambda *_: 1 / 0)
    with serving(generator) as client:
        answer = client.post(path, json=ASK)
        assert (answer.status_code, answer.json()) == (500, {"Error": "internal error; see the server's log"})
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert f'path="{path}",status="500"}} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "field, value",
    [
        ("seed", -1),
        ("seed", 1 << 53),
        ("seed", "1"),
        ("temperature", 0),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("guidance", -0.1),
        ("guidance", 1e9),
        ("checkpoint", "/etc/passwd"),
    ],
)
def test_bad_parameters(client, field, value):
    answer = client.post("/v1/images", json={**ASK, field: value})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"][-1] == field


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/generate", 405),
        ("GET", "/v1/images/none", 404),
        ("DELETE", "/v1/images/none", 404),
        ("GET", "/v1/images/none/events", 404),
        ("GET", "/v1/images/none/0.png", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/../setup.cfg", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/v1/images/" + "x" * 999, 422),
        ("BREW", "/", 405),
    ],
)
def test_wrong_places(client, method, path, status):
    assert client.request(method, path).status_code == status


def test_half_a_request_harms_nobody(client):
    """Closed in the head, in the body, and right after it."""
    body = json.dumps(ASK).encode()
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    for sent in (head[:30], head + body[:5], head + body, b"\0\1\2 not http\r\n\r\n"):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(sent)
    assert client.post("/generate", json=ASK).status_code == 200


# --- the rest of the interface ---------------------------------------------------------------------------------------


def test_the_models_sampling_holds_where_a_request_names_no_other(generator):
    sampling = SamplingConfig(top_k=9, guidance=3.0)
    with serving(generator._replace(sampling=sampling, prompts=("a red cat",))) as client:
        model = client.get("/v1/model").json()
        assert model["sampling"] == sampling._asdict() and model["prompts"] == ["a red cat"]
        asked = {**ASK, "seed": 5}
        by_default, explicit, mixed = (
            finished(client, client.post("/v1/images", json={**asked, **named}).json())
            for named in ({"top_k": None}, sampling._asdict(), {"guidance": 1})
        )
        assert by_default["sampling"] == explicit["sampling"] == sampling._asdict()
        assert mixed["sampling"] == {**sampling._asdict(), "guidance": 1}
        first, second, third = (client.get(job["images"][0]["url"]).content for job in (by_default, explicit, mixed))
        assert first == second != third


def test_generate_uses_the_models_sampling(generator, monkeypatch):
    used = []
    submit = JobQueue.submit

    def recorded(self, request, client):
        used.append(request.sampling)
        return submit(self, request, client)

    monkeypatch.setattr(JobQueue, "submit", recorded)
    with serving(generator._replace(sampling=SamplingConfig(top_k=9))) as client:
        assert client.post("/generate", json=ASK).status_code == 200
    assert used == [SamplingConfig(top_k=9)]


def test_metrics_count_routes_not_paths(client):
    client.get("/healthz")
    client.get("/one-of-endless-paths")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert re.search(r'pairmill_requests_total\{method="GET",path="/healthz",status="200"\} [1-9]', answer.text)
    assert "endless" not in answer.text and "BREW" not in answer.text


ALLOWED = "http://localhost:3000"


@pytest.mark.parametrize("origin, allowed", [(ALLOWED, ALLOWED), ("http://localhost:3001", None), ("null", None)])
def test_only_the_named_origins_may_read(generator, origin, allowed):
    with serving(generator, allow_origins=[ALLOWED, "https://example.org"]) as client:
        header = "access-control-allow-origin"
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asking["Access-Control-Request-Headers"] = "content-type"
        preflight = client.options("/v1/images", headers=asking)
        assert preflight.status_code == (200 if allowed else 400) and preflight.headers.get(header) == allowed
        for answer in (
            client.post("/generate", json=ASK, headers={"Origin": origin}),
            client.post("/generate", json={}, headers={"Origin": origin}),
            client.post("/generate", content=b" " * (MAX_BODY + 1), headers={"Origin": origin}),
        ):
            assert answer.headers.get(header) == allowed
            assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_no_origin_is_allowed_unless_named(client):
    answer = client.get("/v1/model", headers={"Origin": ALLOWED})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def messages(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """What a logger has written."""
    return [record.getMessage() for record in caplog.records if record.name == name]


def test_each_request_has_one_log_line_without_its_text(generator, caplog):
    caplog.set_level(logging.INFO, "models.server.middleware")
    with serving(generator) as client:
        client.post("/generate", json={"text": "a secret cat", "num_images": 1})
        client.get("/nowhere%0Aforged?secret=1")
        deadline = time.monotonic() + 30  # a line follows its response
        while len(lines := messages(caplog, "models.server.middleware")) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    missing, drawn = sorted(lines)
    assert re.fullmatch(r"127\.0\.0\.1 POST /generate 200 \d+\.\d{3} s", drawn)
    assert re.fullmatch(r"127\.0\.0\.1 GET /nowhere%0Aforged 404 \d+\.\d{3} s", missing)


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert path.startswith("/") and client.get(path).status_code == 200
    assert not re.search(r"https?://", page.text + client.get("/page.js").text + client.get("/page.css").text)


def test_docs_need_nothing_from_elsewhere(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert path.startswith("/") and client.get(path).status_code == 200


def test_the_interface_is_described(client):
    described = client.get("/openapi.json").json()
    assert {
        "/generate",
        "/v1/images",
        "/v1/images/{job_id}",
        "/v1/images/{job_id}/events",
        "/v1/images/{job_id}/{number}.png",
        "/healthz",
        "/metrics",
    } <= set(described["paths"])


def test_schemathesis_finds_no_server_error(client, exhaustive, tmp_path):
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{client.base_url}/openapi.json",
        "--checks",
        "not_a_server_error",
        "--max-examples",
        "200" if exhaustive else "3",
        "--seed",
        "1",
        "--request-timeout",
        "30",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert client.get("/healthz").status_code == 200


# --- the command -----------------------------------------------------------------------------------------------------


def test_serves_this_machine_until_interrupted(tiny_checkpoint):
    command = [Path(sys.executable).with_name("pairmill"), "serve", "--checkpoint", tiny_checkpoint, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = required(process.stdout).readline().removeprefix("serve: ").strip()
            assert url.startswith("http://127.0.0.1:")
            assert len(httpx.post(f"{url}/generate", json=ASK, timeout=60).json()) == 1
            process.send_signal(signal.SIGINT)
            _, message = process.communicate(timeout=30)
            assert re.search(r"^\S+ \S+ 127\.0\.0\.1 POST /generate 200 \d+\.\d{3} s$", message, re.MULTILINE)
        finally:
            process.kill()
    assert process.returncode in (0, 130) and "Traceback" not in message


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "--checkpoint DIR is missing"),
        (("--checkpoint", "/nowhere"), "give a folder made by `pairmill train` with --checkpoint"),
        (("--port", 99999), "--port 99999"),
        (("--allow-origin", "*"), r"--allow-origin \*: give scheme, host and port alone"),
        (("--allow-origin", "https://example.org/"), "--allow-origin https://example.org/: give scheme"),
        (("--allow-origin", "https://Example.org"), "--allow-origin https://Example.org: give scheme"),
        (("--max-images", 0), "--max-images 0, --max-waiting 64: give 1 or more"),
        (("--max-images", 9, "--max-waiting", 8), "--max-waiting at least --max-images"),
    ],
)
def test_wrong_arguments(monkeypatch, arguments, message):
    monkeypatch.setattr(checkpoint, "BUNDLED_TRANSFORMER", Path("/nowhere"))
    with pytest.raises(UserError, match=message):
        app.main([str(argument) for argument in arguments])


def test_a_port_that_is_taken(tiny_checkpoint, client):
    with pytest.raises(UserError, match="Address already in use; choose another --port"):
        app.main(["--checkpoint", str(tiny_checkpoint), "--port", str(client.base_url.port), "--threads", "1"])
