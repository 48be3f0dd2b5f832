"""Bad input: one line that names the place and the mend, status 2, never a traceback."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from models import errors
from pipeline import cli
from pipeline.output.counts import Step
from pipeline.output.progress import plan_path
from tests.support.narrowing import instance, required
from tests.support.paths import ROOT

CC3M = ROOT / "sample" / "sources" / "cc3m.tsv"

CASES = [
    ([], None),
    (["bild"], "there is no command 'bild'"),
    (["build"], "--output"),
    (["build", "--source", "cc3m", "--output", "OUT"], "NAME=PATTERN"),
    (["build", "--source", f"laion={CC3M}", "--output", "OUT"], "cc3m, cc12m"),
    (["build", "--source", "cc3m=/nowhere/*.tsv", "--output", "OUT"], "no file matches /nowhere/*.tsv"),
    (["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--min-wrods", "3"], "--min-wrods"),
    (["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--draws", "0"], "--draws 0: give 1 or more"),
    (["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--timeout", "-1"], "--timeout"),
    (["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--allow-address", "home"], "--allow-address home"),
    (["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--image-tokenizer", "vqgan"], "dvae:FILE.safetensors"),
    (
        ["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--image-tokenizer", "dvae:/no.safetensors"],
        "/no.safetensors does not exist",
    ),
    (["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--image-tokenizer", f"dvae:{CC3M}"], "safetensors"),
    (["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--text-tokenizer", "/no.json"], "pairmill train-bpe"),
    (
        ["build", "--source", f"cc3m={CC3M}", "--output", "OUT", "--text-tokenizer", str(CC3M)],
        "is not a tokenizer.json",
    ),
    (["select", "--source", f"cc3m={CC3M}", "--output", "OUT", "--language-detector", "oracle"], "oracle"),
    (["select", "--source", f"cc3m={CC3M}", "--output", "OUT", "--val-share", "1"], "--val-share"),
    (["fetch", "--pairs", "/nowhere", "--output", "OUT"], "run `pairmill select`"),
    (
        [
            "encode",
            "--images",
            "/nowhere/*.tar",
            "--output",
            "OUT",
            "--image-tokenizer",
            "bundled",
            "--text-tokenizer",
            "bundled",
        ],
        "no file matches",
    ),
    (["stats", "/nowhere"], "neither manifest.json nor ledger.json"),
    (["show", "/nowhere"], "not a finished dataset"),
    (["verify", "/nowhere"], "not a finished dataset"),
    (["train-bpe", "--captions", "/nowhere/*.txt", "--vocabulary", "300", "--output", "OUT"], "no such file"),
    (["train-bpe", "--captions", str(CC3M), "--vocabulary", "7", "--output", "OUT"], "--vocabulary 7"),
    (["train-dvae", "--images", "/nowhere/*.tar", "--steps", "1", "--output", "OUT"], "no such file"),
    (
        ["train", "--dataset", "/nowhere", "--size", "3m", "--steps", "1", "--batch-size", "1", "--output", "OUT"],
        "not a finished dataset",
    ),
    (
        ["train", "--dataset", "/nowhere", "--size", "huge", "--steps", "1", "--batch-size", "1", "--output", "OUT"],
        "huge",
    ),
    (
        ["generate", "--checkpoint", "/nowhere", "--prompt", "a cat", "--count", "1", "--seed", "0", "--output", "OUT"],
        "/nowhere",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), CASES, ids=[" ".join(case[0])[:60] for case in CASES])
def test_wrong_usage(arguments, said, tmp_path, capsys):
    arguments = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    try:
        status = cli.main(arguments)
    except SystemExit as exit_:  # argparse's own way
        status = instance(exit_.code, int)
    printed = capsys.readouterr()
    assert status == 2
    if said:
        last = printed.err.strip().splitlines()[-1]
        assert said in last and "Traceback" not in printed.err
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


def test_an_empty_source_is_named(tmp_path, run_pairmill):
    (tmp_path / "empty.tsv").write_bytes(b"")
    done = run_pairmill(
        "build", f"--source=cc3m={tmp_path / 'empty.tsv'}", f"--output={tmp_path / 'out'}", "--direct_num_workers=1"
    )
    assert done.returncode == 2
    assert done.stderr == f"pairmill: cc3m: no row in {tmp_path / 'empty.tsv'}: the file is empty; download it again\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not readable"),
        ("[]", "not the manifest"),
        ('{"format": "pairmill-dataset", "version": 99}', "version 99"),
        ('{"format": "pairmill-dataset", "version": 1, "shards": []}', "damaged or was edited"),
    ],
)
def test_unreadable_manifest(text, said, tmp_path, capsys):
    (tmp_path / "manifest.json").write_text(text)
    assert cli.main(["stats", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path)]) == 1  # to tell what is damaged is what it is for
    assert "manifest.json" in "".join(capsys.readouterr())


def test_verify_names_the_damaged_shard(tmp_path, capsys):
    from tests.support.datasets import write_dataset

    write_dataset(tmp_path, train=(3,))
    shard = tmp_path / "train" / "00000-of-00001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    assert cli.main(["verify", str(tmp_path), "--workers", "1"]) == 1
    assert "train/00000-of-00001.tar: damaged" in capsys.readouterr().out


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in cli.COMMANDS)


def test_interruption_is_one_line(capsys):
    def command() -> int:
        raise KeyboardInterrupt

    assert errors.report_errors(command) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_package_that_swallows_an_interruption_while_it_is_imported(tmp_path):
    (tmp_path / "swallows.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(10)\n"
        "except BaseException:\n    pass\n"
        "main = print\n"
    )
    script = "import sys; from pipeline import cli; cli.COMMANDS['x'] = ('swallows', ''); sys.exit(cli.main(['x']))"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pairmill: interrupted\n")


def test_interruption_in_a_librarys_clean_up_is_one_line(capsys):
    """`logging.shutdown` releases a lock that Ctrl-C kept it from taking."""
    lock = threading.RLock()

    def command() -> int:
        try:
            raise KeyboardInterrupt
        finally:
            lock.release()

    assert errors.report_errors(command, "go on") == 130
    assert capsys.readouterr().err == "pairmill: interrupted; go on\n"


def test_ctrl_c_ends_a_job_and_its_workers(tmp_path, server, elsewhere):
    """The terminal sends the signal to every process of the group."""
    command = [
        "build",
        f"--source=cc3m={server.url}/sources/cc3m.tsv",
        f"--output={tmp_path / 'out'}",
        "--allow-address=127.0.0.0/8",
        "--direct_num_workers=2",
    ]
    plan = Path(required(plan_path(str(tmp_path / "out"), Step.FETCH_AND_ENCODE)))  # from here on all workers run
    printed = tmp_path / "printed"
    os.mkfifo(printed)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        interrupted = {"kill_when": plan.exists, "kill_by": signal.SIGINT}
        running = pool.submit(elsewhere.run, command, tmp_path, **interrupted, printed=printed)
        printed.read_bytes()  # ends when the last worker has
    status, said = running.result()
    assert status == 130
    assert said.endswith("pairmill: build interrupted; the same command continues with what was not finished\n")
    assert "Traceback" not in said


def test_a_pipe_that_breaks_elsewhere_is_no_success():
    """As a connection that ends while a job sends: only who reads the command's output may leave early."""
    script = """
        import os, sys
        from models.errors import report_errors
        reading, writing = os.pipe()
        os.close(reading)
        sys.exit(report_errors(lambda: os.write(writing, b"x")))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and "BrokenPipeError" in run.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["select", "--help"]])
def test_a_reader_that_has_seen_enough(arguments):
    """As `pairmill --help | head -3`."""
    command = [sys.executable, "-c", f"from pipeline import cli; raise SystemExit(cli.main({arguments}))"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        required(process.stdout).close()
        assert required(process.stderr).read() == ""
    assert process.returncode == 0
