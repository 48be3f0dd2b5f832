"""Jobs of the demo's server: drawn together, watched, cancelled, refused when too many wait, forgotten."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from models.errors import UserError
from models.sampling import generate
from models.sampling.checkpoint import ImageGenerator
from models.sampling.generate import GenerationRequest
from models.sampling.sampler import PAPER_SAMPLING
from models.server import job_queue
from models.tokenizers.image import load_image_tokenizer
from models.transformer.model import Transformer
from tests.support.servers import ASK, events_of, finished, serving


def test_a_job_gives_what_the_command_draws(client, tiny_checkpoint, tmp_path):
    """The same bytes for the same seed, alone or in a batch."""
    generate.main(
        [
            "--checkpoint",
            str(tiny_checkpoint),
            "--prompt",
            "a red cat",
            "--count",
            "6",
            "--seed",
            "5",
            "--top-k",
            "9",
            "--threads",
            "1",
            "--output",
            str(tmp_path),
        ]
    )
    asked = {"text": "a red cat", "seed": 5, "top_k": 9}
    answer = client.post("/v1/images", json={**asked, "num_images": 6})
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/images/{answer.json()['id']}"
    alone = finished(client, client.post("/v1/images", json=asked).json())
    job = finished(client, answer.json())
    assert (job["status"], job["seed"], job["text"]) == ("done", 5, "a red cat")
    for index, image in enumerate(job["images"]):
        assert image["progress"] == 1
        drawn = client.get(image["url"])
        assert drawn.headers["content-type"] == "image/png"
        assert drawn.content == (tmp_path / f"{index:04d}.png").read_bytes()
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


def test_codes_without_rows_have_progress_and_no_preview(generator):
    made = sequence_generator(generator)
    with serving(made) as client:
        job = client.post("/v1/images", json=ASK).json()
        events = events_of(client, job)
        image = client.get(events[-1][1]["images"][0]["url"]).content
    assert events[-1][0] == "done" and "preview" not in {name for name, _ in events}
    assert Image.open(io.BytesIO(image)).size == (32, 32)


def test_an_image_without_rows_cannot_be_completed(generator, tmp_path):
    with pytest.raises(UserError, match="--complete needs codes in rows; this model's image is a sequence of 16 codes"):
        generate.first_rows(sequence_generator(generator), tmp_path / "any.png", 1)


def sequence_generator(generator: ImageGenerator) -> ImageGenerator:
    """The same text tokenizer, with a model and an image tokenizer of 16 codes in a sequence."""
    tokenizer = load_image_tokenizer("python:tests.support.stripes:Stripes")
    config = dataclasses.replace(generator.model.config, image_vocabulary=100, grid=16, rows=1)
    return generator._replace(model=Transformer(config).eval(), image_tokenizer=tokenizer)


def test_previews_show_the_rows_drawn_so_far(generator, gate):
    with serving(generator) as client:
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


def test_a_cancelled_job_stops(generator, gate):
    with serving(generator) as client:
        drawing, waiting = (client.post("/v1/images", json={**ASK, "num_images": 4}).json() for _ in range(2))
        assert client.delete(f"/v1/images/{waiting['id']}").json()["status"] == "cancelled"
        client.delete(f"/v1/images/{drawing['id']}")
        assert finished(client, drawing)["status"] == "cancelled"
        assert events_of(client, drawing)[-1][0] == "cancelled"
        assert client.get(f"/v1/images/{drawing['id']}/0.png").status_code == 404
        gate.set()
        assert finished(client, client.post("/v1/images", json=ASK).json())["status"] == "done"
        assert client.delete(f"/v1/images/{drawing['id']}").json()["status"] == "cancelled"


def test_a_job_cancelled_after_its_first_image_ends(generator, monkeypatch):
    """While the others of its batch are encoded and two more wait: its events end as well."""
    complete = job_queue.JobQueue._complete

    def cancelled_after_one(self, job, image, codes_N):
        complete(self, job, image, codes_N)
        if image is job.images[0]:
            self.cancel(job)

    with serving(generator) as client:
        with monkeypatch.context() as patch:
            patch.setattr(job_queue.JobQueue, "_complete", cancelled_after_one)
            job = finished(client, client.post("/v1/images", json={**ASK, "num_images": 6}).json())
        assert job["status"] == "cancelled" and job["images"][0]["url"]
        assert events_of(client, job)[-1][0] == "cancelled"
        assert finished(client, client.post("/v1/images", json=ASK).json())["status"] == "done"


def test_a_job_cancelled_between_its_batches_ends(generator, monkeypatch):
    """While images of another client are sampled."""
    sample = job_queue.JobQueue._sample
    jobs: dict[str, job_queue.Job] = {}

    def cancelled_during_others(self, group):
        if "mine" in jobs and not any(job is jobs["mine"] for job, _ in group):
            self.cancel(jobs["mine"])
        return sample(self, group)

    monkeypatch.setattr(job_queue.JobQueue, "_sample", cancelled_during_others)
    guided = PAPER_SAMPLING._replace(guidance=2.0)
    with job_queue.JobQueue(generator, max_waiting=64) as queue:
        jobs["mine"] = queue.submit(GenerationRequest("a red cat", 6, 0, PAPER_SAMPLING), "me")
        other = queue.submit(GenerationRequest("a blue cat", 2, 0, guided), "you")
        deadline = time.monotonic() + 60
        while not other.is_finished or not jobs["mine"].is_finished:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (jobs["mine"].status, other.status) == ("cancelled", "done")
    assert sum(bool(image.png) for image in jobs["mine"].images) == 4


def test_a_client_that_goes_cancels_its_job(generator, gate):
    with serving(generator) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/generate", json=ASK, timeout=0.3)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/generate", json=ASK, timeout=0.3)
        other = client.post("/v1/images", json=ASK).json()
        gate.set()
        assert finished(client, other)["status"] == "done"
        assert "pairmill_pictures_total 1.0" in client.get("/metrics").text


def test_requests_are_drawn_together(generator, monkeypatch, gate):
    groups = []
    on_group = job_queue.JobQueue._sample

    def recorded(self, group):
        groups.append([image.request.sampling.guidance for _, image in group])
        return on_group(self, group)

    monkeypatch.setattr(job_queue.JobQueue, "_sample", recorded)
    with serving(generator) as client:
        asks = [{**ASK, "num_images": 4}] + [{**ASK, "guidance": guidance} for guidance in (1, 3, 1, 1, 3)]
        jobs = [client.post("/v1/images", json=ask).json() for ask in asks]
        gate.set()
        assert {finished(client, job)["status"] for job in jobs} == {"done"}
    assert groups == [[1.0] * 4, [1.0] * 3, [3.0] * 2]  # those with guidance go together


def test_a_full_queue_says_when_to_come_again(generator, gate):
    with serving(generator, max_images=4, max_waiting=4) as client:
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


def test_200_requests_at_once(generator):
    with serving(generator, max_images=4, max_waiting=16) as client, ThreadPoolExecutor(200) as pool:
        answers = list(
            pool.map(lambda number: client.post("/generate", json={**ASK, "text": f"cat {number}"}), range(200))
        )
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 429} and statuses.count(200) >= 8  # half of the places are one client's
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
        assert client.post("/generate", json=ASK).status_code == 200


def test_a_failure_is_told_and_the_next_job_is_drawn(generator, monkeypatch):
    with serving(generator) as client:
        with monkeypatch.context() as patch:
            patch.setattr(job_queue, "sample_steps", lambda *_: 1 / 0)
            job = client.post("/v1/images", json=ASK).json()
            assert events_of(client, job)[-1][0] == "failed"
        assert client.post("/generate", json=ASK).status_code == 200


def test_old_jobs_are_forgotten(generator, monkeypatch):
    monkeypatch.setattr(job_queue, "KEPT_JOBS", 2)
    with serving(generator) as client:
        jobs = [finished(client, client.post("/v1/images", json=ASK).json()) for _ in range(4)]
        found = [client.get(f"/v1/images/{job['id']}").status_code for job in jobs]
    assert found == [404, 200, 200, 200]  # the last one was not finished when the list was cut
