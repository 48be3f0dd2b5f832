"""Images/s of encoding: the stage beside the bare model, and the bare model beside peers with the same weights.

    python -m benchmarks.encode [--pictures N] [--cores N] [--full]     on a processor; --full adds the published sizes
    python -m benchmarks.encode --device cuda [--batch-size N]          the published dVAE encoder on an accelerator

The stage is given images of `sample/` and the bundled tokenizer; the others ready tensors of 256 px and random
weights. Peers: openai/DALL-E, taming-transformers (`make peers` installs them). Each is given the layout and the batch
in which it is faster; what is alternated is run twice, and the better time counts. Ours is compiled (--compile) and
runs as in a job: a process for each core.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from benchmarks import peers
from models import pixels
from models.text_table import table
from models.tokenizers.dvae import DVAE, DVAEConfig
from models.tokenizers.image import ComputeOptions, ImageTokenizer, load_image_tokenizer
from models.tokenizers.vqgan import VQGAN, from_taming
from pipeline.images.fetched import FetchedImage
from pipeline.records import EncodedPair, Pair
from pipeline.tokenize_stage import EncodeConfig, PairEncoder, prepare

SAMPLE = Path(__file__).parent.parent / "sample" / "images"
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16, as the maker states


Result = TypeVar("Result")


class Rival(NamedTuple):
    """One network twice: ours and the peer's, with the same weights."""

    name: str
    ours: DVAE | VQGAN
    their_logits: Callable[[torch.Tensor], torch.Tensor]  # of images in 0..1


def read_sample(count: int) -> list[FetchedImage]:
    found = []
    for number, path in enumerate(sorted(SAMPLE.iterdir())[:count]):
        data = path.read_bytes()
        key = f"{number:032x}"
        caption = f"a picture of {path.stem}"
        pair = Pair(key, "cc3m", path.name, number, "", [], caption, caption, None, None, "", "", "train")
        found.append(FetchedImage(pair, data, pixels.decode_rgb(data), key * 2))
    return found


def seconds(function: Callable[[], Result]) -> tuple[float, Result]:
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


# --- the stage -------------------------------------------------------------------------------------------------------


def stage(count: int) -> None:
    config = EncodeConfig("bundled")  # one thread
    encoder = PairEncoder(config)
    tokenizer, images = load_image_tokenizer("bundled"), read_sample(count)
    views = [prepare(image, encoder.images.info.image_size, config).views[0] for image in images]
    tokenizer.encode(views[0])  # the first call plans the convolutions
    bare_s, stage_s = float("inf"), float("inf")
    for _ in range(2):
        took_s, codes = seconds(lambda: np.stack([tokenizer.encode(view) for view in views]))
        bare_s = min(bare_s, took_s)
        took_s, records = seconds(lambda: list(encoder.encode(images)))
        stage_s = min(stage_s, took_s)
    decode_s, _ = seconds(lambda: [pixels.decode_rgb(image.data) for image in images])
    equal = all(
        isinstance(record, EncodedPair) and record.codes == row.astype("<u2").tobytes()
        for record, row in zip(records, codes, strict=True)
    )
    rows = [
        ("bare model", len(views) / bare_s, 1.0, "the floor"),
        (
            "stage: crop, hash, codes, tokens",
            len(views) / stage_s,
            bare_s / stage_s,
            "the same codes" if equal else "OTHER CODES",
        ),
        ("decoding alone", len(views) / decode_s, bare_s / decode_s, ""),
    ]
    print(
        table(
            ["bundled, one core", "images/s", "of the floor", ""],
            [(name, round(rate, 2), round(ratio, 3), note) for name, rate, ratio, note in rows],
        )
    )


# --- beside peers ----------------------------------------------------------------------------------------------------


def openai_rival(hidden: int, vocabulary: int) -> Rival:
    encoder, _ = peers.openai()
    torch.manual_seed(0)
    ours = DVAE(DVAEConfig(hidden, vocabulary)).eval()
    theirs = encoder(n_hid=hidden, vocab_size=vocabulary, requires_grad=False, use_mixed_precision=False)
    state = ours.encoder.state_dict().items()
    theirs.load_state_dict({name.replace("weight", "w").replace("bias", "b"): value for name, value in state})
    return Rival(f"dVAE, width {hidden}, {vocabulary:,} codes", ours, lambda x: theirs(pixels.phi(x)))


