"""How well an image tokenizer brings back images it was not trained on: PSNR, vocabulary used, perplexity.

    python -m benchmarks.reconstruction 'pictures/*.tar' [--tokenizer FILE] [--prefix NAME] [--pictures N]
    python -m benchmarks.reconstruction 'pictures/*.tar' --rival-minutes M    (needs `make peers`)

Of the tar files only the 5 % that `pairmill train-dvae` holds out count (by hash of the member's name), centre square.
Names decide: an image that was trained on under another name is not held out. `--prefix` narrows the names.

With --rival-minutes, DALLE-pytorch's DiscreteVAE is trained first, for so many minutes of processor time, on the same
views of the same images, with as many weights and codes, and with the settings of its own train_vae.py.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import peers
from models import pixels
from models.text_table import table
from models.tokenizers.dalle_pytorch_vae import DiscreteVAE, DiscreteVAEConfig
from models.tokenizers.dvae import DVAE, load_dvae
from models.tokenizers.image import BUNDLED_DVAE
from models.training.dvae_images import Member, batches, centre_view, list_images
from models.training.dvae_options import DVAETrainingConfig


@torch.no_grad()
def quality(model: DVAE | DiscreteVAE, x_BCHW: torch.Tensor) -> tuple[float, float, float]:
    """(PSNR in dB, share of the vocabulary used, perplexity of the codes), through hard codes."""
    codes = torch.cat([model.logits(x).argmax(1) for x in x_BCHW.split(4)])
    errors = torch.cat(
        [
            (model.decode(code).clamp(0, 1) - x).square().mean(dim=(1, 2, 3))
            for code, x in zip(codes.split(4), x_BCHW.split(4), strict=True)
        ]
    )
    frequency = torch.bincount(codes.flatten(), minlength=model.config.vocabulary).double()
    frequency /= frequency.sum()
    entropy = -(frequency * frequency.clamp_min(1e-12).log()).sum().item()
    psnr = (-10 * errors.clamp_min(1e-10).log10()).mean().item()
    return psnr, (frequency > 0).double().mean().item(), math.exp(entropy)


def weights_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def rival_config(weights: int, vocabulary: int) -> DiscreteVAEConfig:
    """The shape of train_vae.py (three halvings, two residual blocks), as wide as so many weights allow."""

    def config(width: int) -> DiscreteVAEConfig:
        return DiscreteVAEConfig(
            256, vocabulary, codebook_dim=2 * width, num_layers=3, num_resnet_blocks=2, hidden_dim=width
        )

    with torch.device("meta"):
        return min(map(config, range(8, 512, 4)), key=lambda each: abs(weights_of(DiscreteVAE(each)) - weights))


def train_rival(
    members: list[Member], config: DiscreteVAEConfig, minutes: float, training: DVAETrainingConfig
) -> DiscreteVAE:
    """Loss, learning rate and temperature as in DALLE-pytorch's train_vae.py. Returns our class with its weights."""
    torch.manual_seed(0)
    fields = {name: getattr(config, name) for name in DiscreteVAEConfig.__dataclass_fields__}
    theirs = peers.discrete_vae()(**fields)
    theirs.image_size = training.window  # it checks the size of what it is given, and nothing depends on it
    optimiser = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.98)
    temperature, begun = 1.0, time.process_time()
    for step, x_BCHW in enumerate(batches(members, training.batch_plan, 0)):
        passed_min = (time.process_time() - begun) / 60
        if passed_min >= minutes:
            break
        with torch.autocast("cpu", torch.bfloat16):
            loss = theirs(x_BCHW, return_loss=True, temp=temperature)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            temperature = max(temperature * math.exp(-1e-6 * step), 0.5)
            schedule.step()
            print(f"DiscreteVAE: step {step}, loss {loss.item():.4f}, {minutes - passed_min:.1f} min left", flush=True)
    model = DiscreteVAE(config).eval()
    model.load_state_dict(theirs.state_dict())
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", metavar="PATTERN")
    parser.add_argument("--tokenizer", type=Path, default=BUNDLED_DVAE, metavar="FILE")
    parser.add_argument("--prefix", action="append", metavar="NAME", help="repeatable; default: all names")
    parser.add_argument("--pictures", type=int, default=400, metavar="N", help="at most (default %(default)s)")
    parser.add_argument("--rival-minutes", type=float, metavar="M")
    args = parser.parse_args()
    training, held_out = list_images(args.images)
    prefixes = tuple(args.prefix or [""])
    chosen = [member for member in held_out if member.name.startswith(prefixes)][: args.pictures]
    x_BCHW = pixels.to_tensor(np.stack([view for view in map(centre_view, chosen) if view is not None]))
    ours = load_dvae(args.tokenizer)
    models: dict[str, DVAE | DiscreteVAE] = {args.tokenizer.name: ours}
    if args.rival_minutes:
        settings = DVAETrainingConfig(steps=10**6, batch_size=8, window=96)
        models["DALLE-pytorch's DiscreteVAE"] = train_rival(
            training, rival_config(weights_of(ours), ours.config.vocabulary), args.rival_minutes, settings
        )
    rows = []
    for name, model in models.items():
        psnr, used, perplexity = quality(model, x_BCHW)
        rows.append((name, f"{weights_of(model) / 1e6:.2f}", round(psnr, 2), f"{used:.1%}", round(perplexity, 1)))
    columns = [f"{len(x_BCHW)} images held out", "million weights", "PSNR, dB", "vocabulary used", "perplexity"]
    print(table(columns, rows))


if __name__ == "__main__":
    main()
