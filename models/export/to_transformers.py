"""`pairmill export`: writes a trained model as a folder that `transformers` loads, with its code.

    AutoModel.from_pretrained(DIR, trust_remote_code=True), AutoTokenizer.from_pretrained(DIR)

No class that transformers has is equal to the network: the recipe `modern` is that of Llama with two vocabularies,
normalised queries and keys, and positions by row and column. So the folder holds the modules of the network as they
are, and needs no pairmill where it is loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from models import hashing
from models.command_line import CommandParser
from models.data import batch
from models.errors import UserError, WriteError, write_error
from models.files import CONFIG_FILE, HUB_WEIGHTS_FILE, TEMPORARY_SUFFIX, output_folder
from models.next_command import print_output
from models.progress import Progress, ProgressLine
from models.sampling import sampler
from models.sampling.checkpoint import find_checkpoint, load_model, read_config, sampling_of
from models.sampling.sampler import SamplingConfig
from models.tokenizers.info import TEXT_TOKENIZER_FILE
from models.tokenizers.text import TextTokenizer
from models.transformer import attention, model
from models.transformer.model import Transformer, TransformerConfig

HUB = Path(__file__).with_name("hub")
CODE = (
    *(HUB / f"{name}_pairmill.py" for name in ("configuration", "modeling")),
    *(Path(str(module.__file__)) for module in (attention, model, batch, hashing, sampler)),
)
"""The modules that an exported model consists of. They import each other, torch and transformers alone."""
PAD_TOKEN = "<|padding|>"
LARGE_BYTES = 1 << 30  # of weights, from which on a line says what is done before each long call
_OWN_IMPORT = re.compile(r"^from models(?:\.\w+)*\.(\w+) import", re.MULTILINE)


def make_parser() -> argparse.ArgumentParser:
    """The parser of `pairmill export`."""
    parser = CommandParser("export", __doc__.split("\n")[0])
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="folder made by `pairmill train`, or a model in the package: bundled, bundled-scenes",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder to write, which must not exist yet"
    )
    parser.add_argument(
        "--averaged",
        action="store_true",
        help="use the weights averaged over the training, which are better after a long one",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    export(find_checkpoint(args.checkpoint), args.output, args.averaged)
    print_output("export", args.output)
    load = f"from transformers import AutoModel; AutoModel.from_pretrained({json.dumps(str(args.output))}"
    print("next: " + shlex.join(["python", "-c", f"{load}, trust_remote_code=True)"]))
    return 0


def export(checkpoint: Path, output: Path, averaged: bool = False) -> None:
    """Writes the folder, whole or not at all. Raises UserError for a folder that is no checkpoint, or an output that is
    there."""
    if os.path.lexists(output):
        raise UserError(f"--output {output}: exists; name a new folder")
    with ProgressLine("export") as line:
        is_large = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) > LARGE_BYTES
        line.show(Progress(0, "", stage="read the weights"), now=is_large)
        network, _ = load_model(checkpoint, averaged)
        line.show(Progress(0, "", stage="write the folder"), now=is_large)
        _write(checkpoint, network, output)


def _write(checkpoint: Path, network: Transformer, output: Path) -> None:
    text_tokenizer = TextTokenizer.load(checkpoint / TEXT_TOKENIZER_FILE)
    config = read_config(checkpoint)
    sampling = sampling_of(config, checkpoint)
    temporary = output.absolute().with_name(f".{output.name}-{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    with output_folder(temporary.parent), _folder_written_atomically(temporary, output):
        for path in CODE:
            (temporary / path.name).write_text(_standalone(path.read_text("utf-8")), "utf-8")
        weights = {f"network.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
        save_file(weights, temporary / HUB_WEIGHTS_FILE, {"format": "pt"})
        _write_json(temporary / CONFIG_FILE, model_config(config, network.config, sampling))
        (temporary / "tokenizer.json").write_text(text_tokenizer.text, "utf-8")
        _write_json(temporary / "tokenizer_config.json", tokenizer_config(network.config))


@contextlib.contextmanager
def _folder_written_atomically(temporary: Path, output: Path) -> Iterator[None]:
    """A folder that gets the name `output` when the block ends without an error. Raises WriteError where the system
    refuses it or a file in it."""
    try:
        temporary.mkdir()
        yield
        os.replace(temporary, output)
    except OSError as error:
        raise write_error(error, output) from None
    except SafetensorError as error:  # as which save_file passes on what the system says
        raise WriteError(f"can't write {output}: {error}; make room, or name another place", str(error)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def model_config(config: dict[str, Any], network: TransformerConfig, sampling: SamplingConfig) -> dict[str, Any]:
    """`config.json`: the fields of PairmillConfig, and which classes read the folder."""
    return {
        "model_type": "pairmill",
        "architectures": ["PairmillModel"],
        "auto_map": {
            "AutoConfig": "configuration_pairmill.PairmillConfig",
            "AutoModel": "modeling_pairmill.PairmillModel",
        },
        "dtype": "float32",
        "network": dataclasses.asdict(network),
        "image_tokenizer": config["image_tokenizer"],
        "supports_guidance": config["training"]["blank_captions"] > 0,
        "sampling": sampling._asdict(),
        "pad_token_id": network.text_vocabulary,
    }


def tokenizer_config(network: TransformerConfig) -> dict[str, Any]:
    """`tokenizer_config.json`. The token that fills captions up is one that the network does not have: it puts a
    learned embedding there."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": network.text_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": PAD_TOKEN,
        "clean_up_tokenization_spaces": False,
    }


def _standalone(source: str) -> str:
    """The source of a module whose imports of our own modules name files beside it."""
    return _OWN_IMPORT.sub(r"from .\1 import", source)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
