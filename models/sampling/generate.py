"""Draws pictures from text: `pairmill generate --checkpoint DIR --prompt TEXT --count 4 --seed 0 --output DIR`.

Picture i of a seed is the same drawn alone or among others: its random numbers are its own, and pictures go through
the model in groups of one fixed size. DIR receives 0000.png, 0001.png, ... with prompt, seed and fingerprints in their
text chunks, and grid.png with all of them. `--complete FILE` goes on from the upper part of a picture; `--rank N` keeps
the best by an image-text model, as the paper does (section 2.6).

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
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import SafetensorError
from safetensors.torch import load

from models.errors import UserError, write_whole
from models.pixels import CropBox, PictureError, apply_crop, decode_rgb
from models.sampling.reranking import Ranking, load_ranker
from models.tokenizers.image import ImageTokenizer, load_image_tokenizer
from models.tokenizers.text import TextTokenizer
from models.transformer.model import NO_TOKEN, Transformer, TransformerConfig, block_parameters, drawing_weights

BUNDLED = Path(__file__).parent.parent / "bundled" / "transformer"
GROUP = 4  # pictures drawn together, always: a product's last bits may depend on the number of its rows
MAX_COUNT = 1024  # the paper draws 512
SMALL = 10_000_000  # parameters: below, a product is done before a second thread has woken up


class Sampling(NamedTuple):
    """How a code is chosen from its logits; the paper draws at temperature 1 from all (section 2.6)."""

    temperature: float = 1.0
    top_k: int = 0  # the most likely codes to choose among; 0 for all
    top_p: float = 1.0  # the share of the probability to choose among
    guidance: float = 1.0  # logits = without caption + guidance * (with - without); 1 never looks at those without


THE_PAPERS = Sampling()


class Order(NamedTuple):
    """One picture to draw."""

    tokens: Sequence[int]  # of the caption; cut to what the model reads
    seed: int
    sampling: Sampling = THE_PAPERS
    given: Sequence[int] = ()  # codes that it begins with, row by row


class Artist(NamedTuple):
    """A checkpoint, ready to draw."""

    model: Transformer
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer
    fingerprint: str  # SHA-256 of the weights
    knows_blank: bool = False  # was it trained with blank captions, so that guidance means something?


# --- drawing ---------------------------------------------------------------------------------------------------------


def picture_seed(seed: int, index: int) -> int:
    """The seed, 63 bits, of one of the pictures that a command draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8], "big") >> 1


def draw(model: Transformer, orders: Sequence[Order]) -> torch.Tensor:
    """Each order's codes, int64 [B, N]. All with guidance or all without."""
    groups = (orders[first : first + GROUP] for first in range(0, len(orders), GROUP))
    return torch.cat([deque(draw_steps(model, group), maxlen=1).pop() for group in groups])


@torch.inference_mode()
def draw_steps(model: Transformer, orders: Sequence[Order]) -> Iterator[torch.Tensor]:
    """The codes so far, int64 [B, 1], [B, 2], ... [B, N], one code at a time. At most GROUP orders, all with guidance
    or all without. Products always have a group's rows, since their last bits may depend on the rows' number."""
    guided = orders[0].sampling.guidance != 1
    if len(orders) > GROUP or any((order.sampling.guidance != 1) != guided for order in orders):
        raise ValueError(f"a group is at most {GROUP} pictures, all with guidance or all without")
    count, config, device = len(orders), model.config, model.start.weight.device
    drawn = 2 * count if guided else count  # rows that are looked at; products have those of a whole group
    size = 2 * GROUP if guided else GROUP
    text_BT = torch.stack([_text(order.tokens, config.text_length) for order in orders])
    if guided:
        text_BT = torch.cat([text_BT, torch.full_like(text_BT, NO_TOKEN)])
    text_BT = F.pad(text_BT, (0, 0, 0, size - drawn), value=NO_TOKEN)
    chances_BN = torch.stack(
        [torch.rand(config.codes, generator=torch.Generator().manual_seed(order.seed)) for order in orders]
    ).to(device)
    given_BN = torch.stack([_padded(order.given, config.codes, NO_TOKEN) for order in orders]).to(device)
    knobs = Knobs.of([order.sampling for order in orders], config.image_vocabulary, device)
    caches, logits_BV = model.start_drawing(text_BT.to(device), drawn)
    codes_BN = torch.empty_like(given_BN)
    for place in range(config.codes):
        if place:
            codes_B = codes_BN[:, place - 1]
            codes_B = F.pad(codes_B.repeat(2) if guided else codes_B, (0, size - drawn))
            logits_BV = model.draw_next(codes_B, place - 1, caches)
        wanted_BV = logits_BV[:count]
        if guided:
            without_BV = logits_BV[count:drawn]
            wanted_BV = without_BV + knobs.guidance_B1 * (wanted_BV - without_BV)
        chosen_B = choose(wanted_BV, chances_BN[:, place], knobs)
        codes_BN[:, place] = torch.where(given_BN[:, place] >= 0, given_BN[:, place], chosen_B)
        yield codes_BN[:, : place + 1]


