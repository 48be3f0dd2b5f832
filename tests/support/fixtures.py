"""The fixtures of all tests: the sample's web server, small tokenizers, the options of a quick build."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from beam_jobs.local_runner import FORK_SERVER
from models.sampling import sampler
from models.sampling.checkpoint import load_generator
from models.server import job_queue
from models.tokenizers import text as text_tokenizer
from models.tokenizers.dvae import DVAE, DVAEConfig, save_dvae
from models.tokenizers.image import load_image_tokenizer
from models.training.options import TransformerTrainingConfig
from models.training.train import train
from models.transformer.model import SIZES
from sample import serve
from tests.support import forked, processes, quick_graphs, repetition
from tests.support.datasets import write_dataset
from tests.support.hostile import HostileServer
from tests.support.images import gzip_bomb, text_bomb
from tests.support.launcher import Launcher
from tests.support.streams import SHARDS

# How long examples take depends on what else the machine does.
hypothesis.settings.register_profile(
    "no clock",
    repetition.examples(30, suppress_health_check=[hypothesis.HealthCheck.too_slow]),
)
hypothesis.settings.load_profile("no clock")
quick_graphs.remember()


_PROCESSES = contextlib.ExitStack()
_LAUNCHERS: list[Launcher] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """What was imported stays: no collection of garbage has to go through it again, and processes share it."""
    if session.config.getoption("collectonly") or session.testsfailed:  # pytest says what it could not import
        return None
    gc.collect()
    gc.freeze()
    if (count := session.config.getoption("processes")) > 1:
        processes.run(session, count, _begin, _PROCESSES.close)
        return True
    _begin()
    return None


def _begin() -> None:
    _LAUNCHERS.append(_PROCESSES.enter_context(forked.commands()))
    forked.workers()


def pytest_sessionfinish() -> None:
    _PROCESSES.close()


@pytest.fixture(scope="session")
def exhaustive(request) -> bool:
    """Whether a test that repeats something random should do so many times, not a few."""
    return request.config.getoption("--exhaustive")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """A command sets the threads of its process, which here goes on with other tests: their tiny products would take
    ten times as long (see tests/__init__.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", lambda count: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_fork_server() -> Iterator[None]:
    """A job without worker processes ends the process that forks them, in which the next one with some would import
    everything again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FORK_SERVER, "stop", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_parse() -> Iterator[None]:
    """Each job loads the bundled text tokenizer twice; it is parsed in a tenth of a second, and nothing changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_tokenizer, "_parse", functools.lru_cache(maxsize=8)(text_tokenizer._parse))
        yield


@pytest.fixture(scope="session")
def elsewhere() -> Launcher:
    """Runs commands in processes of their own."""
    return _LAUNCHERS[0]


@pytest.fixture(scope="session")
def open_clip():
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        pytest.skip(f"{error}; make peers installs it")
    return open_clip


