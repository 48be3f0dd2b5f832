"""The dVAE trained by vector quantisation, for runs of minutes or hours: `pairmill train-dvae --method quantised`.

The paper's relaxation starts with random codes and block outputs scaled by 1/64, and needs millions of updates to get
over both. Here the same architecture is trained as a VQ-VAE (van den Oord et al., 2017): encoder and decoder first
learn around a narrow continuous latent; then the centres of a k-means over latents become the codes, which follow the
latents as moving averages (its appendix A.1) while gradients pass straight through. Blocks are trained at full gain. At
the end all this folds into the published layers: the encoder's last one gives each code's negative squared distance,
the decoder's first one its centre, and the gains are in the blocks' last convolutions. The result is a dVAE like any
other.

Shape letters beside those of models.dvae: N latents, L their channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models import pixels
from models.tokenizers.dvae import DVAE, Conv, ResidualBlock, logit_laplace_nll
from models.training.distributed import World

LATENT = 16  # channels: so few that a thousand centres can cover what they say
ROUNDS = 12  # of k-means
SHARPNESS = 3.0  # nats that the mean distance of a latent to its own centre takes off its logit
SQUARED_ERROR = 30.0  # weight of the squared error of pixels, on the scale of phi
COMMITMENT = 0.25  # weight of a latent's squared distance to its code, in units of the latents' variance
CODEBOOK_RATE = 0.03  # how far a code's sums move towards those of a batch
DEAD_CODE_THRESHOLD = 0.03  # latents a batch: a code with fewer begins again at a latent
DEAD_CODE_INTERVAL = 20  # updates between looks for unused codes
DEAD_CODE_UNTIL = 0.8  # of the run, after which no code begins again


class VectorQuantisedDVAE(nn.Module):
    """A dVAE in training: its trunk, the two linear maps around the latent, and the codes once they have begun."""

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

    @property
    def has_codes(self) -> bool:
        return bool(self.counts_V.sum() > 0)

    def latents(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Pictures in 0..1 to [B, L, h, w]."""
        return self.to_latent(F.relu(self.trunk.encoder.blocks[:-1](pixels.phi(x_BCHW)))).float()

    def losses(self, x_BCHW: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor | None]:
        """The loss by its terms, the latents [N, L], and the code of each [N] (None before there are codes).

        The squared error trains everything but the logit-Laplace's scale, and the density trains that scale alone.
        """
        z_BLhw = self.latents(x_BCHW)
        B, L, h, w = z_BLhw.shape
        latents_NL = z_BLhw.permute(0, 2, 3, 1).reshape(-1, L)
        terms, codes_N = {}, None
        if self.has_codes:
            codes_N = self.nearest(latents_NL)
            chosen_NL = self.centres_VL[codes_N]
            variance = latents_NL.detach().var(0).mean()
            terms["commitment"] = COMMITMENT * F.mse_loss(latents_NL, chosen_NL) / variance
            through_NL = latents_NL + (chosen_NL - latents_NL).detach()
            z_BLhw = through_NL.reshape(B, h, w, L).permute(0, 3, 1, 2)
        *body, output = self.trunk.decoder.blocks[1:]
        features = nn.Sequential(*body)(self.from_latent(z_BLhw))
        mean = output(features)[:, :3].float()
        ln_b = output(features.detach())[:, 3:].float()
        y_BCHW = pixels.phi(x_BCHW)
        terms["squared_error"] = SQUARED_ERROR * F.mse_loss(torch.sigmoid(mean), y_BCHW)
        terms["nll"] = logit_laplace_nll(y_BCHW, torch.cat([mean.detach(), ln_b], 1)).mean()
        return terms, latents_NL.detach(), codes_N

    @torch.no_grad()
    def nearest(self, latents_NL: torch.Tensor) -> torch.Tensor:
        """The code of each latent [N]."""
        with torch.autocast(latents_NL.device.type, enabled=False):
            return (self.centres_VL.square().sum(1) - 2 * latents_NL @ self.centres_VL.t()).argmin(dim=1)

    @torch.no_grad()
    def init_codebook(self, batches: list[torch.Tensor], seed: int) -> float:
        """Codes from the latents of some batches. Returns the share of the latents' variance that they keep. The
        result depends on nothing but weights and arguments."""
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
        """Moves the codes towards the latents that chose them; with a generator, unused ones begin again at latents
        of the first process."""
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
        """The dVAE that this is. Its codes are `nearest` of the latents."""
        model = DVAE(self.config).to(self.centres_VL.device).eval().requires_grad_(False)
        model.load_state_dict(self.trunk.state_dict())
        for block in _blocks(model):
            last = block.res_path.conv_4
            last.weight.div_(block.post_gain)
            last.bias.div_(block.post_gain)
        # -scale |z - c|^2 less what is the same for all codes; z is a linear function of the encoder's features.
        scale = SHARPNESS / self.distance.clamp_min(1e-12)
        around_VL = self.centres_VL - self.centres_VL.mean(0)
        shift_V = 2 * around_VL @ self.to_latent.bias - self.centres_VL.square().sum(1)
        last, first = model.encoder.blocks.output.conv, model.decoder.blocks.input
        last.weight.copy_((2 * scale * around_VL @ self.to_latent.weight[:, :, 0, 0])[:, :, None, None])
        last.bias.copy_(scale * (shift_V - shift_V.mean()))
        first.weight.copy_((self.from_latent.weight[:, :, 0, 0] @ self.centres_VL.t())[:, :, None, None])
        first.bias.copy_(self.from_latent.bias)
        return model.to(memory_format=torch.channels_last)


def _blocks(model: DVAE) -> list[ResidualBlock]:
    return [module for module in model.modules() if isinstance(module, ResidualBlock)]


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