def _text(tokens: Sequence[int], length: int) -> torch.Tensor:
    return _padded(tokens[:length], length, NO_TOKEN)


def _padded(values: Sequence[int], length: int, filler: int) -> torch.Tensor:
    padded = torch.full((length,), filler)
    padded[: len(values)] = torch.as_tensor(values, dtype=torch.int64)
    return padded


class Knobs(NamedTuple):
    """The Samplings of a group, one row a picture: [B, 1] each."""

    temperature_B1: torch.Tensor
    top_k_B1: torch.Tensor
    top_p_B1: torch.Tensor
    guidance_B1: torch.Tensor
    limited: bool  # does any of them limit the choice?

    @classmethod
    def of(cls, samplings: Sequence[Sampling], vocabulary: int, device: torch.device | str = "cpu") -> Knobs:
        temperature, top_p = (
            torch.tensor([[getattr(sampling, name)] for sampling in samplings], dtype=torch.float64)
            for name in ("temperature", "top_p")
        )
        top_k = torch.tensor([[min(sampling.top_k, vocabulary) or vocabulary] for sampling in samplings])
        guidance = torch.tensor([[sampling.guidance] for sampling in samplings], dtype=torch.float32)
        limited = any(sampling.top_k or sampling.top_p < 1 for sampling in samplings)
        return cls(*(knob.to(device) for knob in (temperature, top_k, top_p, guidance)), limited)


def choose(logits_BV: torch.Tensor, chances_B: torch.Tensor, knobs: Knobs) -> torch.Tensor:
    """A code for each row, int64 [B]: where the running sum of the probabilities passes a number from [0, 1). Summed
    in the codes' own order, since in the order of likelihood a last bit could swap two codes and change a picture."""
    logits_BV = logits_BV.double()
    logits_BV = (logits_BV - logits_BV.amax(dim=1, keepdim=True)) / knobs.temperature_B1
    probabilities_BV = logits_BV.softmax(dim=1)
    if knobs.limited:
        probabilities_BV = probabilities_BV.masked_fill(probabilities_BV < _least_kept(probabilities_BV, knobs), 0)
    sums_BV = probabilities_BV.cumsum(dim=1)
    goal_B1 = chances_B[:, None].double() * sums_BV[:, -1:]
    return torch.searchsorted(sums_BV, goal_B1, right=True)[:, 0]


def _least_kept(probabilities_BV: torch.Tensor, knobs: Knobs) -> torch.Tensor:
    """The probability [B, 1] of the least likely code that top-k, and then top-p among those, leave."""
    vocabulary = probabilities_BV.shape[1]
    likeliest_BV = probabilities_BV.sort(dim=1, descending=True).values
    within_k_BV = torch.arange(vocabulary, device=likeliest_BV.device) < knobs.top_k_B1
    sums_BV = (likeliest_BV * within_k_BV).cumsum(dim=1)
    # top-p keeps the codes up to and with the one whose sum reaches that share
    before_B1 = (sums_BV < knobs.top_p_B1 * sums_BV[:, -1:]).sum(dim=1, keepdim=True)
    least_B1 = likeliest_BV.gather(1, torch.minimum(before_B1, knobs.top_k_B1 - 1))
    unlimited_B1 = (knobs.top_k_B1 == vocabulary) & (knobs.top_p_B1 == 1)  # not even by rounding
    return least_B1.masked_fill(unlimited_B1, 0)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def load_model(directory: Path, averaged: bool = False) -> tuple[Transformer, str]:
    """The model of a checkpoint, without its head for text, and the SHA-256 of the weights' file. Raises UserError for
    a folder that is none."""
    described = read_config(directory)
    try:
        data = (directory / ("averaged.safetensors" if averaged else "model.safetensors")).read_bytes()
        model = Transformer(TransformerConfig(**described["model"]))
        model.text_head = None
        model.load_state_dict(drawing_weights(load(data)))
    except FileNotFoundError as error:
        raise _missing(error) from None
    except RuntimeError:  # torch's words for it are a page
        raise UserError(
            f"{directory} is not a checkpoint that can be read: its weights are not of the sizes in "
            "config.json; copy all of the folder again"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, SafetensorError) as error:
        raise _unreadable(directory, error) from None
    return model.eval(), hashlib.sha256(data).hexdigest()


