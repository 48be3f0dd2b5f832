"""Published layouts of contrastive models: their settings and names of weights, as those of `models.scoring.network`.

| folder | settings | models |
|---|---|---|
| open_clip's | `open_clip_config.json` | CLIP; SigLIP, whose image tower is timm's |
| transformers' | `config.json` with `model_type` clip or siglip | CLIP, SigLIP |

Weights are `*.safetensors`, or a pickle (`*.bin`, `*.pt`), of which no code runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from models.scoring.network import ContrastiveConfig, ImageTowerConfig, TextPool, TextTowerConfig

Weights = dict[str, torch.Tensor]
Json = Mapping[str, Any]
Renames = tuple[tuple[str, str], ...]  # (pattern of a name, replacement); all that match apply, in order


# --- settings --------------------------------------------------------------------------------------------------------


def open_clip_settings(config: Json, weights: Weights) -> ContrastiveConfig:
    """From `model_cfg` of open_clip_config.json. Raises ValueError for a form of model that is not known here, KeyError
    for a setting that is missing."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    _refuse(vision, _VISION_FORMS)
    _refuse(text, _TEXT_FORMS)
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    image = _timm_tower(vision, weights) if "timm_model_name" in vision else _open_clip_tower(vision, activation)
    width, heads = text.get("width", 512), text.get("heads", 8)
    return ContrastiveConfig(
        config["embed_dim"],
        image,
        TextTowerConfig(
            width=width,
            layers=text.get("layers", 12),
            heads=heads,
            hidden=int(width * text.get("mlp_ratio", 4.0)),
            activation="gelu_tanh" if (text.get("act_kwargs") or {}).get("approximate") == "tanh" else activation,
            epsilon=(text.get("norm_kwargs") or {}).get("eps", 1e-5),
            context=text.get("context_length", 77),
            vocabulary=text.get("vocab_size", 49408),
            causal=not text.get("no_causal_mask", False),
            pool=_POOLS[text.get("pool_type", "argmax")],
            end_id=text.get("eos_id", -1),
            projection_bias=text.get("proj_bias", False),
        ),
    )


_POOLS: Mapping[str, TextPool] = {"argmax": "largest", "last": "last", "eos": "end"}

# Settings of open_clip that change the network into one that is not implemented here, with the values that do not.
_VISION_FORMS: Mapping[str, tuple] = {
    "ls_init_value": (None,),
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable", "sin_cos_2d"),
    "pool_type": ("tok",),
    "final_ln_after_pool": (False,),
    "timm_pool": ("map",),
    "timm_proj": ("none", ""),
}
_TEXT_FORMS: Mapping[str, tuple] = {
    "ls_init_value": (None,),
    "embed_cls": (False,),
    "final_ln_after_pool": (False,),
    "pool_type": ("argmax", "last", "eos"),
    "proj_type": ("linear",),
    "hf_model_name": (None,),
}


def _refuse(settings: Json, forms: Mapping[str, tuple]) -> None:
    for name, known in forms.items():
        if settings.get(name, known[0]) not in known:
            raise ValueError(f"{name} {settings[name]!r} is not supported; {' or '.join(map(repr, known))} is")
    custom = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
    if wrong := [name for name in custom if settings.get(name)]:
        raise ValueError(f"{wrong[0]} is not supported")


def _open_clip_tower(vision: Json, activation: str) -> ImageTowerConfig:
    if not isinstance(vision.get("layers", 12), int):
        raise ValueError("its image tower is a ResNet; only transformers are supported")
    width = vision.get("width", 768)
    return ImageTowerConfig(
        width=width,
        layers=vision.get("layers", 12),
        heads=width // vision.get("head_width", 64),
        hidden=int(width * vision.get("mlp_ratio", 4.0)),
        activation=activation,
        epsilon=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
        image_size=vision.get("image_size", 224),
        patch_size=vision.get("patch_size", 16),
        pool="class",
    )


# Of timm's SigLIP towers: widths whose heads are not of 64 numbers, and names of those with the other activation.
_TIMM_HEADS = {1152: 16, 1536: 16}
_TIMM_TANH = ("vit_base_patch32_", "vit_large_patch16_siglip_512", "vit_so400m_patch16_", "vit_giantopt_")


