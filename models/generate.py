"""Draws pictures from text: `pairmill generate --checkpoint DIR --prompt TEXT --count 4 --seed 0 --output DIR`.

Picture i of a seed is the same drawn alone or among others: its random numbers are its own, and pictures go through
the model in groups of one fixed size. DIR receives 0000.png, 0001.png, ... with prompt, seed and fingerprints in their
text chunks, and grid.png with all of them.

Shape letters: B pictures drawn together, T text positions, N codes, V codes in the vocabulary.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import SafetensorError
from safetensors.torch import load

from models.errors import UserError, write_whole
from models.image_tokenizers import ImageTokenizer, load_image_tokenizer
from models.text_tokenizer import TextTokenizer
from models.transformer import NO_TOKEN, Transformer, TransformerConfig, block_parameters

GROUP = 4  # pictures drawn together, always: a product's last bits may depend on the number of its rows
MAX_COUNT = 1024  # the paper draws 512
SMALL = 10_000_000  # parameters: below, a product is done before a second thread has woken up


class Sampling(NamedTuple):
    """How a code is chosen from its logits; the paper draws at temperature 1 from all (section 2.6)."""

    temperature: float = 1.0
    top_k: int = 0  # the most likely codes to choose among; 0 for all
    top_p: float = 1.0  # the share of the probability to choose among


THE_PAPERS = Sampling()


class Artist(NamedTuple):
    """A checkpoint, ready to draw."""

    model: Transformer
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer
    fingerprint: str  # SHA-256 of the weights


# --- drawing ---------------------------------------------------------------------------------------------------------


def picture_seed(seed: int, index: int) -> int:
    """The seed, 63 bits, of one of the pictures that a command draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8], "big") >> 1