def read_config(directory: Path) -> dict:
    """`config.json` of a checkpoint. Raises UserError."""
    try:
        described = json.loads((directory / "config.json").read_bytes())
        described["model"], described["training"]["blank_captions"], described["text_tokenizer"]["fingerprint"]
        described["image_tokenizer"]["spec"], described["image_tokenizer"]["fingerprint"]
    except FileNotFoundError as error:
        raise _missing(error) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(directory, error) from None
    return described


def _missing(error: FileNotFoundError) -> UserError:
    return UserError(f"{error.filename} does not exist: --checkpoint names a folder made by `pairmill train`")


def _unreadable(directory: Path, error: Exception) -> UserError:
    return UserError(f"{directory} is not a checkpoint that can be read: {str(error).splitlines()[0]}")


def load_artist(directory: Path, image_tokenizer_spec: str | None = None, averaged: bool = False) -> Artist:
    """Reads what `pairmill train` wrote. Raises UserError for a folder that is none, and for other tokenizers."""
    model, fingerprint = load_model(directory, averaged)
    described = read_config(directory)
    image, text = described["image_tokenizer"], described["text_tokenizer"]
    text_tokenizer = TextTokenizer.load(directory / "text_tokenizer.json")
    image_tokenizer = load_image_tokenizer(image_tokenizer_spec or image["spec"])
    for what, given, trained in (
        ("text tokenizer", text_tokenizer.info.fingerprint, text["fingerprint"]),
        ("image tokenizer", image_tokenizer.info.fingerprint, image["fingerprint"]),
    ):
        if given != trained:
            raise UserError(
                f"{directory} was trained on another {what} ({trained[:12]}, not {given[:12]}); "
                "its codes mean nothing here: give the one it was trained with"
            )
    knows_blank = described["training"]["blank_captions"] > 0
    return Artist(model, text_tokenizer, image_tokenizer, fingerprint, knows_blank)


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


class Task(NamedTuple):
    """What one command, or one request, wants drawn."""

    prompt: str
    count: int
    seed: int
    sampling: Sampling = THE_PAPERS
    given: Sequence[int] = ()  # codes that every picture begins with


def orders(artist: Artist, task: Task) -> list[Order]:
    """One for each picture. Raises UserError for a prompt without text."""
    tokens = artist.text_tokenizer.encode(task.prompt) if task.prompt.strip() else []
    if not tokens:
        raise UserError("--prompt is empty: describe the picture in a few words")
    return [Order(tokens, picture_seed(task.seed, index), task.sampling, task.given) for index in range(task.count)]


def picture_texts(artist: Artist, task: Task) -> dict[str, str]:
    """What a picture's file says of its making; with its `index` that is enough to draw it again."""
    return {
        "prompt": task.prompt,
        "seed": str(task.seed),
        "sampling": json.dumps(task.sampling._asdict()),
        "given_codes": str(len(task.given)),
        "model": artist.fingerprint,
        "image_tokenizer": artist.image_tokenizer.info.fingerprint,
        "text_tokenizer": artist.text_tokenizer.info.fingerprint,
        "software": "pairmill",
    }


def generate(artist: Artist, task: Task, output: Path, ranking: Ranking | None = None) -> None:
    """Draws the task's pictures into `output`; with a ranking only the best of them, best first."""
    texts, started, pictures = picture_texts(artist, task), time.monotonic(), []
    todo = orders(artist, task)
    output.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(todo), GROUP):
        for codes_N in draw(artist.model, todo[first : first + GROUP]).cpu().numpy():
            pictures.append(artist.image_tokenizer.decode(codes_N))
            if not ranking:
                index = len(pictures) - 1
                write_whole(output / f"{index:04d}.png", png(pictures[-1], {**texts, "index": str(index)}))
        print(f"generate: {len(pictures)} of {len(todo)} pictures, {time.monotonic() - started:.1f} s", flush=True)
    if ranking:
        scores = ranking.ranker.scores(task.prompt, pictures)
        best = sorted(range(len(pictures)), key=lambda index: -scores[index])[: ranking.keep]
        for place, index in enumerate(best):
            score = {"index": str(index), "score": f"{scores[index]:.4f}"}
            write_whole(output / f"{place:04d}.png", png(pictures[index], {**texts, **score}))
        pictures = [pictures[index] for index in best]
    write_whole(output / "grid.png", png(picture_grid(np.stack(pictures)), texts))


