"""Workers whose code lies at another path, for which the launcher's own files do not exist."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_jobs import build_dataset, run
from beam_jobs.flags.common import beam_options
from models.errors import UserError
from pipeline.output import state
from pipeline.output.names import MANIFEST_FILE
from tests.support.datasets import tiny_text_tokenizer
from tests.support.engines import python_service
from tests.support.paths import ROOT, files_of

# Runs before anything else in the processes of the pool: files below these folders are missing to them.
HIDE = """
import os, sys

HIDDEN, stat = tuple(os.environ["HIDDEN_FOLDERS"].split(os.pathsep)), os.stat


def refuse(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "stat") and isinstance(arguments[0], (str, os.PathLike)):
        if os.path.abspath(arguments[0]).startswith(HIDDEN):
            raise FileNotFoundError(2, "hidden from this worker", str(arguments[0]))


def hidden_stat(path, **options):
    refuse("stat", (path,))
    return stat(path, **options)


sys.addaudithook(refuse)
os.stat = hidden_stat  # of which no hook hears
"""


@pytest.fixture(scope="module")
def launcher_folder(tiny_dvae, tmp_path_factory) -> Path:
    """Tokenizers that only the launcher has."""
    folder = tmp_path_factory.mktemp("launcher")
    shutil.copy(tiny_dvae.removeprefix("dvae:"), folder / "dvae.safetensors")
    (folder / "bpe.json").write_text(tiny_text_tokenizer().text)
    return folder


@pytest.fixture(scope="module")
def engine(launcher_folder, tmp_path_factory) -> Iterator[list[str]]:
    """Options of a job service whose workers have a copy of the code; they see neither this one nor that folder."""
    base = tmp_path_factory.mktemp("workers")
    packages = [ROOT / name for name in ("models", "pipeline", "beam_jobs")]
    for package in packages:
        shutil.copytree(package, base / "code" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (base / "code" / "sitecustomize.py").write_text(HIDE)
    (base / "tmp").mkdir()
    hidden = os.pathsep.join(f"{folder}/" for folder in (*packages, launcher_folder))
    environment = {"PYTHONPATH": str(base / "code"), "HIDDEN_FOLDERS": hidden, "TMPDIR": str(base / "tmp")}
    read = [sys.executable, "-c", f"open({str(ROOT / 'models' / 'errors.py')!r})"]
    assert b"hidden from this worker" in subprocess.run(read, env=environment, capture_output=True, check=False).stderr
    with (
        python_service("apache_beam.runners.portability.local_job_service_main", "-p", base) as service,
        python_service("apache_beam.runners.worker.worker_pool_main", "--service_port", base, environment) as pool,
    ):
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint=localhost:{service}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{pool}",
        ]


@pytest.mark.parametrize("text_tokenizer", ["bundled", "bpe.json"])
def test_workers_at_another_path_build_the_same_dataset(
    text_tokenizer, engine, launcher_folder, images, tmp_path, exhaustive
):
    """The manifest names the launcher's files and has no word of the copies."""
    if text_tokenizer == "bundled" and not exhaustive:
        pytest.skip("only with --exhaustive: a tokenizer that workers have is the easier case")
    spec, text = f"dvae:{launcher_folder}/dvae.safetensors@32", launcher_folder / text_tokenizer
    options = [
        f"--source=img2dataset={images}/00000.tar",
        f"--image-tokenizer={spec}",
        f"--text-tokenizer={text if text.exists() else text_tokenizer}",
    ]
    for output, runner in (("here", ["--direct_num_workers=1"]), ("there", engine)):
        assert build_dataset.main([*options, f"--output={tmp_path / output}", *runner]) == 0
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
    assert json.loads((tmp_path / "there" / "manifest.json").read_text())["image_tokenizer"]["spec"] == spec


def test_a_worker_that_does_not_see_the_output(engine, launcher_folder):
    """One line, through Beam's own wrapping."""
    output = launcher_folder / "out"
    state.prepare_output(str(output), "build", {}, MANIFEST_FILE, overwrite=False, is_running=lambda engine: False)
    with pytest.raises(UserError, match=rf"^--output {output}: a worker on \S+ does not see this folder"):
        run.run(beam_options(engine), str(output), "build", lambda pipeline: None)
