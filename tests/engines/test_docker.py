"""What docker/ holds: its pins, scripts that say what they should, and workers from what the images install."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from beam_jobs import build_dataset
from tests.support.engines import python_service
from tests.support.narrowing import required
from tests.support.paths import ROOT, files_of

DOCKER = ROOT / "docker"
BEAM = required(re.search(r"^apache-beam==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))[1]
SCRIPTS = {
    "slurm.sh": {"SLURM_CPUS_PER_TASK": "4", "SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "8"},
    "indexed-job.yaml": {"JOB_COMPLETION_INDEX": "7"},
    "aws-batch.json": {"AWS_BATCH_JOB_ARRAY_INDEX": "7"},
}


def shell_of(script: str) -> list[str]:
    """The command that a part runs."""
    if script.endswith(".sh"):
        return ["bash", str(DOCKER / script), "images/*.tar", "out", "--draws=2"]
    if script.endswith(".json"):
        return json.loads((DOCKER / script).read_text())["containerOverrides"]["command"]
    [container] = yaml.safe_load((DOCKER / script).read_text())["spec"]["template"]["spec"]["containers"]
    return [*container["command"], *container["args"]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_last_part_of_a_script(script, tmp_path):
    """Run by a shell, with a command in place of pairmill that prints what it is given."""
    program = tmp_path / "pairmill"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **SCRIPTS[script]}
    ran = subprocess.run(shell_of(script), env=environment, capture_output=True, text=True, check=True)
    arguments = ran.stdout.split("\n")[:-1]
    assert arguments[0] in ("fetch", "encode") and "--output" in arguments
    assert arguments[arguments.index("--part") + 1] == "8/8"


def test_files_can_be_parsed_and_name_beams_version():
    for path in DOCKER.glob("*.yaml"):
        assert list(yaml.safe_load_all(path.read_text()))
    files = [path for path in DOCKER.iterdir() if path.is_file()]  # not compiled modules
    texts = [path.read_text() for path in (*files, ROOT / "docs" / "engines.md")]
    versions = {version for text in texts for version in re.findall(r"(?:BEAM=|_job_server:)(\d[\d.]*\d)", text)}
    assert versions == {BEAM}


@pytest.mark.parametrize("name", ["Dockerfile", "cuda.Dockerfile"])
def test_an_image_installs_pinned_packages(name):
    text = (DOCKER / name).read_text()
    installs = re.findall(r"^RUN pip install (.+)$", text, re.MULTILINE)
    assert installs and all("-c constraints.txt" in line for line in installs)
    assert all((ROOT / path).exists() for path in copied(name))


def copied(name: str) -> list[str]:
    """What an image takes from the clone."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / name).read_text(), re.MULTILINE)
    return [path for line in lines for path in line.split()]


def test_a_flex_template_starts_a_command(monkeypatch):
    spec = required(importlib.util.spec_from_file_location("flex_template", DOCKER / "flex_template.py"))
    flex_template = importlib.util.module_from_spec(spec)
    required(spec.loader).exec_module(flex_template)
    given = []

    def main(arguments):
        given.extend(arguments)
        return 0

    monkeypatch.setattr(flex_template.cli, "main", main)
    parameters = {"command": "build", "options": "--source 'cc3m=gs://b/a list.tsv' --output gs://b/out"}
    arguments = [f"--{name}={value}" for name, value in parameters.items()]
    assert flex_template.main([*arguments, "--runner=DataflowRunner", "--region", "r"]) == 0
    options = ["--source", "cc3m=gs://b/a list.tsv", "--output", "gs://b/out"]
    assert given == ["build", *options, "--runner=DataflowRunner", "--region", "r"]
    described = json.loads((DOCKER / "flex_template.json").read_text())["parameters"]
    assert {parameter["name"] for parameter in described} == parameters.keys()


def test_workers_of_what_an_image_installs(images, tiny_dvae, tmp_path, exhaustive):
    """From a package that pip makes of the copied files alone; the packages that it needs are this environment's."""
    if not exhaustive:
        pytest.skip("only with --exhaustive: pip builds and installs the package")
    clone, installed = tmp_path / "clone", tmp_path / "installed"
    clone.mkdir()
    for path in map(Path, copied("Dockerfile")):
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, clone / path)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(clone)]
    subprocess.run(pip, check=True, cwd=tmp_path)
    options = [f"--source=img2dataset={images}/00000.tar", f"--image-tokenizer={tiny_dvae}"]
    with (
        python_service("apache_beam.runners.portability.local_job_service_main", "-p", tmp_path) as service,
        python_service(
            "apache_beam.runners.worker.worker_pool_main", "--service_port", tmp_path, {"PYTHONPATH": str(installed)}
        ) as pool,
    ):
        engine = ["--runner=PortableRunner", f"--job_endpoint=localhost:{service}", "--environment_type=EXTERNAL"]
        engine += [f"--environment_config=localhost:{pool}"]
        assert build_dataset.main([*options, f"--output={tmp_path / 'there'}", *engine]) == 0
    assert build_dataset.main([*options, f"--output={tmp_path / 'here'}", "--direct_num_workers=1"]) == 0
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