def _timm_tower(vision: Json, weights: Weights) -> ImageTowerConfig:
    """timm names its models; their sizes follow from the weights."""
    name = vision["timm_model_name"]
    if not re.search(r"_siglip_\d", name):
        raise ValueError(f"its image tower is timm's {name}; of those only SigLIP's are supported")
    patch = weights["visual.trunk.patch_embed.proj.weight"]
    width = len(patch)
    return ImageTowerConfig(
        width=width,
        layers=_layers(weights, "visual.trunk.blocks."),
        heads=_TIMM_HEADS.get(width, width // 64),
        hidden=len(weights["visual.trunk.blocks.0.mlp.fc1.weight"]),
        activation="gelu_tanh" if name.startswith(_TIMM_TANH) else "gelu",
        epsilon=1e-6,
        image_size=vision["image_size"],
        patch_size=patch.shape[-1],
        pool="attention",
        patch_bias=True,
    )


def _layers(weights: Weights, prefix: str) -> int:
    return 1 + max(int(name[len(prefix) :].partition(".")[0]) for name in weights if name.startswith(prefix))


# transformers writes only settings that differ from its classes' defaults: these.
_CLIP_VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
_DEFAULTS: Mapping[str, tuple[Json, Json]] = {
    "clip": (
        _CLIP_VISION | {"image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
        _CLIP_TEXT
        | {"max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
        | {"eos_token_id": 49407},
    ),
    "siglip": (
        _CLIP_VISION | {"image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        _CLIP_VISION
        | {"max_position_embeddings": 64, "vocab_size": 32000, "hidden_act": "gelu_pytorch_tanh"}
        | {"layer_norm_eps": 1e-6, "projection_size": None},
    ),
}
_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
_OLD_END_ID = 2  # of configurations written before transformers 4.31: it took the largest token then


def transformers_settings(config: Json, weights: Weights) -> ContrastiveConfig:
    """From config.json. Raises ValueError for a kind of model that is not known here."""
    kind = str(config.get("model_type"))
    if kind not in _DEFAULTS:
        raise ValueError(f"model_type {kind!r} is not supported; {' and '.join(_DEFAULTS)} are")
    vision, text = (
        {**defaults, **(config.get(name) or {})}
        for defaults, name in zip(_DEFAULTS[kind], ("vision_config", "text_config"), strict=True)
    )
    is_clip = kind == "clip"
    embedding = config.get("projection_dim", 512) if is_clip else text["projection_size"] or text["hidden_size"]
    image_tower = ImageTowerConfig(
        **_tower(vision),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        pool="class" if is_clip else "attention",
        patch_bias=not is_clip,
    )
    text_tower = TextTowerConfig(
        **_tower(text),
        context=text["max_position_embeddings"],
        vocabulary=text["vocab_size"],
        causal=is_clip,
        pool=("largest" if text["eos_token_id"] == _OLD_END_ID else "end") if is_clip else "last",
        end_id=text["eos_token_id"] if is_clip else -1,
        projection_bias=not is_clip,
    )
    return ContrastiveConfig(embedding, image_tower, text_tower)


def _tower(settings: Json) -> dict[str, Any]:
    return {
        "width": settings["hidden_size"],
        "layers": settings["num_hidden_layers"],
        "heads": settings["num_attention_heads"],
        "hidden": settings["intermediate_size"],
        "activation": _ACTIVATIONS[settings["hidden_act"]],
        "epsilon": settings["layer_norm_eps"],
    }


# --- weights ---------------------------------------------------------------------------------------------------------

_OPEN_CLIP: Renames = (
    (r"^text\.", ""),
    (r"^visual\.(?:trunk\.)?", "image."),
    (r"^(?!image\.)(?!logit_)", "text."),
    (r"\.transformer\.resblocks\.", ".blocks."),
    (r"\.(?:conv1|patch_embed\.proj)\.", ".patch."),
    (r"\.class_embedding$", ".class_token"),
    (r"\.(?:positional_embedding|pos_embed)$", ".positions"),
    (r"\.token_embedding\.", ".tokens."),
    (r"\.ln_pre\.", ".norm_before."),
    (r"\.(?:ln_post|ln_final)\.", ".norm."),
    (r"\.(?:ln_|norm)([12])\.", r".norm_\1."),
    (r"\.attn\.in_proj_", ".qkv."),
    (r"\.attn\.qkv\.", ".qkv."),
    (r"\.attn\.(?:out_proj|proj)\.", ".out."),
    (r"\.mlp\.(?:c_fc|fc1)\.", ".mlp.up."),
    (r"\.mlp\.(?:c_proj|fc2)\.", ".mlp.down."),
    (r"\.attn_pool\.latent$", ".pool.query"),
    (r"\.attn_pool\.proj\.", ".pool.out."),
    (r"\.attn_pool\.", ".pool."),
    (r"^image\.proj$", "image.projection"),
    (r"^text\.text_projection", "text.projection"),
)
_TRANSFORMERS: Renames = (
    (r"^vision_model\.(?:embeddings\.)?", "image."),
    (r"^text_model\.(?:embeddings\.)?", "text."),
    (r"^visual_projection\.", "image.projection."),
    (r"^text_projection\.", "text.projection."),
    (r"^text\.head\.", "text.projection."),
    (r"\.encoder\.layers\.", ".blocks."),
    (r"\.patch_embedding\.", ".patch."),
    (r"\.class_embedding$", ".class_token"),
    (r"\.position_embedding\.weight$", ".positions"),
    (r"\.token_embedding\.", ".tokens."),
    (r"\.pre_layrnorm\.", ".norm_before."),
    (r"\.(?:post_layernorm|final_layer_norm)\.", ".norm."),
    (r"\.layer_norm([12])\.", r".norm_\1."),
    (r"\.self_attn\.([qkv])_proj\.", r".\1."),
    (r"\.self_attn\.out_proj\.", ".out."),
    (r"\.mlp\.fc1\.", ".mlp.up."),
    (r"\.mlp\.fc2\.", ".mlp.down."),
    (r"^image\.head\.probe$", "image.pool.query"),
    (r"^image\.head\.attention\.in_proj_", "image.pool.qkv."),
    (r"^image\.head\.attention\.out_proj\.", "image.pool.out."),
    (r"^image\.head\.layernorm\.", "image.pool.norm."),
    (r"^image\.head\.", "image.pool."),
)


def open_clip_weights(weights: Weights) -> Weights:
    """The weights of open_clip under our names."""
    ours = _renamed(weights, _OPEN_CLIP)
    for name in ("image.projection", "text.projection"):  # parameters [W, E]; ours are of linear layers
        if name in ours:
            ours[f"{name}.weight"] = ours.pop(name).T
    return _joined(ours)


def transformers_weights(weights: Weights) -> Weights:
    """The weights of transformers under our names."""
    return _joined(_renamed(weights, _TRANSFORMERS))


def _renamed(weights: Weights, renames: Renames) -> Weights:
    ours = {}
    for name, weight in weights.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        ours[name] = weight
    return ours


_SINGLE = ("image.positions", "image.pool.query", "image.class_token")


def _joined(weights: Weights) -> Weights:
    """Joins query, key and value where they are apart, and drops axes of length 1."""
    parts: dict[str, Weights] = {}
    ours = {}
    for name, weight in weights.items():
        if found := re.fullmatch(r"(.*\.)(q|k|v|kv)\.(weight|bias)", name):
            parts.setdefault(f"{found[1]}qkv.{found[3]}", {})[found[2]] = weight
        elif name in _SINGLE:
            ours[name] = weight.reshape(-1, weight.shape[-1]) if name == _SINGLE[0] else weight.flatten()
        else:
            ours[name] = weight
    for name, found_parts in parts.items():
        ours[name] = torch.cat([found_parts[part] for part in ("q", "k", "v", "kv") if part in found_parts])
    return ours


Layout = tuple[Callable[[Json, Weights], ContrastiveConfig], Callable[[Weights], Weights]]
