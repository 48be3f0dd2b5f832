"""The configuration of a pairmill transformer, as `transformers` reads it from `config.json`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class PairmillConfig(PretrainedConfig):
    """Sizes of the network, and what made it."""

    model_type = "pairmill"

    def __init__(
        self,
        network: dict[str, Any] | None = None,
        image_tokenizer: dict[str, Any] | None = None,
        supports_guidance: bool = False,
        sampling: dict[str, Any] | None = None,
        **others: Any,
    ):
        """`network` has the fields of TransformerConfig, `sampling` those of SamplingConfig that differ from its
        defaults; `supports_guidance`: whether it was trained with blank captions."""
        self.network = network or {}
        self.image_tokenizer = image_tokenizer or {}
        self.supports_guidance = supports_guidance
        self.sampling = sampling or {}
        super().__init__(**others)