def first_rows(artist: Artist, path: Path, rows: int) -> list[int]:
    """The codes of a picture's upper part: `rows` rows of them. Raises UserError for a file that is no picture."""
    info = artist.image_tokenizer.info
    if not 1 <= rows < info.grid:
        raise UserError(f"--rows {rows}: give 1 to {info.grid - 1} of the picture's {info.grid} rows of codes")
    try:
        rgb_HWC = decode_rgb(path.read_bytes())
    except OSError as error:
        raise UserError(f"--complete {path}: {error.strerror}") from None
    except PictureError as error:
        raise UserError(f"--complete {path} is no picture that can be read: {error}") from None
    height, width, _ = rgb_HWC.shape
    side = min(height, width)
    middle = CropBox((width - side) // 2, (height - side) // 2, side, info.image_size, 0, 0)
    return artist.image_tokenizer.encode(apply_crop(rgb_HWC, middle, info.image_size))[: rows * info.grid].tolist()


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--temperature", type=float, default=1.0, help="lower is safer, higher bolder (default 1)")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest codes; 0: all")
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw among the likeliest codes that have this share of the probability (default 1)",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        metavar="G",
        help="above 1: follow the caption more closely, at twice the time; for a model that was "
        "trained with --blank-captions (default 1)",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--checkpoint",
        default="bundled",
        metavar="DIR",
        help="made by `pairmill train` (default: `bundled`, the small one in the package)",
    )
    model.add_argument("--image-tokenizer", metavar="SPEC", help="where it is now (default: where it was in training)")
    model.add_argument("--averaged", action="store_true", help="draw with the averaged weights, for long trainings")
    model.add_argument("--device", default=default_device(), help="cpu, cuda, cuda:1, ... (here: %(default)s)")
    model.add_argument("--threads", type=int, help="processor threads (default: all; 1 for a small model)")


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def find_checkpoint(name: str) -> Path:
    """The folder of a --checkpoint. Raises UserError for `bundled` in a package without one."""
    if name != "bundled":
        return Path(name)
    if not BUNDLED.is_dir():
        raise UserError(
            "--checkpoint DIR is missing: give a folder made by `pairmill train` (`make demo` leaves a "
            "small one in demo/model); none is in this package"
        )
    return BUNDLED


def load_for(args: argparse.Namespace) -> Artist:
    """The artist of a command's add_model_arguments()."""
    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads {args.threads}: give 1 or more")
    artist = load_artist(find_checkpoint(args.checkpoint), args.image_tokenizer, args.averaged)
    try:
        artist.model.to(args.device)
    except (RuntimeError, AssertionError) as error:  # torch's way to say that it was built without this device
        raise UserError(f"--device {args.device}: {str(error).splitlines()[0]}") from None
    torch.set_num_threads(args.threads or (1 if block_parameters(artist.model) < SMALL else os.cpu_count()))
    return artist


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pairmill generate", description=__doc__.split("\n")[0])
    parser.add_argument("--prompt", required=True, metavar="TEXT")
    parser.add_argument("--count", type=int, default=4, metavar="N", help=f"1 to {MAX_COUNT} (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(default %(default)s)")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    add_sampling_arguments(parser)
    parser.add_argument("--complete", type=Path, metavar="FILE", help="go on from the upper part of this picture")
    parser.add_argument("--rows", type=int, metavar="R", help="rows of codes to keep of it (default: half)")
    parser.add_argument("--rank", type=int, metavar="N", help="keep the N pictures that fit the prompt best")
    parser.add_argument("--rank-model", type=Path, metavar="DIR", help="an open_clip model's folder, for --rank")
    add_model_arguments(parser)
    args = parser.parse_args(arguments)
    if not 1 <= args.count <= MAX_COUNT:
        raise UserError(f"--count {args.count}: give 1 to {MAX_COUNT}")
    if not (
        0 < args.temperature < math.inf and args.top_k >= 0 and 0 < args.top_p <= 1 and 0 <= args.guidance < math.inf
    ):
        raise UserError(
            "--temperature is above 0, --top-k 0 or more, --top-p above 0 and at most 1, --guidance 0 or more"
        )
    if (args.rank is None) != (args.rank_model is None) or (args.rank is not None and not 1 <= args.rank <= args.count):
        raise UserError("--rank N, from 1 to --count, goes with --rank-model DIR, a folder with an open_clip model")
    if args.rows is not None and not args.complete:
        raise UserError("--rows goes with --complete FILE")
    artist = load_for(args)
    if args.guidance != 1 and not artist.knows_blank:
        print(f"generate: {args.checkpoint} was trained without --blank-captions: --guidance says little", flush=True)
    ranking = Ranking(load_ranker(args.rank_model), args.rank) if args.rank else None
    rows = artist.image_tokenizer.info.grid // 2 if args.rows is None else args.rows
    given = first_rows(artist, args.complete, rows) if args.complete else ()
    sampling = Sampling(args.temperature, args.top_k, args.top_p, args.guidance)
    try:
        generate(artist, Task(args.prompt, args.count, args.seed, sampling, given), args.output, ranking)
    except OSError as error:
        raise UserError(f"--output {args.output}: {error.strerror}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
