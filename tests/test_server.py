"""The demo's server, over real connections: what clients send, rightly and wrongly, and what a browser shows."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from PIL import Image

from models import drawing_queue, generate, server
from models.errors import UserError
from models.generate import Artist, load_artist
from models.server import MAX_BODY, make_app
from tests.helpers_dataset import one_thread

JSON = {"Content-Type": "application/json"}
ASK = {"text": "a red cat", "num_images": 1}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def artist(tiny_checkpoint) -> Artist:
    return load_artist(tiny_checkpoint)


@contextlib.contextmanager
def serving(artist: Artist, **limits: int) -> Iterator[httpx.Client]:
    running = uvicorn.Server(uvicorn.Config(make_app(artist, **limits), port=0, log_level="warning",
                                            timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=unlimited) as client:
        yield client
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client(artist) -> Iterator[httpx.Client]:
    with serving(artist) as client:
        yield client


@pytest.fixture
def gate(monkeypatch) -> Iterator[threading.Event]:
    """Drawing stops after the first row of codes until this is set."""
    opened, draw_steps = threading.Event(), drawing_queue.draw_steps

    def gated(*arguments):
        for codes_BN in draw_steps(*arguments):
            if codes_BN.shape[1] > 8:
                while not opened.wait(0.01):
                    yield codes_BN[:, :8]
            yield codes_BN

    monkeypatch.setattr(drawing_queue, "draw_steps", gated)
    yield opened
    opened.set()


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


# --- as DALLE-server answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_generate_answers_as_dalle_server_does(client, count):
    """Its README: {"text", "num_images"} gives ["/9j/4AAQSkZJRg...", ...]: base64 of JPEGs, with no data: before."""
    answer = client.post("/generate", json={"text": "apple", "num_images": count})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json(), list) and len(answer.json()) == count
    for picture in answer.json():
        assert picture.startswith("/9j/4AAQSkZJRg")
        with Image.open(io.BytesIO(base64.b64decode(picture, validate=True))) as image:
            assert image.format == "JPEG" and image.size == (64, 64)


def test_errors_and_health_have_dalle_servers_form(client):
    answer = client.post("/generate", json={"text": "apple"})
    assert answer.status_code == 422 and list(answer.json()) == ["Error"]
    assert answer.json()["Error"].startswith("Invalid request: num_images")
    assert (client.get("/healthz").status_code, client.get("/healthz").text) == (200, "Health")


# --- what is wrong ---------------------------------------------------------------------------------------------------


BAD_NUMBERS = ["0", "-1", "1000000000", "1" + "0" * 30, "1" + "0" * 5000, '"3"', "NaN", "Infinity", "1.5", "true",
               "null", "[]", "{}", "11"]


@pytest.mark.parametrize("path", ["/generate", "/v1/images"])
@pytest.mark.parametrize("number", BAD_NUMBERS, ids=lambda number: number[:12])
def test_bad_numbers_of_pictures(client, path, number):
    answer = client.post(path, content=f'{{"text": "a cat", "num_images": {number}}}', headers=JSON)
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"Error" if path == "/generate" else "detail"}


@pytest.mark.parametrize("path", ["/generate", "/v1/images"])
@pytest.mark.parametrize("text", ['""', '"   "', '"\\n\\t"', json.dumps("x" * 10_000), '"\\ud800"', "3", "null", "[]"],
                         ids=lambda text: text[:12])
def test_bad_texts(client, path, text):
    answer = client.post(path, content=f'{{"text": {text}, "num_images": 1}}', headers=JSON)
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize("text", ["😺😺😺", "x" * 1000, "' OR 1=1; --", "<script>alert(1)</script>", "\0",
                                  "../../etc/passwd", "猫", "مرحبا"])
def test_any_other_text_draws(client, text):
    assert client.post("/generate", json={"text": text, "num_images": 1}).status_code == 200


@pytest.mark.parametrize("path", ["/generate", "/v1/images"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe\x00", b"[" * 20_000, b'{"text": "a"',
                                  b'{"text": "a", "num_images": 1}{'])
def test_broken_json(client, path, body):
    assert client.post(path, content=body, headers=JSON).status_code in (400, 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
                                  "application/xml", "nonsense", ""])
def test_wrong_content_types(client, kind):
    answer = client.post("/generate", content=json.dumps(ASK), headers={"Content-Type": kind})
    assert answer.status_code in (400, 415, 422)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_is_refused(client, chunked):
    parts = [b" " * 1024] * (MAX_BODY // 1024 + 1)
    answer = client.post("/generate", content=iter(parts) if chunked else b"".join(parts), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize("field, value", [
    ("seed", -1), ("seed", 1 << 53), ("seed", "1"), ("temperature", 0), ("temperature", "hot"), ("top_k", -1),
    ("top_p", 0), ("top_p", 1.1), ("guidance", -0.1), ("guidance", 1e9), ("checkpoint", "/etc/passwd")])
def test_bad_parameters(client, field, value):
    answer = client.post("/v1/images", json={**ASK, field: value})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"][-1] == field


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/generate", 405), ("GET", "/v1/images/none", 404), ("DELETE", "/v1/images/none", 404),
    ("GET", "/v1/images/none/events", 404), ("GET", "/v1/images/none/0.png", 404), ("GET", "/nowhere", 404),
    ("GET", "/../setup.cfg", 404), ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404), ("GET", "/v1/images/" + "x" * 999, 422),
    ("BREW", "/", 405)])
def test_wrong_places(client, method, path, status):
    assert client.request(method, path).status_code == status


def test_half_a_request_harms_nobody(client):
    """Closed in the head, in the body, and right after it."""
    body = json.dumps(ASK).encode()
    head = (b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body))
    for sent in (head[:30], head + body[:5], head + body, b"\0\1\2 not http\r\n\r\n"):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(sent)
    assert client.post("/generate", json=ASK).status_code == 200


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_gives_what_the_command_draws(client, tiny_checkpoint, tmp_path):
    """The same bytes for the same seed, alone or in a batch."""
    generate.main(["--checkpoint", str(tiny_checkpoint), "--prompt", "a red cat", "--count", "6", "--seed", "5",
                   "--top-k", "9", "--threads", "1", "--output", str(tmp_path)])
    asked = {"text": "a red cat", "seed": 5, "top_k": 9}
    answer = client.post("/v1/images", json={**asked, "num_images": 6})
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/images/{answer.json()['id']}"
    alone = finished(client, client.post("/v1/images", json=asked).json())
    job = finished(client, answer.json())
    assert (job["status"], job["seed"], job["text"]) == ("done", 5, "a red cat")
    for index, image in enumerate(job["images"]):
        assert image["progress"] == 1
        picture = client.get(image["url"])
        assert picture.headers["content-type"] == "image/png"
        assert picture.content == (tmp_path / f"{index:04d}.png").read_bytes()
    assert client.get(alone["images"][0]["url"]).content == (tmp_path / "0000.png").read_bytes()
    assert client.get(f"/v1/images/{job['id']}/6.png").status_code == 404


def test_jobs_without_a_seed_differ(client):
    jobs = [finished(client, client.post("/v1/images", json=ASK).json()) for _ in range(2)]
    assert jobs[0]["seed"] != jobs[1]["seed"]


def test_events_tell_the_progress_and_end_with_the_job(client):
    events = events_of(client, client.post("/v1/images", json={**ASK, "num_images": 2}).json())
    assert events[-1][0] == "done" and all(image["url"] for image in events[-1][1]["images"])
    shares = [job["images"][0]["progress"] for name, job in events if name in ("progress", "done")]
    assert shares == sorted(shares) and shares[-1] == 1
    assert {name for name, _ in events} <= {"progress", "preview", "done"}


def test_previews_show_the_rows_drawn_so_far(artist, gate):
    with serving(artist) as client:
        job = client.post("/v1/images", json=ASK).json()
        with client.stream("GET", f"/v1/images/{job['id']}/events") as stream:
            lines = stream.iter_lines()
            assert "event: preview" in lines
            preview = json.loads(next(lines).removeprefix("data: "))
            gate.set()
            assert any(line == "event: done" for line in lines)
    assert preview["image"] == 0
    with Image.open(io.BytesIO(base64.b64decode(preview["url"].removeprefix("data:image/jpeg;base64,")))) as image:
        assert image.size == (64, 8)  # a row of codes


def test_a_cancelled_job_stops(artist, gate):
    with serving(artist) as client:
        drawing, waiting = (client.post("/v1/images", json={**ASK, "num_images": 4}).json() for _ in range(2))
        assert client.delete(f"/v1/images/{waiting['id']}").json()["status"] == "cancelled"
        client.delete(f"/v1/images/{drawing['id']}")
        assert finished(client, drawing)["status"] == "cancelled"
        assert events_of(client, drawing)[-1][0] == "cancelled"
        assert client.get(f"/v1/images/{drawing['id']}/0.png").status_code == 404
        gate.set()
        assert finished(client, client.post("/v1/images", json=ASK).json())["status"] == "done"
        assert client.delete(f"/v1/images/{drawing['id']}").json()["status"] == "cancelled"


def test_a_client_that_goes_cancels_its_job(artist, gate):
    with serving(artist) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/generate", json=ASK, timeout=0.3)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/generate", json=ASK, timeout=0.3)
        other = client.post("/v1/images", json=ASK).json()
        gate.set()
        assert finished(client, other)["status"] == "done"
        assert 'pairmill_pictures_total 1.0' in client.get("/metrics").text


def test_requests_are_drawn_together(artist, monkeypatch, gate):
    groups = []
    on_group = drawing_queue.DrawingQueue._draw
    monkeypatch.setattr(drawing_queue.DrawingQueue, "_draw", lambda self, group: groups.append(
        [picture.order.sampling.guidance for _, picture in group]) or on_group(self, group))
    with serving(artist) as client:
        asks = [{**ASK, "num_images": 4}] + [{**ASK, "guidance": guidance} for guidance in (1, 3, 1, 1, 3)]
        jobs = [client.post("/v1/images", json=ask).json() for ask in asks]
        gate.set()
        assert {finished(client, job)["status"] for job in jobs} == {"done"}
    assert groups == [[1.0] * 4, [1.0] * 3, [3.0] * 2]  # those with guidance go together


def test_a_full_queue_says_when_to_come_again(artist, gate):
    with serving(artist, max_images=4, max_waiting=4) as client:
        first = client.post("/v1/images", json={**ASK, "num_images": 4}).json()
        while client.get(f"/v1/images/{first['id']}").json()["status"] == "queued":
            time.sleep(0.01)
        client.post("/v1/images", json={**ASK, "num_images": 4})
        for path in ("/v1/images", "/generate"):
            answer = client.post(path, json=ASK)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert "Too Many Requests" in next(iter(answer.json().values()))
        assert client.get("/healthz").status_code == 200
        assert "pairmill_waiting_pictures 4.0" in client.get("/metrics").text


def test_200_requests_at_once(artist):
    with serving(artist, max_images=4, max_waiting=16) as client, ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda number: client.post("/generate", json={**ASK, "text": f"cat {number}"}),
                                range(200)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 429} and statuses.count(200) >= 16
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
        assert client.post("/generate", json=ASK).status_code == 200


def test_a_failure_is_told_and_the_next_job_is_drawn(artist, monkeypatch):
    with serving(artist) as client:
        with monkeypatch.context() as patch:
            patch.setattr(drawing_queue, "draw_steps", lambda *_: 1 / 0)
            job = client.post("/v1/images", json=ASK).json()
            assert events_of(client, job)[-1][0] == "failed"
        assert client.post("/generate", json=ASK).status_code == 200


def test_old_jobs_are_forgotten(artist, monkeypatch):
    monkeypatch.setattr(drawing_queue, "KEPT_JOBS", 2)
    with serving(artist) as client:
        jobs = [finished(client, client.post("/v1/images", json=ASK).json()) for _ in range(4)]
        found = [client.get(f"/v1/images/{job['id']}").status_code for job in jobs]
    assert found == [404, 200, 200, 200]  # the last one was not finished when the list was cut


# --- the rest of the interface ---------------------------------------------------------------------------------------


def test_metrics_count_routes_not_paths(client):
    client.get("/healthz")
    client.get("/one-of-endless-paths")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert re.search(r'pairmill_requests_total\{method="GET",path="/healthz",status="200"\} [1-9]', answer.text)
    assert "endless" not in answer.text and "BREW" not in answer.text


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert path.startswith("/") and client.get(path).status_code == 200
    assert not re.search(r"https?://", page.text + client.get("/page.js").text + client.get("/page.css").text)


def test_the_interface_is_described(client):
    described = client.get("/openapi.json").json()
    assert {"/generate", "/v1/images", "/v1/images/{job_id}", "/v1/images/{job_id}/events",
            "/v1/images/{job_id}/{number}.png", "/healthz", "/metrics"} <= set(described["paths"])


def test_schemathesis_finds_no_server_error(client, exhaustive, tmp_path):
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{client.base_url}/openapi.json",
               "--checks", "not_a_server_error", "--max-examples", "200" if exhaustive else "3", "--seed", "1",
               "--request-timeout", "30"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert client.get("/healthz").status_code == 200


# --- the command -----------------------------------------------------------------------------------------------------


def test_serves_this_machine_until_interrupted(tiny_checkpoint):
    command = [Path(sys.executable).with_name("pairmill"), "serve", "--checkpoint", tiny_checkpoint, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().removeprefix("serve: ").strip()
            assert url.startswith("http://127.0.0.1:")
            assert len(httpx.post(f"{url}/generate", json=ASK, timeout=60).json()) == 1
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode in (0, 130) and "Traceback" not in said


@pytest.mark.parametrize("arguments, said", [
    ((), "--checkpoint DIR is missing"),
    (("--checkpoint", "/nowhere"), "--checkpoint names a folder made by `pairmill train`"),
    (("--port", 99999), "--port 99999"),
    (("--max-images", 0), "--max-images is 1 or more"),
    (("--max-images", 9, "--max-waiting", 8), "--max-images is 1 or more"),
])
def test_wrong_arguments(arguments, said):
    with pytest.raises(UserError, match=said):
        server.main([str(argument) for argument in arguments])


def test_a_port_that_is_taken(tiny_checkpoint, client):
    with pytest.raises(UserError, match="Address already in use; choose another --port"):
        server.main(["--checkpoint", str(tiny_checkpoint), "--port", str(client.base_url.port), "--threads", "1"])


# --- the page --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def browser(width: int, height: int) -> Iterator:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": width, "height": height,
                                                                          "pixelRatio": 1.0}})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as window:
        window.implicitly_wait(10)
        yield window


@pytest.mark.parametrize("width, height", [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_a_browser_draws_pictures_by_keyboard(client, width, height):
    with browser(width, height) as window:
        window.get(str(client.base_url))
        text = window.switch_to.active_element  # the field has the focus at once
        text.send_keys("a red cat in the snow")
        slider = window.find_element("id", "count")
        slider.send_keys("\ue012")  # arrow left: 4 to 3
        assert window.find_element("id", "count-shown").text == "3"
        text.send_keys("\ue007")  # enter
        pictures = wait_for(lambda: window.find_elements("css selector", "figure[aria-busy=false] img"), 3)
        widths = wait_for(lambda: [p for p in pictures if int(p.get_property("naturalWidth")) == 64], 3)
        assert [picture.get_attribute("alt") for picture in widths] == ["a red cat in the snow"] * 3
        assert re.match(r"3 pictures in [\d.]+ s,\s+seed \d+", window.find_element("id", "status").text)
        saves = window.find_elements("css selector", "figcaption a[download]")
        assert re.fullmatch(r"a-red-cat-in-the-snow-\d+-0\.png", saves[0].get_attribute("download"))
        assert window.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        history = wait_for(lambda: window.find_elements("css selector", "#history button"), 1)
        before = shown(window)
        history[0].click()  # draws the same again
        again = wait_for(lambda: [url for url in shown(window) if url not in before], 3)
        assert client.get(again[0]).content == client.get(before[0]).content
        assert [entry for entry in window.get_log("browser") if entry["level"] == "SEVERE"] == []


def shown(window) -> list[str]:
    """The addresses of the pictures that are done."""
    return window.execute_script("return [...document.querySelectorAll('figure[aria-busy=false] img')].map(i => i.src)")


def wait_for(found, count: int, timeout_s: float = 30) -> list:
    deadline = time.monotonic() + timeout_s
    while len(now := found()) != count:
        assert time.monotonic() < deadline, f"{len(now)} of {count}"
        time.sleep(0.05)
    return now


def test_a_browser_cancels(artist, gate):
    with serving(artist) as client, browser(800, 600) as window:
        window.get(str(client.base_url))
        window.find_element("id", "text").send_keys("a red cat\ue007")
        assert window.find_element("css selector", "figure img[src^='data:image/jpeg']")  # a preview
        window.find_element("tag name", "body").send_keys("\ue00c")  # escape
        wait_for(lambda: "x" * window.find_element("id", "status").text.startswith("Cancelled"), 1)
        assert window.find_element("id", "generate").is_displayed()