def taming_rival(width: int) -> Rival:
    """GumbelVQ f8 with the published shape (width 128, 8,192 codes), at any width."""
    network = {
        "double_z": False,
        "z_channels": 2 * width,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": width,
        "ch_mult": [1, 1, 2, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [32],
        "dropout": 0.0,
    }
    nothing = {"target": "torch.nn.Identity"}
    params = {
        "embed_dim": 2 * width,
        "n_embed": 8192,
        "ddconfig": network,
        "lossconfig": nothing,
        "temperature_scheduler_config": nothing,
    }
    torch.manual_seed(0)
    theirs = peers.taming().GumbelVQ(**params).eval()
    ours = VQGAN(from_taming({"target": "GumbelVQ", "params": params}))
    ours.load_state_dict({name: value for name, value in theirs.state_dict().items() if name in ours.state_dict()})
    return Rival(
        f"VQGAN f8 Gumbel, width {width}, 8,192 codes",
        ours.eval(),
        lambda x: theirs.quantize.proj(theirs.encode_to_prequant(2 * x - 1)),
    )


def beside_peers(rivals: list[Callable[[], Rival]], count: int, cores: int) -> None:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((count, 3, 16, 16), np.float32))
    views = pixels.to_uint8(nn.functional.interpolate(coarse, size=(256, 256), mode="bicubic"))
    rows = []
    for make in rivals:
        try:
            rival = make()
        except ImportError as error:
            print(f"{error}: not compared (make peers)")
            continue
        with workers(make, "float32", cores) as exact, workers(make, "bfloat16", cores) as quick:
            best = dict.fromkeys(("theirs", "exact", "quick"), float("inf"))
            codes: dict[str, np.ndarray] = {}
            for _ in range(2):
                for name, run in (
                    ("theirs", partial(in_peers_way, rival, views, cores)),
                    ("exact", partial(in_our_way, exact, views)),
                    ("quick", partial(in_our_way, quick, views)),
                ):
                    took_s, codes[name] = seconds(run)
                    best[name] = min(best[name], took_s)
        rate = {name: count / took_s for name, took_s in best.items()}
        rows.append(
            (
                rival.name,
                round(rate["theirs"], 2),
                round(rate["exact"], 2),
                round(rate["exact"] / rate["theirs"], 2),
                f"{(codes['exact'] == codes['theirs']).mean():.4%}",
                round(rate["quick"], 2),
                round(rate["quick"] / rate["theirs"], 2),
                f"{(codes['quick'] != codes['exact']).mean():.2%}",
            )
        )
    print(
        table(
            [
                f"images/s, {cores} cores",
                "peer",
                "ours",
                "ratio",
                "codes equal",
                "ours, bfloat16",
                "ratio",
                "codes changed",
            ],
            rows,
        )
    )


@contextlib.contextmanager
def workers(make: Callable[[], Rival], precision: str, cores: int) -> Iterator[Pool]:
    """Processes that have compiled our model."""
    spawn = multiprocessing.get_context("spawn")
    compiled = spawn.Barrier(cores + 1)
    with spawn.Pool(cores, _start, (make, precision, compiled)) as pool:
        compiled.wait()
        yield pool
        pool.close()
        pool.join()


def _start(make: Callable[[], Rival], precision: str, compiled: Barrier) -> None:
    torch.set_num_threads(1)
    _worker.tokenizer = ImageTokenizer(make().ours, "", "", ComputeOptions(precision, compiled=True))
    _encode(np.zeros((256, 256, 3), np.uint8))
    compiled.wait()


def _encode(view_HWC: np.ndarray) -> np.ndarray:
    return _worker.tokenizer.encode(view_HWC)


_worker = SimpleNamespace()  # what a process has for itself


def in_our_way(pool: Pool, views: np.ndarray) -> np.ndarray:
    return np.stack(pool.map(_encode, views, chunksize=1))


@torch.inference_mode()
def in_peers_way(rival: Rival, views: np.ndarray, cores: int) -> np.ndarray:
    """One image at a time, with the cores inside: on a processor that is faster for them, too, than batches."""
    torch.set_num_threads(cores)
    x_BCHW = pixels.to_tensor(views).contiguous()
    return np.stack([rival.their_logits(x[None]).argmax(1).flatten().numpy() for x in x_BCHW])


# --- on an accelerator -----------------------------------------------------------------------------------------------


def on_accelerator(batch_size: int) -> None:
    """The published encoder in bfloat16, with the share of the card's peak."""
    torch.manual_seed(0)
    card = torch.cuda.get_device_name()
    tokenizer = ImageTokenizer(DVAE(DVAEConfig()), "", "", ComputeOptions("bfloat16", "cuda"))
    views = np.random.default_rng(0).integers(0, 256, (batch_size, 256, 256, 3), np.uint8)
    flops = encoder_flops(DVAEConfig())
    for _ in range(3):
        tokenizer.encode_batch(views, batch_size)
    torch.cuda.synchronize()
    took_s, _ = seconds(lambda: [tokenizer.encode_batch(views, batch_size) for _ in range(10)])
    rate = 10 * batch_size / took_s
    peak = next((value for name, value in PEAK_FLOPS.items() if name in card), None)
    share = f"{rate * flops / peak:.1%}" if peak else "unknown"
    print(
        table(
            [card, "images/s", "TFLOP an image", "of the peak"],
            [(f"dVAE as published, bfloat16, batch {batch_size}", round(rate, 1), round(flops / 1e12, 3), share)],
        )
    )


def encoder_flops(config: DVAEConfig) -> float:
    """Of one image: two for each multiplication of the convolutions."""
    total = 0

    def count(layer: nn.Conv2d, _, out: torch.Tensor) -> None:
        nonlocal total
        total += 2 * layer.weight[0].numel() * out.numel()

    with torch.device("meta"):
        model = DVAE(config).encoder
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        model(torch.empty(1, 3, config.image_size, config.image_size))
    return float(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=60, metavar="N")
    parser.add_argument("--cores", type=int, default=2, metavar="N")
    parser.add_argument("--full", action="store_true", help="the published sizes too; some minutes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="on an accelerator")
    args = parser.parse_args()
    if args.device == "cuda":
        on_accelerator(args.batch_size)
        return
    stage(args.pictures)
    beside_peers(
        [partial(openai_rival, 32, 1024), partial(taming_rival, 32)], max(args.cores, args.pictures // 5), args.cores
    )
    if args.full:
        beside_peers([partial(openai_rival, 256, 8192), partial(taming_rival, 128)], 2 * args.cores, args.cores)


if __name__ == "__main__":
    main()