@pytest.fixture(scope="session")
def server():
    with serve.start() as running:
        yield running


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    gzip_bomb(), text_bomb()  # they take a moment, which no deadline should run through
    with HostileServer(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_dvae(tmp_path_factory) -> str:
    """The SPEC of an untrained image tokenizer that is quick: 64-px images, 8 x 8 codes of 64."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tokenizer") / "dvae.safetensors"
    config = DVAEConfig(hidden=8, vocabulary=64, decoder_input=16, blocks_per_group=1, image_size=64)
    save_dvae(DVAE(config), path)
    return f"dvae:{path}"


@contextlib.contextmanager
def with_tiny_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", (3, 2, 32))
        yield


@pytest.fixture(scope="module")
def tiny_size():
    """A size of transformer that only tests have: `--size tiny`."""
    with with_tiny_size():
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_dvae, tmp_path_factory) -> Path:
    """A transformer trained for two steps, on images of 8 x 8 codes."""
    base = tmp_path_factory.mktemp("checkpoint")
    write_dataset(base / "dataset", train=(4,), val=(), image=load_image_tokenizer(tiny_dvae).info)
    with with_tiny_size():
        train(base / "dataset", "tiny", TransformerTrainingConfig(2, 4, 1e-2), base / "run")
    return base / "run"


@pytest.fixture(scope="session")
def stream_dataset(tmp_path_factory) -> Path:
    """Shards of several sizes, for what reads them."""
    directory = tmp_path_factory.mktemp("stream") / "dataset"
    write_dataset(directory, train=SHARDS, val=(3, 2), draws=2)
    return directory


@pytest.fixture
def own_dataset(tmp_path) -> Path:
    """One to damage."""
    write_dataset(tmp_path / "dataset", train=(3, 2))
    return tmp_path / "dataset"


@pytest.fixture(scope="session")
def training_dataset(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("train") / "dataset"
    write_dataset(directory, train=(5, 6), val=(3,))
    return directory


@pytest.fixture(scope="session")
def undisturbed(training_dataset, tmp_path_factory) -> Path:
    """A run on it from its begin to its end."""
    from tests.support.training import run  # only the trainer's tests need what it imports

    output = tmp_path_factory.mktemp("undisturbed") / "run"
    with with_tiny_size():
        assert run(training_dataset, output) == 0
    return output


@pytest.fixture(scope="session")
def generator(tiny_checkpoint):
    """What draws with that."""
    return load_generator(tiny_checkpoint)


@pytest.fixture(scope="module")
def client(generator):
    """An httpx.Client of a server that draws with it."""
    from tests.support.servers import serving  # only servers' tests need what it imports

    with serving(generator) as client:
        yield client


@pytest.fixture
def gate(monkeypatch):
    """Drawing stops after the first row of codes until this is set."""
    opened, draw_steps = threading.Event(), sampler.sample_steps

    def gated(*arguments):
        for codes_BN in draw_steps(*arguments):
            if codes_BN.shape[1] > 8:
                while not opened.wait(0.01):
                    yield codes_BN[:, :8]
            yield codes_BN

    monkeypatch.setattr(job_queue, "sample_steps", gated)
    yield opened
    opened.set()


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A folder in img2dataset's layout: 30 small images in 6 tar files, one of them broken."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        rows = []
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for i in range(5):
                name, place = f"{number:05d}{i:04d}", number * 5 + i
                noise = np.random.RandomState(place).randint(0, 255, (70, 80, 3)).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(noise).save(buffer, "PNG")
                data = buffer.getvalue() if place != 7 else b"no picture"
                rows.append(
                    {
                        "key": name,
                        "url": f"https://example.org/{place}.png",
                        "status": "success",
                        "caption": f"A red cat in the snow, number {place}",
                    }
                )
                for suffix, content in (
                    ("png", data),
                    ("txt", rows[-1]["caption"].encode()),
                    ("json", json.dumps(rows[-1]).encode()),
                ):
                    info = tarfile.TarInfo(f"{name}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05d}.parquet")
    return folder


@pytest.fixture(scope="session")
def source_options(server) -> list[str]:
    """The four sources, as published, over HTTP."""
    files = {
        "cc3m": ["cc3m.tsv"],
        "cc12m": ["cc12m.tsv"],
        "wit": ["wit_v1.sample.tsv.gz"],
        "yfcc100m": ["yfcc100m_dataset-0", "yfcc100m_dataset-1.bz2"],
    }
    return [f"--source={name}={server.url}/sources/{file}" for name, names in files.items() for file in names]


@pytest.fixture(scope="session")
def fetch_options() -> list[str]:
    return [
        "--allow-address=127.0.0.0/8",
        "--timeout=1.5",
        "--retries=1",
        "--per-host-rate=500",
        "--per-host-connections=16",
        "--pairs-per-unit=40",
    ]


@pytest.fixture(scope="session")
def run_pairmill():
    """Runs the installed command as a user would, from a folder that is not the project's."""

    def run(*arguments: object, cwd: str | os.PathLike = "/", **options) -> subprocess.CompletedProcess:
        command = [os.path.join(os.path.dirname(sys.executable), "pairmill"), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **options)

    return run
