"""Training tokens/s and seconds a picture, beside dalle-pytorch's DALLE of the same size if it is installed.

    python -m benchmarks.train [--batch-size B] [--steps N] [--threads N] [--peer-steps N]

The same sequences (256 text positions, 1,024 codes), widths, depths, heads, vocabularies and kinds of attention; the
best of N updates each, so that other work on the machine counts as little as it can. A token is a text position or a
code, 1,280 a pair.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch

from models.generate import GROUP, Order, draw
from models.train import autocast, default_precision, make_optimiser
from models.transformer import NO_TOKEN, SIZES, Transformer, TransformerConfig
from pipeline.table import table

VOCABULARIES = (16384, 8192)  # the paper's
CAPTION_TOKENS = 16
CONFIGS = {
    "3m": TransformerConfig(*SIZES["3m"], *VOCABULARIES),
    "width 256, depth 6": TransformerConfig(6, 4, 256, *VOCABULARIES),
}
PEER_KINDS = {"row": "axial_row", "column": "axial_col", "convolution": "conv_like"}


def make_batch(config: TransformerConfig, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    text_BT = torch.full((batch_size, config.text_length), NO_TOKEN)
    text_BT[:, :CAPTION_TOKENS] = torch.randint(1, config.text_vocabulary, (batch_size, CAPTION_TOKENS),
                                                generator=generator)
    return text_BT, torch.randint(0, config.image_vocabulary, (batch_size, config.codes), generator=generator)


def tokens_per_second(model: torch.nn.Module, optimiser: torch.optim.Optimizer, loss: Callable[[], torch.Tensor],
                      precision: str, tokens: int, steps: int) -> float:
    times_s = []
    for _ in range(steps + 1):  # the first one warms up
        started = time.perf_counter()
        with autocast(precision):
            value = loss()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 4.0)
        optimiser.step()
        times_s.append(time.perf_counter() - started)
    return tokens / min(times_s[1:])


def measure_ours(config: TransformerConfig, batch_size: int, steps: int, precision: str) -> float:
    model = Transformer(config)
    text_BT, codes_BN = make_batch(config, batch_size)
    tokens = batch_size * (config.text_length + config.codes)
    return tokens_per_second(model, make_optimiser(model, 1e-3), lambda: model.loss(text_BT, codes_BN).total,
                             precision, tokens, steps)


def make_peer(config: TransformerConfig) -> torch.nn.Module:
    """dalle-pytorch's model of the same size. Raises ImportError where that is not installed."""
    from dalle_pytorch import DALLE, DiscreteVAE

    vae = DiscreteVAE(image_size=8 * config.grid, num_layers=3, num_tokens=config.image_vocabulary, hidden_dim=8)
    return DALLE(dim=config.width, vae=vae, num_text_tokens=config.text_vocabulary, text_seq_len=config.text_length,
                 depth=config.layers, heads=config.heads, dim_head=config.width // config.heads,
                 attn_types=[PEER_KINDS[kind] for kind in config.kinds])


def measure_peer(config: TransformerConfig, batch_size: int, steps: int, precision: str) -> float:
    model = make_peer(config)
    text_BT, codes_BN = make_batch(config, batch_size)
    text_BT = text_BT.clamp(min=0)  # its padding is 0
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return tokens_per_second(model, torch.optim.AdamW(parameters), lambda: model(text_BT, codes_BN, return_loss=True),
                             precision, batch_size * (config.text_length + config.codes), steps)


def seconds_per_picture(config: TransformerConfig) -> float:
    """A full group of pictures, one thread."""
    model = Transformer(config).eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.perf_counter()
    draw(model, [Order([1, 2, 3], seed) for seed in range(GROUP)])
    torch.set_num_threads(threads)
    return (time.perf_counter() - started) / GROUP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peer-steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    precisions = sorted({"float32", default_precision()}, reverse=True)
    rows = [("pairmill", name, precision, round(measure_ours(config, args.batch_size, args.steps, precision)),
             round(seconds_per_picture(config), 2) if precision == "float32" else "")
            for name, config in CONFIGS.items() for precision in precisions]
    try:
        rows += [("dalle-pytorch", name, precision,
                  round(measure_peer(config, args.batch_size, args.peer_steps, precision)), "")
                 for name, config in CONFIGS.items() for precision in precisions]
        missing = ""
    except ImportError as error:
        missing = f"dalle-pytorch is not installed ({error}); beside it, run: pip install dalle-pytorch"
    print(table(["model", "size", "precision", "tokens/s", "s/picture"], rows))
    if missing:
        print(missing)


if __name__ == "__main__":
    main()
