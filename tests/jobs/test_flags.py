"""The options of all commands: their names are frozen, their help stands alone, their bounds are one-line errors."""

from __future__ import annotations

import argparse
import importlib
import re
import socket

import pytest
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.portable_runner import PortableRunner

from beam_jobs.flags.common import beam_options, check_engine
from models.errors import UserError
from pipeline import cli
from tests.conftest import ROOT

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
    text = parsers[command].format_help()
    assert "(default: None)" not in text and not re.search(r"\(default:? *\)", text)
    assert not re.findall(r"(?:^|[\s(=:])(/\w\S*)", text), "a path of this machine"


@pytest.mark.parametrize("command", ["fetch", "encode", "repack"])
def test_every_option_of_a_job_has_help(parsers, command):
    assert not [action.dest for action in parsers[command]._actions if not action.help]


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
