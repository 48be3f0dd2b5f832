"""A pairmill transformer as a model of `transformers`: captions to the codes of images.

Shape letters: B images, S tokens given, T text positions, N codes of an image, n codes given, V a vocabulary of codes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from models.data.batch import NO_TOKEN
from models.export.hub.configuration_pairmill import PairmillConfig
from models.sampling.sampler import ImageRequest, SamplingConfig, sample_codes
from models.transformer.attention import lines
from models.transformer.model import Transformer, TransformerBlock, TransformerConfig, rotary_angles


class PairmillModel(PreTrainedModel):
    """Predicts each code of an image from the caption and the codes before it."""

    config_class = PairmillConfig
    base_model_prefix = "network"
    main_input_name = "input_ids"

    def __init__(self, config: PairmillConfig):
        super().__init__(config)
        self.network = Transformer(TransformerConfig(**config.network))
        del self.network.text_head  # the file holds no weights for it: text is given, never predicted
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Weights come from the file. Buffers that follow from the configuration do not, and transformers loads a model
        with none of their values."""
        config = self.network.config
        if isinstance(module, Transformer) and config.rotary:
            angles, device = rotary_angles(config), module.rotary_cos.device
            module.rotary_cos, module.rotary_sin = angles.cos.to(device), angles.sin.to(device)
        if isinstance(module, TransformerBlock) and module.kind != "full":
            pattern, device = lines(module.kind, config.grid, config.rows), module.neighbours.device
            module.neighbours, module.hidden_GSW = pattern.neighbours.to(device), pattern.hidden_GSW.to(device)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """Computes the logits of the next code after each of the given ones.

        `input_ids` [B, S] and `attention_mask` [B, S] are those of the folder's tokenizer, S at most T; `codes` [B, n]
        are the first codes of each image in raster order, none by default. The logits are [B, n + 1, V], of all N
        codes [B, N, V]. `labels` [B, N], mostly the codes themselves, give the mean cross-entropy as `loss`.
        Raises ValueError for more than N codes.
        """
        text_BT, config = self._text(input_ids, attention_mask), self.network.config
        codes_Bn = text_BT.new_zeros(len(text_BT), 0) if codes is None else codes
        given = codes_Bn.shape[1]
        if given > config.codes:
            raise ValueError(f"{given} codes given; an image has {config.codes}")
        states = self.network.states(text_BT, F.pad(codes_Bn, (0, config.codes - given)))  # no state sees later codes
        states = states[:, config.prefix - 1 : config.prefix + min(given, config.codes - 1)]
        logits = self.network.image_head(states).float()
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def generate_codes(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        seeds: list[int] | None = None,
        **sampling: Any,
    ) -> torch.Tensor:
        """Samples the codes of an image for each caption, int64 [B, N]; `seeds` are 0, 1, ... by default. `sampling` is
        any of temperature, top_k, top_p and guidance; the others are those that the model was saved with. An image
        depends on its caption, its seed and these alone. Raises ValueError for a value outside its range, and for
        guidance of a model that was trained without blank captions."""
        chosen = SamplingConfig(**self.config.sampling)._replace(**sampling)
        if not chosen.is_valid:
            raise ValueError(f"{chosen}: give a temperature above 0, top_k from 0, top_p in (0, 1], guidance from 0")
        if chosen.guidance != 1 and not self.config.supports_guidance:
            raise ValueError("guidance needs a model that was trained with blank captions; give guidance=1")
        texts = [row[row != NO_TOKEN].tolist() for row in self._text(input_ids, attention_mask)]
        requests = [
            ImageRequest(text, seed, chosen) for text, seed in zip(texts, seeds or range(len(texts)), strict=True)
        ]
        return sample_codes(self.network, requests)

    def _text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """The tokens in front, then NO_TOKEN: int64 [B, T]."""
        length = self.network.config.text_length
        real = (input_ids != self.config.pad_token_id if attention_mask is None else attention_mask).long()
        order = real.argsort(dim=1, descending=True, stable=True)  # padding may stand on either side
        text = input_ids.where(real.bool(), NO_TOKEN).gather(1, order)[:, :length]
        return F.pad(text, (0, length - text.shape[1]), value=NO_TOKEN)
