"""The options of all commands: their names are frozen, their help stands alone, their bounds are one-line errors."""

from __future__ import annotations

import argparse
import importlib
import re
import socket

import pytest
import torch
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.portable_runner import PortableRunner

from beam_jobs.flags.common import beam_options, check_engine
from models.device import check_device
from models.errors import UserError
from models.training.distributed import distributed_world
from pipeline import cli
from tests.support.paths import ROOT

OPTIONS = ROOT / "tests" / "support" / "options.txt"
CC3M = ROOT / "sample" / "sources" / "cc3m.tsv"
SEE = "`pairmill build --help` lists the options"


class Parsed(Exception):
    """Carries the parser of a command, in place of parsing."""


@pytest.fixture(scope="module")
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Command -> its parser."""

    def stop(parser, *_):
        raise Parsed(parser)

    modules = {command: importlib.import_module(module) for command, (module, _) in cli.COMMANDS.items()}
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        for command, module in modules.items():
            with pytest.raises(Parsed) as raised:
                module.main([])
            [found[command]] = raised.value.args
    return found


def test_the_options_are_those_of_the_list(parsers):
    """An option that is added, renamed or dropped on purpose changes the list as well."""
    options = [
        f"{command} {option}"
        for command, parser in parsers.items()
        for action in parser._actions
        for option in action.option_strings or [action.metavar]
    ]
    assert sorted(options) == OPTIONS.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_defaults_in_help_say_something(parsers, command):
    text = " ".join(parsers[command].format_help().split())
    assert "(default: None)" not in text and not re.search(r"\(default:? *\)", text)
    assert not re.findall(r"\(default(?!: )[^)]*\)|; default[^)]*\)", text), "write (default: VALUE)"
    assert not re.findall(r"(?:^|[\s(=:])(/\w\S*)", text), "a path of this machine"


HANGING = re.compile(r"(of|at|in|by|to|for|from|on|px|that|which|repeatable:|\w+'s),? ")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_has_help_that_stands_alone(parsers, command):
    actions = [action for action in parsers[command]._actions if action.dest != "help"]
    assert not [action.dest for action in actions if not action.help]
    assert not [action.help for action in actions if HANGING.match(action.help)], "begin with a noun or a verb"
    named = [action for action in actions if action.option_strings and action.nargs != 0 and not action.choices]
    assert not [action.dest for action in named if not action.metavar], "name the value as a letter or a word"


def test_the_list_of_commands_says_what_each_does():
    verbs = {text.split()[0].rstrip(",") for _, text in cli.COMMANDS.values()}
    assert verbs <= {
        *(
            "check",
            "compare",
            "count",
            "download",
            "draw",
            "filter",
            "keep",
            "list",
            "measure",
            "merge",
            "print",
            "train",
        ),
        *("turn", "write"),
    }


def test_device_is_one_option_of_all_commands(parsers):
    """But for the model that it names."""
    found = {name: action for name, parser in parsers.items() for action in parser._actions if action.dest == "device"}
    assert sorted(found) == ["build", "encode", "evaluate", "generate", "score", "serve", "train", "train-dvae"]
    texts = {action.help.replace("the image tokenizer", "the model") for action in found.values()}
    shown = {(action.default, action.metavar, action.choices, action.type) for action in found.values()}
    assert len(texts) == len(shown) == 1 and shown.pop()[:2] == ("auto", "DEVICE")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices_that_are_taken(parsers, device):
    for command in ("encode", "generate", "train"):
        [action] = [action for action in parsers[command]._actions if action.dest == "device"]
        assert parsers[command]._get_value(action, device) == device


@pytest.mark.parametrize(
    "command",
    [
        ["encode", "--images=IN", "--output=OUT"],
        ["score", "--images=IN", "--output=OUT"],
        ["generate", "--prompt=a", "--output=OUT"],
        ["evaluate", "--images=IN"],
        ["train", "--dataset=IN", "--steps=1", "--batch-size=1", "--size=3m", "--output=OUT"],
        ["train-dvae", "--images=IN", "--steps=1", "--output=OUT"],
    ],
    ids=lambda command: command[0],
)
def test_a_wrong_device_is_one_line(command, tmp_path, capsys):
    command = [word.replace("OUT", str(tmp_path / "out")).replace("IN", str(tmp_path)) for word in command]
    assert cli.main([*command, "--device=abacus"]) == 2
    assert capsys.readouterr().err == (
        "pairmill: --device abacus: give auto, cpu, cuda, or cuda:1 for the second GPU\n"
    )


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_the_machine_lacks(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(UserError, match=f"^--device {device}: PyTorch finds no such accelerator here; use --device cpu"),
        distributed_world(device),
    ):
        pass
    check_device("cpu")
    if device == "cuda:1":
        check_device("cuda:0")


def test_processes_of_torchrun_have_a_gpu_each(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "^--device cuda:1: torchrun gives each process a GPU of its own"
    with pytest.raises(UserError, match=message), distributed_world("cuda:1"):
        pass


def test_more_processes_than_gpus_is_said_of_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = "^torchrun: more processes than the 2 GPUs here; give --nproc-per-node 2"
    with pytest.raises(UserError, match=message), distributed_world("cuda"):
        pass


def test_build_and_encode_have_the_same_defaults(parsers):
    defaults = [
        {action.dest: action.default for action in parsers[command]._actions if action.dest != "images"}
        for command in ("build", "encode")
    ]
    both = defaults[0].keys() & defaults[1].keys()
    assert {"image_tokenizer", "text_tokenizer", "device"} <= both
    assert {name: defaults[0][name] for name in both} == {name: defaults[1][name] for name in both}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-words=-1"], "--min-words -1: give 0 or more"),
        (["--min-words=many"], "--min-words many: give a whole number, 0 or more"),
        (["--min-words=1.5"], "--min-words 1.5: give a whole number, 0 or more"),
        (["--min-side=0"], "--min-side 0: give 1 or more"),
        (["--draws=0"], "--draws 0: give 1 or more"),
        (["--timeout=0"], "--timeout 0: give a number over 0"),
        (["--timeout=nan"], "--timeout nan: give a number over 0"),
        (["--max-ratio=wide"], "--max-ratio wide: give a number over 0"),
        (["--val-share=1"], "--val-share 1: give a share from 0 to below 1"),
        (["--language-threshold=2"], "--language-threshold 2: give a number from 0 to 1"),
        (["--bytes-per-shard=0"], "--bytes-per-shard 0: give 1 or more"),
        (["--min-clip=nan"], "--min-clip nan: give a number"),
        (["--max-score=sharpness=nan"], "--max-score sharpness=nan: give NAME=X, such as sharpness=50"),
        (["--precision=float8"], f"--precision: invalid choice: 'float8' (choose from 'float32', 'bfloat16'); {SEE}"),
        (["--draws"], f"--draws: expected one argument; {SEE}"),
        (["--overwrite=yes"], f"--overwrite: ignored explicit argument 'yes'; {SEE}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_value_is_one_line(arguments, message, tmp_path, capsys):
    needed = ["build", f"--source=cc3m={CC3M}", f"--output={tmp_path / 'out'}"]
    assert cli.main([*needed, *arguments]) == 2
    assert capsys.readouterr().err == f"pairmill: {message}\n"


INPUTS = {
    "--source": "cc3m=MISSING",
    "--size": "3m",
    "--steps": "1",
    "--batch-size": "1",
    "--vocabulary": "300",
    "--where": "clip > 1",
}
EXTREMES = ("nan", "inf", "-inf", "-1", "0", "9" * 400, "", "=", "x=nan", "x=-1")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_whatever_number_is_given_is_one_line(parsers, command, tmp_path, monkeypatch, capsys):
    """Each option that has a type, with values that a type may forget; the inputs do not exist."""
    monkeypatch.chdir(tmp_path)
    actions = parsers[command]._actions
    given = {
        action.option_strings[0] if action.option_strings else action.metavar: action
        for action in actions
        if action.required or action.dest in ("source", "size", "checkpoint", "images")
    }
    values = {name: INPUTS.get(name, "OUT" if name == "--output" else "MISSING") for name in given}
    faults = []
    for action in actions:
        if action.type is None or not action.option_strings:
            continue
        for value in EXTREMES:
            words = {**values, action.option_strings[0]: value}
            status = _status([command, *(f"{k}={v}" if k.startswith("-") else v for k, v in words.items())])
            said = capsys.readouterr().err
            if status != 2 or said.count("\n") != 1:
                faults.append((action.option_strings[0], value[:9], status, said))
    assert not faults and not list(tmp_path.iterdir())


def _status(arguments: list[str]) -> int | str:
    try:
        return cli.main(arguments)
    except Exception as error:
        return repr(error)


@pytest.mark.parametrize("quality", ["0", "101", "-3"])
def test_a_quality_is_one_that_files_have(quality, tmp_path, capsys):
    assert cli.main(["fetch", "--pairs=PAIRS", f"--output={tmp_path / 'out'}", f"--quality={quality}"]) == 2
    assert capsys.readouterr().err == f"pairmill: --quality {quality}: give 1 to 100\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_an_option_that_a_command_lacks_is_one_line(command, capsys):
    assert cli.main([command, "--no-such-option"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pairmill: ") and said.endswith(f"; `pairmill {command} --help` lists the options\n")
    assert said.count("\n") == 1


def test_missing_options_are_one_line(capsys):
    assert cli.main(["fetch"]) == 2
    assert capsys.readouterr().err == (
        "pairmill: the following arguments are required: --output, --pairs; `pairmill fetch --help` lists the options\n"
    )


@pytest.mark.parametrize("endpoint", ["localhost:1", "localhost:port", "nobody"])
def test_a_job_server_that_does_not_answer(endpoint):
    with pytest.raises(UserError, match=f"--job_endpoint {endpoint}: no job server answers there"):
        check_engine(beam_options(["--runner=PortableRunner", f"--job_endpoint={endpoint}"]))


class JobService:
    """Keeps the time limits of its streams."""

    def __init__(self):
        self.limits = []

    def GetStateStream(self, request, timeout):
        self.limits.append(timeout)
        return iter(["RUNNING"])

    GetMessageStream = GetStateStream

    def Run(self, request):
        return beam_job_api_pb2.RunJobResponse(job_id="1")


def test_a_job_may_take_longer_than_its_server_for_an_answer():
    """Beam's own limit for the launcher of a portable job is 300 s for both."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{server.getsockname()[1]}"]
        for asked, limit in (([], 60), (["--job_server_timeout=77"], 77)):
            options, service = beam_options([*arguments, *asked]), JobService()
            check_engine(options)
            handle = PortableRunner().create_job_service_handle(service, options)
            assert handle.timeout == limit
            assert handle.run("1")[0] == "1" and min(service.limits) > 300 * 86400
