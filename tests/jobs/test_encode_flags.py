"""What the options of encode become where workers run elsewhere."""

from __future__ import annotations

import pytest
import torch

from beam_jobs.flags.common import beam_options, job_parser
from beam_jobs.flags.encode import add_encode_options, encode_config, encode_hints, encode_settings
from beam_jobs.flags.files import add_size_options
from beam_jobs.flags.images import add_image_options
from models.errors import UserError
from pipeline.tokenize_stage import EncodeConfig, PairEncoder, dataset_parts, prepare_workers

REMOTE = ["--runner=PortableRunner", "--environment_type=EXTERNAL"]


def parsed(*options: str):
    parser = job_parser("encode", "")
    add_image_options(parser)
    add_encode_options(parser)
    add_size_options(parser)
    return parser.parse_args(["--output=out", *options])


def test_a_launcher_needs_no_gpu(tiny_dvae, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = parsed(f"--image-tokenizer={tiny_dvae}", "--device=cuda")
    config = encode_config(args, beam_options(REMOTE))
    assert config.computing.device == "cuda"
    assert dataset_parts(config, encode_settings(args), set()).settings["device"] == "cuda"
    with pytest.raises(UserError, match="PyTorch finds no such accelerator here"):
        encode_config(args, beam_options([]))


def test_only_files_that_workers_lack_are_staged(tiny_dvae, tmp_path):
    for spec, elsewhere, staged in (("bundled", True, 0), (tiny_dvae, True, 1), (tiny_dvae, False, 0)):
        config = encode_config(parsed(f"--image-tokenizer={spec}"), beam_options([]))
        workers = prepare_workers(config, dataset_parts(config, {}, set()), str(tmp_path / "out"), elsewhere)
        assert len(workers.image_files) == staged and config.text_tokenizer == ""


def test_a_worker_with_another_tokenizer(tiny_dvae):
    with pytest.raises(UserError, match=r"another tokenizer than the launcher \(expected 000000000000, got"):
        PairEncoder(EncodeConfig(tiny_dvae, fingerprints=("0" * 64, "0" * 64)))


def test_what_the_machines_that_encode_need():
    args = parsed("--encode-accelerator=type:nvidia-tesla-t4;count:1", "--encode-min-ram=16GB")
    hints = {"accelerator": "type:nvidia-tesla-t4;count:1", "min_ram": "16GB"}
    assert encode_hints(args, beam_options(REMOTE)) == hints
    assert encode_hints(parsed(), beam_options([])) == {}
    with pytest.raises(UserError, match=r"^--encode-accelerator type:.*all steps run on this machine"):
        encode_hints(args, beam_options([]))
    with pytest.raises(UserError, match=r"^--encode-min-ram much: .*such as 16GB"):
        encode_hints(parsed("--encode-min-ram=much"), beam_options(REMOTE))
