"""The dVAE trained by vector quantisation, for runs of minutes or hours: `pairmill train-dvae --method quantised`.

The paper's relaxation starts with random codes and block outputs scaled by 1/64, and needs millions of updates to
overcome both. Here the same architecture is trained as a VQ-VAE (van den Oord et al., 2017): encoder and decoder first
learn around a continuous latent of few channels; then the centres of a k-means over latents become the codebook, which
is updated by moving averages of the latents (its appendix A.1) while gradients pass straight through. Blocks are
trained at full gain. At the end the weights convert to the published layers: the encoder's last layer computes the
negative squared distance to each centre, the decoder's first layer looks the centre up, and the gains are in the
blocks' last convolutions. The result is an ordinary dVAE.

Shape letters beside those of models.tokenizers.dvae: N latents, L their channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models import pixels
from models.tokenizers.dvae import DVAE, Conv, ResidualBlock, logit_laplace_nll, to_channels_last
from models.training.distributed import World

OLD_NAMES = {"narrow": "to_latent", "widen": "from_latent"}  # of layers in older checkpoints
LATENT = 16  # channels, few enough that a thousand centres cover their distribution
ROUNDS = 12  # of k-means
SHARPNESS = 3.0  # nats by which the mean distance of a latent to its centre lowers the centre's logit
SQUARED_ERROR = 30.0  # weight of the squared error of pixels, on the scale of phi
COMMITMENT = 0.25  # weight of a latent's squared distance to its code, in units of the latents' variance
CODEBOOK_RATE = 0.03  # share of a batch in a code's moving averages
DEAD_CODE_THRESHOLD = 0.03  # mean latents a batch; a code with fewer is moved to a random latent
DEAD_CODE_INTERVAL = 20  # updates between checks for such codes
DEAD_CODE_UNTIL = 0.8  # share of the run after which codes are no longer moved


class VectorQuantisedDVAE(nn.Module):
    """A dVAE in training: its trunk, the two linear maps around the latent, and the codebook once it exists."""

    centres_VL: torch.Tensor
    counts_V: torch.Tensor
    sums_VL: torch.Tensor
    distance: torch.Tensor

    def __init__(self, trunk: DVAE):
        super().__init__()
        config = trunk.config
        self.config = config
        self.trunk = trunk
        for block in _blocks(self.trunk):
            block.post_gain = 1.0
        self.to_latent = Conv(8 * config.hidden, LATENT, 1)
        self.from_latent = Conv(LATENT, config.decoder_input, 1)
        self.register_buffer("centres_VL", torch.zeros(config.vocabulary, LATENT))
        self.register_buffer("counts_V", torch.zeros(config.vocabulary))
        self.register_buffer("sums_VL", torch.zeros(config.vocabulary, LATENT))
        self.register_buffer("distance", torch.zeros(()))  # mean squared distance of a latent to its code

    def load_state_dict(self, state_dict: Mapping[str, Any], *options: Any, **named_options: Any) -> Any:
        """Also loads checkpoints from before `to_latent` and `from_latent` were renamed."""
        renamed = {_current_name(name): value for name, value in state_dict.items()}
        return super().load_state_dict(renamed, *options, **named_options)

    @property
    def has_codes(self) -> bool:
        """Whether the codebook exists."""
        return bool(self.counts_V.sum() > 0)

    def latents(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Images in 0..1, [B, 3, H, W], to latents [B, L, h, w]."""
        return self.to_latent(F.relu(self.trunk.encoder.blocks[:-1](pixels.phi(x_BCHW)))).float()

    def losses(self, x_BCHW: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor | None]:
        """Returns the terms of the loss, the latents [N, L], and their codes [N] (None before there is a codebook).

        The squared error trains all weights but those of the logit-Laplace's scale, which the density alone trains.
        """
        z_BLhw = self.latents(x_BCHW)
        B, L, h, w = z_BLhw.shape
        latents_NL = z_BLhw.permute(0, 2, 3, 1).reshape(-1, L)
        terms: dict[str, torch.Tensor] = {}
        codes_N = None
        if self.has_codes:
            codes_N = self.nearest(latents_NL)
            nearest_NL = self.centres_VL[codes_N]
            variance = latents_NL.detach().var(0).mean()
            terms["commitment"] = COMMITMENT * F.mse_loss(latents_NL, nearest_NL) / variance
            straight_through_NL = latents_NL + (nearest_NL - latents_NL).detach()
            z_BLhw = straight_through_NL.reshape(B, h, w, L).permute(0, 3, 1, 2)
        body, output = self.trunk.decoder.blocks[1:-1], self.trunk.decoder.blocks[-1]
        features = body(self.from_latent(z_BLhw))
        mean = output(features)[:, :3].float()
        ln_b = output(features.detach())[:, 3:].float()
        y_BCHW = pixels.phi(x_BCHW)
        terms["squared_error"] = SQUARED_ERROR * F.mse_loss(torch.sigmoid(mean), y_BCHW)
        terms["nll"] = logit_laplace_nll(y_BCHW, torch.cat([mean.detach(), ln_b], 1)).mean()
        return terms, latents_NL.detach(), codes_N

    @torch.no_grad()
    def nearest(self, latents_NL: torch.Tensor) -> torch.Tensor:
        """The code of the nearest centre for each latent [N, L], int64 [N]."""
        with torch.autocast(latents_NL.device.type, enabled=False):
            return (self.centres_VL.square().sum(1) - 2 * latents_NL @ self.centres_VL.t()).argmin(dim=1)

    @torch.no_grad()
    def init_codebook(self, batches: list[torch.Tensor], seed: int) -> float:
        """Starts the codebook by a k-means over the latents of some batches [B, 3, H, W]. Returns the share of the
        latents' variance that it keeps. The result is the same on every rank."""
        generator = torch.Generator().manual_seed(seed)
        latents_NL = torch.cat([self.latents(x).permute(0, 2, 3, 1).flatten(0, 2) for x in batches])
        self.centres_VL.copy_(k_means(latents_NL, self.config.vocabulary, generator))
        self.counts_V.fill_(len(latents_NL) / len(batches) / self.config.vocabulary)
        self.sums_VL.copy_(self.centres_VL * self.counts_V[:, None])
        self.distance.copy_(self._distance(latents_NL, self.nearest(latents_NL)))
        return 1 - (self.distance / (latents_NL - latents_NL.mean(0)).square().sum(1).mean()).item()

    def _distance(self, latents_NL: torch.Tensor, codes_N: torch.Tensor) -> torch.Tensor:
        return (latents_NL - self.centres_VL[codes_N]).square().sum(1).mean()

    @torch.no_grad()
    def update_codebook(
        self, latents_NL: torch.Tensor, codes_N: torch.Tensor, generator: torch.Generator | None, world: World
    ) -> None:
        """Moves each centre towards the latents [N, L] of its code, of all ranks; with a generator, moves the centres
        of unused codes to random latents of rank 0."""
        counts_V = torch.bincount(codes_N, minlength=len(self.counts_V)).float()
        sums_VL = torch.zeros_like(self.sums_VL).index_add_(0, codes_N, latents_NL)
        self.counts_V.lerp_(world.sum(counts_V), CODEBOOK_RATE)
        self.sums_VL.lerp_(world.sum(sums_VL), CODEBOOK_RATE)
        self.distance.lerp_(world.sum(self._distance(latents_NL, codes_N)) / world.size, CODEBOOK_RATE)
        if generator is not None:
            picks = torch.randint(len(latents_NL), self.counts_V.shape, generator=generator).to(latents_NL.device)
            fresh_VL = world.sum(latents_NL[picks] * float(world.is_main))
            unused_V = self.counts_V < DEAD_CODE_THRESHOLD
            self.counts_V[unused_V] = 10 * DEAD_CODE_THRESHOLD
            self.sums_VL[unused_V] = 10 * DEAD_CODE_THRESHOLD * fresh_VL[unused_V]
        self.centres_VL.copy_(self.sums_VL / self.counts_V.clamp_min(1e-4)[:, None])

    @torch.no_grad()
    def to_dvae(self) -> DVAE:
        """Converts to a dVAE with the same reconstructions, whose codes are the `nearest` of the latents."""
        model = DVAE(self.config).to(self.centres_VL.device).eval().requires_grad_(False)
        model.load_state_dict(self.trunk.state_dict())
        for block in _blocks(model):
            block.last_layer.weight.div_(block.post_gain)
            block.last_layer.bias.div_(block.post_gain)
        # -scale |z - c|^2 without the terms common to all codes; z is linear in the encoder's features.
        scale = SHARPNESS / self.distance.clamp_min(1e-12)
        around_VL = self.centres_VL - self.centres_VL.mean(0)
        shift_V = 2 * around_VL @ self.to_latent.bias - self.centres_VL.square().sum(1)
        last, first = model.encoder.output_layer, model.decoder.input_layer
        last.weight.copy_((2 * scale * around_VL @ self.to_latent.weight[:, :, 0, 0])[:, :, None, None])
        last.bias.copy_(scale * (shift_V - shift_V.mean()))
        first.weight.copy_((self.from_latent.weight[:, :, 0, 0] @ self.centres_VL.t())[:, :, None, None])
        first.bias.copy_(self.from_latent.bias)
        return to_channels_last(model)


def _current_name(name: str) -> str:
    layer, _, parameter = name.partition(".")
    return f"{OLD_NAMES.get(layer, layer)}.{parameter}" if parameter else name


def _blocks(model: DVAE) -> list[ResidualBlock]:
    return [module for module in model.modules() if isinstance(module, ResidualBlock)]


def k_means(points_NL: torch.Tensor, centres: int, generator: torch.Generator) -> torch.Tensor:
    """Lloyd's algorithm on points [N, L]: returns [centres, L]. A centre without points is moved to a random point."""

    def random_points(count: int) -> torch.Tensor:
        return points_NL[torch.randint(len(points_NL), (count,), generator=generator).to(points_NL.device)]

    centres_VL = random_points(centres)
    for _ in range(ROUNDS):
        nearest_N = torch.cdist(points_NL, centres_VL).argmin(dim=1)
        count_V = torch.bincount(nearest_N, minlength=centres)[:, None]
        sums_VL = torch.zeros_like(centres_VL).index_add_(0, nearest_N, points_NL)
        centres_VL = torch.where(count_V > 0, sums_VL / count_V.clamp_min(1), random_points(centres))
    return centres_VL