def draw(model: Transformer, tokens: list[int], seeds: list[int], sampling: Sampling = THE_PAPERS) -> torch.Tensor:
    """One picture's codes for each seed, int64 [B, N]."""
    text_T = torch.full((model.config.text_length,), NO_TOKEN)
    tokens = tokens[: model.config.text_length]
    text_T[: len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
    groups = []
    for start in range(0, len(seeds), GROUP):
        group = seeds[start : start + GROUP]
        padded = group + [0] * (GROUP - len(group))
        groups.append(_draw_group(model, text_T.expand(GROUP, -1), padded, sampling)[: len(group)])
    return torch.cat(groups)


@torch.inference_mode()
def _draw_group(model: Transformer, text_BT: torch.Tensor, seeds: list[int], sampling: Sampling) -> torch.Tensor:
    chances_BN = torch.stack([torch.rand(model.config.codes, generator=torch.Generator().manual_seed(seed))
                              for seed in seeds])
    caches, logits_BV = model.start_drawing(text_BT)
    codes = [choose(logits_BV, chances_BN[:, 0], sampling)]
    for place in range(model.config.codes - 1):
        logits_BV = model.draw_next(codes[-1], place, caches)
        codes.append(choose(logits_BV, chances_BN[:, place + 1], sampling))
    return torch.stack(codes, dim=1)


def choose(logits_BV: torch.Tensor, chances_B: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """A code for each row, int64 [B]: where the running sum of the probabilities passes a number from [0, 1). Summed
    in the codes' own order, since in the order of likelihood a last bit could swap two codes and change a picture."""
    logits_BV = logits_BV.double()
    logits_BV = (logits_BV - logits_BV.amax(dim=1, keepdim=True)) / sampling.temperature
    probabilities_BV = logits_BV.softmax(dim=1)
    if sampling.top_k or sampling.top_p < 1:
        probabilities_BV = probabilities_BV.masked_fill(probabilities_BV < _least_kept(probabilities_BV, sampling), 0)
    sums_BV = probabilities_BV.cumsum(dim=1)
    goal_B1 = chances_B[:, None].double() * sums_BV[:, -1:]
    return torch.searchsorted(sums_BV, goal_B1, right=True)[:, 0]


def _least_kept(probabilities_BV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The probability [B, 1] of the least likely code that top-k, and then top-p among those, leave."""
    vocabulary = probabilities_BV.shape[1]
    likeliest_BK = probabilities_BV.topk(min(sampling.top_k, vocabulary) or vocabulary).values
    sums_BK = likeliest_BK.cumsum(dim=1)
    # top-p keeps the codes up to and with the one whose sum reaches that share
    before_B1 = (sums_BK < sampling.top_p * sums_BK[:, -1:]).sum(dim=1, keepdim=True)
    return likeliest_BK.gather(1, before_B1)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def load_artist(directory: Path, image_tokenizer_spec: str | None = None) -> Artist:
    """Reads what `pairmill train` wrote. Raises UserError for a folder that is none, and for other tokenizers."""
    try:
        described = json.loads((directory / "config.json").read_bytes())
        data = (directory / "model.safetensors").read_bytes()
        config = TransformerConfig(**described["model"])
        image, text = described["image_tokenizer"], described["text_tokenizer"]
        model = Transformer(config)
        model.load_state_dict(load(data))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist: --checkpoint names a folder made by `pairmill train`"
                        ) from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{directory} is not a checkpoint that can be read: {str(error).splitlines()[0]}") from None
    text_tokenizer = TextTokenizer.load(directory / "text_tokenizer.json")
    image_tokenizer = load_image_tokenizer(image_tokenizer_spec or image["spec"])
    for what, given, trained in (("text tokenizer", text_tokenizer.info.fingerprint, text["fingerprint"]),
                                 ("image tokenizer", image_tokenizer.info.fingerprint, image["fingerprint"])):
        if given != trained:
            raise UserError(f"{directory} was trained on another {what} ({trained[:12]}, not {given[:12]}); "
                            "its codes mean nothing here: give the one it was trained with")
    return Artist(model.eval(), text_tokenizer, image_tokenizer, hashlib.sha256(data).hexdigest())


# --- files -----------------------------------------------------------------------------------------------------------


def png(picture_HWC: np.ndarray, texts: dict[str, str]) -> bytes:
    """A PNG of uint8 [H, W, 3] with text chunks; those outside Latin-1 are written as iTXt."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def picture_grid(pictures_BHWC: np.ndarray) -> np.ndarray:
    """All pictures in a near-square, uint8 [rows * H, columns * W, 3]; places left over are white."""
    count, height, width, _ = pictures_BHWC.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.full((rows * columns, height, width, 3), 255, np.uint8)
    grid[:count] = pictures_BHWC
    return grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def generate(artist: Artist, prompt: str, count: int, seed: int, output: Path, sampling: Sampling = THE_PAPERS) -> None:
    """Draws `count` pictures into `output`. Raises UserError for a prompt without text."""
    tokens = artist.text_tokenizer.encode(prompt)
    if not prompt.strip() or not tokens:
        raise UserError("--prompt is empty: describe the picture in a few words")
    output.mkdir(parents=True, exist_ok=True)
    texts = {"prompt": prompt, "seed": str(seed), "sampling": json.dumps(sampling._asdict()),
             "model": artist.fingerprint, "image_tokenizer": artist.image_tokenizer.info.fingerprint,
             "text_tokenizer": artist.text_tokenizer.info.fingerprint, "software": "pairmill"}
    started, pictures = time.monotonic(), []
    for first in range(0, count, GROUP):
        seeds = [picture_seed(seed, index) for index in range(first, min(first + GROUP, count))]
        for index, codes_N in enumerate(draw(artist.model, tokens, seeds, sampling).numpy(), first):
            pictures.append(artist.image_tokenizer.decode(codes_N))
            write_whole(output / f"{index:04d}.png", png(pictures[-1], {**texts, "index": str(index)}))
        print(f"generate: {len(pictures)} of {count} pictures, {time.monotonic() - started:.1f} s", flush=True)
    write_whole(output / "grid.png", png(picture_grid(np.stack(pictures)), texts))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill generate", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="DIR", help="made by `pairmill train`")
    parser.add_argument("--prompt", required=True, metavar="TEXT")
    parser.add_argument("--count", type=int, default=4, metavar="N", help=f"1 to {MAX_COUNT} (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(default %(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--temperature", type=float, default=1.0, help="lower is safer, higher bolder (default 1)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest codes; 0: all")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P",
                        help="draw among the likeliest codes that have this share of the probability (default 1)")
    parser.add_argument("--image-tokenizer", metavar="SPEC", help="where it is now (default: where it was in training)")
    parser.add_argument("--threads", type=int, help="processor threads (default: all; 1 for a small model)")
    args = parser.parse_args(arguments)
    if not 1 <= args.count <= MAX_COUNT:
        raise UserError(f"--count {args.count}: give 1 to {MAX_COUNT}")
    if not (0 < args.temperature < math.inf and args.top_k >= 0 and 0 < args.top_p <= 1):
        raise UserError("--temperature is above 0, --top-k 0 or more, --top-p above 0 and at most 1")
    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads {args.threads}: give 1 or more")
    artist = load_artist(args.checkpoint, args.image_tokenizer)
    torch.set_num_threads(args.threads or (1 if block_parameters(artist.model) < SMALL else os.cpu_count()))
    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    try:
        generate(artist, args.prompt, args.count, args.seed, args.output, sampling)
    except OSError as error:
        raise UserError(f"--output {args.output}: {error.strerror}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
