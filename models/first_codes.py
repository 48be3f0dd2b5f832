"""A start for the dVAE's codes: learn to see without codes first, then cut what was learnt into codes by k-means.

The paper begins with random codes and needs millions of updates until most of them are in use; in a run of some
thousand most stay dead. Here the first updates train encoder and decoder around a narrow continuous latent. Then the
centres of a k-means over latents become the codes: the encoder's last layer gives each centre's negative squared
distance, the decoder's first layer gives the centre, so that from there on the model is the paper's dVAE, with all
codes in use.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models import pixels
from models.dvae import DVAE, Conv, logit_laplace_nll

LATENT = 16  # channels: so few that a thousand centres can cover what they say
ROUNDS = 12  # of k-means
SHARPNESS = 3.0  # nats that the mean distance of a latent to its own centre takes off its logit


class ContinuousLatent(nn.Module):
    """What stands between encoder and decoder as long as there are no codes."""

    def __init__(self, model: DVAE):
        super().__init__()
        self.narrow = Conv(model.encoder.blocks.output.conv.in_channels, LATENT, 1)
        self.widen = Conv(LATENT, model.config.decoder_input, 1)

    def latents(self, model: DVAE, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pictures in 0..1 to [B, LATENT, h, w]."""
        return self.narrow(F.relu(model.encoder.blocks[:-1](pixels.phi(x_BCHW))))

    def loss(self, model: DVAE, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Reconstruction in nats by value of the pictures."""
        maps = model.decoder.blocks[1:](self.widen(self.latents(model, x_BCHW)))
        return logit_laplace_nll(pixels.phi(x_BCHW), maps).mean()


@torch.no_grad()
def begin_codes(model: DVAE, continuous: ContinuousLatent, batches: list[torch.Tensor], seed: int) -> float:
    """Gives the model codes from the latents of some batches. Returns the share of the latents' variance that the
    codes keep. The result depends on nothing but the arguments."""
    generator = torch.Generator().manual_seed(seed)
    latents_NL = torch.cat([continuous.latents(model, x).permute(0, 2, 3, 1).flatten(0, 2).float() for x in batches])
    centres_VL = k_means(latents_NL, model.config.vocabulary, generator)
    nearest = torch.cdist(latents_NL, centres_VL).min(dim=1).values.square().mean()
    scale = SHARPNESS / nearest.clamp_min(1e-12)

    narrow, widen = continuous.narrow, continuous.widen
    # -scale |z - c|^2 without |z|^2, which is the same for all codes; z is a linear function of the encoder's features.
    last, first = model.encoder.blocks.output.conv, model.decoder.blocks.input
    last.weight.copy_((2 * scale * centres_VL @ narrow.weight[:, :, 0, 0])[:, :, None, None])
    last.bias.copy_(scale * (2 * centres_VL @ narrow.bias - centres_VL.square().sum(1)))
    first.weight.copy_((widen.weight[:, :, 0, 0] @ centres_VL.t())[:, :, None, None])
    first.bias.copy_(widen.bias)
    return 1 - (nearest / (latents_NL - latents_NL.mean(0)).square().sum(1).mean()).item()


def k_means(points_NL: torch.Tensor, centres: int, generator: torch.Generator) -> torch.Tensor:
    """Lloyd's algorithm; a centre that lost all its points begins again at a random one. [centres, L]"""

    def some(count: int) -> torch.Tensor:
        return points_NL[torch.randint(len(points_NL), (count,), generator=generator).to(points_NL.device)]

    centres_VL = some(centres)
    for _ in range(ROUNDS):
        nearest_N = torch.cdist(points_NL, centres_VL).argmin(dim=1)
        count_V = torch.bincount(nearest_N, minlength=centres)[:, None]
        sums_VL = torch.zeros_like(centres_VL).index_add_(0, nearest_N, points_NL)
        centres_VL = torch.where(count_V > 0, sums_VL / count_V.clamp_min(1), some(centres))
    return centres_VL
