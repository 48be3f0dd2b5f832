"""Images/s of the encoding stage, beside the bare model and, if installed, OpenAI's own encoder with the same weights.

    python -m benchmarks.encode [--pictures N]

One core each, the bundled tokenizer, pictures of `sample/`. The floor is the bare model on tensors that are ready.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from models import pixels
from models.dvae import load_dvae
from models.image_tokenizers import BUNDLED, load_image_tokenizer
from models.text_tokenizer import BUNDLED as BUNDLED_TEXT
from pipeline.fetch import Fetched
from pipeline.records import Pair
from pipeline.stats import table
from pipeline.tokenize_stage import EncodeConfig, Encoder

SAMPLE = Path(__file__).parent.parent / "sample" / "images"


def read_sample(count: int) -> list[Fetched]:
    found = []
    for number, path in enumerate(sorted(SAMPLE.iterdir())[:count]):
        data = path.read_bytes()
        key = f"{number:032x}"
        caption = f"a picture of {path.stem}"
        pair = Pair(key, "cc3m", path.name, number, "", [], caption, caption, None, None, "", "", "train")
        found.append(Fetched(pair, data, pixels.decode_rgb(data), key * 2))
    return found


def seconds(function) -> tuple[float, object]:
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def openai_encoder():
    """The `dall-e` package's class with the bundled weights; None if it is not installed."""
    try:
        from dall_e.encoder import Encoder as Peer
    except ImportError:
        return None
    ours = load_dvae(BUNDLED)
    peer = Peer(n_hid=ours.config.hidden, vocab_size=ours.config.vocabulary, requires_grad=False,
                use_mixed_precision=False)
    state = ours.encoder.state_dict().items()
    peer.load_state_dict({name.replace("weight", "w").replace("bias", "b"): value for name, value in state})
    return peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=60, metavar="N")
    args = parser.parse_args()
    encoder = Encoder(EncodeConfig("bundled", str(BUNDLED_TEXT)))  # one thread
    tokenizer, pictures = load_image_tokenizer("bundled"), read_sample(args.pictures)
    views = [encoder.prepare(picture).views[0] for picture in pictures]
    tokenizer.encode(views[0])  # the first call plans the convolutions

    bare_s, codes = seconds(lambda: np.stack([tokenizer.encode(view) for view in views]))
    stage_s, records = seconds(lambda: list(encoder.encode(pictures)))
    decode_s, _ = seconds(lambda: [pixels.decode_rgb(picture.data) for picture in pictures])
    equal = all(record.codes == row.astype("<u2").tobytes() for record, row in zip(records, codes, strict=True))
    rows = [("bare model", len(views) / bare_s, 1.0, "the floor"),
            ("stage: crop, hash, codes, tokens", len(views) / stage_s, bare_s / stage_s,
             "the same codes" if equal else "OTHER CODES"),
            ("decoding alone", len(views) / decode_s, bare_s / decode_s, "")]
    if (peer := openai_encoder()) is not None:
        with torch.inference_mode():
            x_BCHW = [pixels.phi(pixels.to_tensor(view[None]).contiguous()) for view in views]
            peer(x_BCHW[0])
            peer_s, peer_codes = seconds(lambda: np.stack([peer(x).argmax(1).flatten().numpy() for x in x_BCHW]))
        rows.append(("dall-e package, same weights", len(views) / peer_s, bare_s / peer_s,
                     f"{(peer_codes == codes).mean():.4%} of codes equal"))
    print(table(["one core", "images/s", "of the floor", ""],
                [(name, round(rate, 2), round(ratio, 3), note) for name, rate, ratio, note in rows]))


if __name__ == "__main__":
    main()
