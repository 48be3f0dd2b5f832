"""What a dVAE makes of held-out images: numbers for the trainer's log, and a grid to look at."""

from __future__ import annotations

import math

import torch

from models import pixels
from models.image_files import image_grid, png
from models.tokenizers.dvae import DVAE, kl_to_uniform, logit_laplace_nll


@torch.no_grad()
def reconstruction_metrics(model: DVAE, x_BCHW: torch.Tensor) -> dict[str, float]:
    """Measures reconstructions of images, float [B, 3, H, W] in 0..1, from hard codes: PSNR in dB, the share of the
    vocabulary used, the perplexity of the codes, and the bound that training relaxes: reconstruction + KL to the prior,
    in nats by value of an image."""
    codes, errors, bounds = [], [], []
    for x in x_BCHW.split(4):
        logits = model.logits(x).float()
        hard = logits.argmax(dim=1)
        maps = model.decoder.from_codes(hard).float()
        image = pixels.phi_inverse(torch.sigmoid(maps[:, :3]))
        errors.append((image - x).square().mean(dim=(1, 2, 3)))
        bounds.append(
            logit_laplace_nll(pixels.phi(x), maps).mean(dim=(1, 2, 3))
            + kl_to_uniform(logits).sum(dim=(1, 2)) / x[0].numel()
        )
        codes.append(hard.flatten())
    frequency = torch.bincount(torch.cat(codes), minlength=model.config.vocabulary).float()
    frequency /= frequency.sum()
    entropy = -(frequency * torch.log(frequency.clamp_min(1e-12))).sum().item()
    return {
        "psnr_db": round((-10 * torch.log10(torch.cat(errors).clamp_min(1e-10))).mean().item(), 2),
        "bound": round(torch.cat(bounds).mean().item(), 4),
        "vocabulary_used": round((frequency > 0).float().mean().item(), 4),
        "perplexity": round(math.exp(entropy), 1),
    }


def reconstruction_grid(model: DVAE, x_BCHW: torch.Tensor) -> bytes:
    """A PNG with the images, float [B, 3, H, W] in 0..1, in the upper row and their reconstructions below."""
    with torch.no_grad():
        pairs = torch.cat([x_BCHW, model.decode(model.encode(x_BCHW))])
    return png(image_grid(pixels.to_uint8(pairs.cpu()), columns=len(x_BCHW)), {})
