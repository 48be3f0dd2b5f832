"""Training: tokens/s, memory and the share of the hardware's peak, beside dalle-pytorch's DALLE of the same size if it
is installed.

    python -m benchmarks.train [--batch-size B] [--steps N] [--peer-steps N] [--rounds N] [--threads N]
    python -m benchmarks.train --size 300m --size 1b --batch-size 16 --compile      (on a GPU: ours alone)

The same sequences (256 text positions, 1,024 codes), widths, depths, heads, vocabularies and kinds of attention. Ours
and the peer take turns, each time in a process of its own, whose largest size is its memory (on a GPU, what torch took
of the GPU's); the best of N updates counts, so that other work on the machine does as little as it can. A token is a
text position or a code, 1,280 a pair. The share of the peak counts the operations that the masks ask for.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch

from benchmarks import peers
from models.data.batch import NO_TOKEN
from models.device import AUTO, device_of
from models.text_table import table
from models.training.options import default_precision
from models.training.peak_flops import peak_flops
from models.training.train import autocast, make_optimiser
from models.transformer.model import SIZES, Transformer, TransformerConfig, training_flops

VOCABULARIES = (16384, 8192)  # the paper's
CAPTION_TOKENS = 16
CONFIGS = {
    "3m": TransformerConfig(*SIZES["3m"], *VOCABULARIES),
    "width 256, depth 6": TransformerConfig(6, 4, 256, *VOCABULARIES),
}
PEER_KINDS = {"row": "axial_row", "column": "axial_col", "convolution": "conv_like"}


class Setting(NamedTuple):
    config: TransformerConfig
    precision: str
    batch_size: int
    threads: int
    compiled: bool = False
    recompute: bool = False

    @property
    def tokens(self) -> int:
        return self.batch_size * (self.config.text_length + self.config.codes)


class Measured(NamedTuple):
    tokens_s: float
    gigabytes: float
    flops: float = 0.0  # operations a second
    peak: float = 0.0  # and those that the hardware could do

    def better(self, other: Measured | None) -> Measured:
        if other is None:
            return self
        return Measured(
            max(self.tokens_s, other.tokens_s),
            min(self.gigabytes, other.gigabytes),
            max(self.flops, other.flops),
            max(self.peak, other.peak),
        )


def make_batch(config: TransformerConfig, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    text_BT = torch.full((batch_size, config.text_length), NO_TOKEN)
    text_BT[:, :CAPTION_TOKENS] = torch.randint(
        1, config.text_vocabulary, (batch_size, CAPTION_TOKENS), generator=generator
    )
    return text_BT, torch.randint(0, config.image_vocabulary, (batch_size, config.codes), generator=generator)


def fastest_update_s(
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: Callable[[], torch.Tensor],
    precision: str,
    steps: int,
) -> float:
    times_s, device = [], device_of(AUTO)
    for _ in range(steps + 1):  # the first one warms up
        started = time.perf_counter()
        with autocast(precision, device):
            value = loss()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 4.0)
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()
        times_s.append(time.perf_counter() - started)
    return min(times_s[1:])


def gigabytes() -> float:
    """The most that this process has taken."""
    if device_of(AUTO) == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure_ours(setting: Setting, steps: int) -> Measured:
    torch.set_num_threads(setting.threads)
    device = torch.device(device_of(AUTO))
    model = Transformer(setting.config).to(device)
    model.recompute = setting.recompute
    flops = training_flops(model) * setting.batch_size
    optimiser = make_optimiser(model, 1e-3)
    if setting.compiled:
        model.compile()
    text_BT, codes_BN = (tensor.to(device) for tensor in make_batch(setting.config, setting.batch_size))
    update_s = fastest_update_s(
        model, optimiser, lambda: model(text_BT, codes_BN).losses().total, setting.precision, steps
    )
    taken = gigabytes()
    return Measured(setting.tokens / update_s, taken, flops / update_s, peak_flops(device, setting.precision))


def make_peer(config: TransformerConfig) -> Any:
    """dalle-pytorch's model of the same size. Raises ImportError where that is not installed."""
    DALLE, DiscreteVAE = peers.dalle()
    vae = DiscreteVAE(image_size=8 * config.grid, num_layers=3, num_tokens=config.image_vocabulary, hidden_dim=8)
    return DALLE(
        dim=config.width,
        vae=vae,
        num_text_tokens=config.text_vocabulary,
        text_seq_len=config.text_length,
        depth=config.layers,
        heads=config.heads,
        dim_head=config.width // config.heads,
        attn_types=[PEER_KINDS[kind] for kind in config.kinds],
    )


def measure_peer(setting: Setting, steps: int) -> Measured:
    torch.set_num_threads(setting.threads)
    model = make_peer(setting.config)
    text_BT, codes_BN = make_batch(setting.config, setting.batch_size)
    text_BT = text_BT.clamp(min=0)  # its padding is 0
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    update_s = fastest_update_s(
        model,
        torch.optim.AdamW(parameters),
        lambda: model(text_BT, codes_BN, return_loss=True),
        setting.precision,
        steps,
    )
    return Measured(setting.tokens / update_s, gigabytes())


def apart(measure: Callable[[Setting, int], Measured], setting: Setting, steps: int) -> Measured:
    """In a process of its own; the peer's without the huge pages for which importing our models asks."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = "0" if measure is measure_peer else "1"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, setting, steps).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peer-steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--size", action="append", choices=SIZES, help="instead of the small ones (repeatable)")
    parser.add_argument("--compile", action="store_true", help="ours, by torch.compile")
    parser.add_argument("--recompute", action="store_true", help="ours, without keeping activations")
    args = parser.parse_args()
    configs = {name: TransformerConfig.named(name, *VOCABULARIES) for name in args.size} if args.size else CONFIGS
    rows, missing, with_peer = [], "", device_of(AUTO) == "cpu"
    for name, config in configs.items():
        for precision in sorted({"float32", default_precision(device_of(AUTO))}, reverse=True):
            setting = Setting(config, precision, args.batch_size, args.threads, args.compile, args.recompute)
            ours: Measured | None = None
            theirs: Measured | None = None
            for _ in range(args.rounds):
                ours = apart(measure_ours, setting, args.steps).better(ours)
                try:
                    theirs = apart(measure_peer, setting, args.peer_steps).better(theirs) if with_peer else None
                except ImportError as error:
                    with_peer = False
                    missing = f"dalle-pytorch is not installed ({error}); `make peers` installs it"
            assert ours, "--rounds is at least 1"
            beside = (
                [round(theirs.tokens_s), f"{theirs.gigabytes:.2f}", f"{ours.tokens_s / theirs.tokens_s:.1f} x"]
                if theirs
                else ["", "", ""]
            )
            share, taken = f"{ours.flops / ours.peak:.0%}", f"{ours.gigabytes:.2f}"
            rows.append((name, precision, round(ours.tokens_s), share, taken, *beside))
            print(*rows[-1], flush=True)
    print(table(["size", "precision", "tokens/s", "of peak", "GB", "dalle-pytorch, tokens/s", "GB", "ratio"], rows))
    if missing:
        print(missing)


if __name__ == "__main__":
    main()
