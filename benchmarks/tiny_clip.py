"""Trains a small CLIP on a processor, and measures whether its scores tell true captions from swapped ones.

    python -m benchmarks.tiny_clip IMAGES OUTPUT

IMAGES is a folder or glob as `pairmill score --images` reads it. A tenth of the pairs is held out. OUTPUT becomes a
folder in open_clip's layout, for `pairmill score --model OUTPUT`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional

from models.hashing import in_share, stable_hash
from models.pixels import apply_crop, centre_crop
from models.scoring.embedder import Embedder, cosines
from models.scoring.model_folder import OPEN_CLIP_CONFIG, TOKENIZER, load_model, model_files
from models.scoring.network import ContrastiveConfig, ContrastiveModel, ImageTowerConfig, TextTowerConfig
from pipeline.fetch import stored_shards
from pipeline.filters import SelectConfig, count_words
from pipeline.images.validate import ImageConfig
from pipeline.output.files import write_file
from pipeline.output.parquet import file_bytes
from pipeline.records import Pair, Rejected
from pipeline.scores.best import cutoff
from pipeline.scores.score_files import open_scores, schema_of, score_path, write_score_list

SIZE, PATCH, WIDTH, CONTEXT, VOCABULARY = 64, 16, 128, 24, 4096
IMAGE_LAYERS, TEXT_LAYERS, HEAD_WIDTH = 4, 2, 32
BATCH, PEAK_RATE, WARM_UP = 192, 2e-3, 50
MOST_SHIFT, WORDS_LEFT_OUT = 6, 0.25  # pixels, share
MEAN = (0.5, 0.5, 0.5)
SPECIAL_TOKENS = ("<pad>", "<unk>", "<start>", "<end>")


class Example(NamedTuple):
    key: str
    image: np.ndarray  # uint8 [SIZE, SIZE, 3]
    caption: str


def read_examples(pattern: str) -> Iterator[Example]:
    for path in stored_shards.find_image_shards(pattern):
        pairs = [row for row in stored_shards.list_rows(path) if isinstance(row, Pair)]
        for image in stored_shards.read_images(path, pairs, ImageConfig(min_side=32)):
            if not isinstance(image, Rejected):
                yield Example(image.pair.key, _square(image.rgb_HWC), image.pair.caption)


def _square(rgb_HWC: np.ndarray) -> np.ndarray:
    """The centre square, resized."""
    height, width = rgb_HWC.shape[:2]
    return apply_crop(rgb_HWC, centre_crop(width, height, SIZE), SIZE)


def train_tokenizer(captions: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL_TOKENS))
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(name, tokenizer.token_to_id(name)) for name in SPECIAL_TOKENS[2:]]
    )
    return tokenizer


def tiny_config(tokenizer: Tokenizer) -> ContrastiveConfig:
    image = ImageTowerConfig(
        width=WIDTH,
        layers=IMAGE_LAYERS,
        heads=WIDTH // HEAD_WIDTH,
        hidden=4 * WIDTH,
        activation="gelu",
        epsilon=1e-5,
        image_size=SIZE,
        patch_size=PATCH,
        pool="class",
    )
    end_id = tokenizer.token_to_id("<end>")
    assert end_id is not None
    text = TextTowerConfig(
        width=WIDTH,
        layers=TEXT_LAYERS,
        heads=WIDTH // HEAD_WIDTH,
        hidden=4 * WIDTH,
        activation="gelu",
        epsilon=1e-5,
        context=CONTEXT,
        vocabulary=tokenizer.get_vocab_size(),
        causal=True,
        pool="end",
        end_id=end_id,
    )
    return ContrastiveConfig(WIDTH, image, text)


def train(examples: list[Example], tokenizer: Tokenizer, steps: int) -> ContrastiveModel:
    """Cross entropy over the cosines of a batch, both ways (Radford and others, 2021)."""
    torch.manual_seed(0)
    model = ContrastiveModel(tiny_config(tokenizer))
    scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    optimiser = torch.optim.AdamW([*model.parameters(), scale], PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.1)
    images_NHWC = torch.from_numpy(np.stack([example.image for example in examples]))
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(length=CONTEXT, pad_id=0)
    tokens_NT = torch.tensor([each.ids for each in tokenizer.encode_batch([example.caption for example in examples])])
    started = time.perf_counter()
    for step in range(steps):
        rate = PEAK_RATE * min((step + 1) / WARM_UP, 0.5 + 0.5 * np.cos(np.pi * step / steps))
        optimiser.param_groups[0]["lr"] = rate
        rows = torch.randperm(len(examples))[:BATCH]
        x_BCHW = (images_NHWC[rows].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        x_BCHW, tokens_BT = augmented(x_BCHW, tokens_NT[rows], step)
        logits_BB = model.embed_images(x_BCHW) @ model.embed_texts(tokens_BT).T * scale.exp().clamp(max=100)
        target_B = torch.arange(len(rows))
        loss = (functional.cross_entropy(logits_BB, target_B) + functional.cross_entropy(logits_BB.T, target_B)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    return model.eval()


def augmented(x_BCHW: torch.Tensor, tokens_BT: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Another view of each pair, since the list is short: images mirrored and moved, words left out."""
    shift = torch.randint(-MOST_SHIFT, MOST_SHIFT + 1, (2,)).tolist()
    moved_BCHW = x_BCHW.roll(shift, (2, 3)).flip(3) if step % 2 else x_BCHW.roll(shift, (2, 3))
    is_left_out_BT = (torch.rand(tokens_BT.shape) < WORDS_LEFT_OUT) & (tokens_BT >= len(SPECIAL_TOKENS))
    return moved_BCHW, tokens_BT.masked_fill(is_left_out_BT, SPECIAL_TOKENS.index("<unk>"))


OPEN_CLIP_NAMES = (
    ("image.patch.", "visual.conv1."),
    ("image.class_token", "visual.class_embedding"),
    ("image.positions", "visual.positional_embedding"),
    ("image.norm_before.", "visual.ln_pre."),
    ("image.norm.", "visual.ln_post."),
    ("image.projection.weight", "visual.proj"),
    ("image.blocks.", "visual.transformer.resblocks."),
    ("text.tokens.", "token_embedding."),
    ("text.positions", "positional_embedding"),
    ("text.norm.", "ln_final."),
    ("text.projection.weight", "text_projection"),
    ("text.blocks.", "transformer.resblocks."),
    (".norm_1.", ".ln_1."),
    (".norm_2.", ".ln_2."),
    (".qkv.", ".attn.in_proj_"),
    (".out.", ".attn.out_proj."),
    (".mlp.up.", ".mlp.c_fc."),
    (".mlp.down.", ".mlp.c_proj."),
)


def write_model(model: ContrastiveModel, tokenizer: Tokenizer, folder: Path) -> None:
    """The model in open_clip's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, weight in model.state_dict().items():
        for ours, theirs in OPEN_CLIP_NAMES:
            name = name.replace(ours, theirs)
        weights[name] = (weight.T if name in ("visual.proj", "text_projection") else weight).contiguous()
    config = model.config
    towers: dict[str, dict[str, int | str]] = {
        "vision_cfg": {
            "image_size": config.image.image_size,
            "patch_size": config.image.patch_size,
            "head_width": config.image.width // config.image.heads,
        },
        "text_cfg": {
            "context_length": config.text.context,
            "vocab_size": config.text.vocabulary,
            "heads": config.text.heads,
            "pool_type": "eos",
            "eos_id": config.text.end_id,
        },
    }
    for name, tower in (("vision_cfg", config.image), ("text_cfg", config.text)):
        towers[name] |= {"width": tower.width, "layers": tower.layers}
    settings = {"model_cfg": {"embed_dim": config.embedding} | towers, "preprocess_cfg": {"mean": MEAN, "std": MEAN}}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / OPEN_CLIP_CONFIG).write_text(json.dumps(settings, indent=1))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / TOKENIZER))


def swapped(examples: list[Example], seed: int = 0) -> list[Example]:
    """The same images, each with the caption of another one that differs."""
    order = np.random.RandomState(seed).permutation(len(examples))
    captions = [examples[place].caption for place in order]
    for place, example in enumerate(examples):
        if captions[place].lower() == example.caption.lower():
            other = (place + 1) % len(examples)
            captions[place], captions[other] = captions[other], captions[place]
    return [example._replace(caption=caption) for example, caption in zip(examples, captions, strict=True)]


def similarity(embedder: Embedder, examples: list[Example]) -> np.ndarray:
    """The score clip of each pair, float32 [N]."""
    return cosines(embedder.embed([embedder.prepare(example.image, example.caption) for example in examples]))


def ranked_share(embedder: Embedder, examples: list[Example]) -> float:
    """The mean share of the other captions of the list that score less than an image's own."""
    image_NE, text_NE = embedder.embed([embedder.prepare(example.image, example.caption) for example in examples])
    scores_NN = image_NE.astype(np.float32) @ text_NE.astype(np.float32).T
    captions = np.array([example.caption.lower() for example in examples])
    differs_NN = captions[:, None] != captions
    return float(((scores_NN < scores_NN.diagonal()[:, None]) & differs_NN).sum() / differs_NN.sum())


def kept_of_half_swapped(embedder: Embedder, examples: list[Example], share: float) -> tuple[int, int]:
    """How many true and how many swapped pairs `--keep-top` keeps of a list of which every second was swapped."""
    mixed = [*examples[::2], *swapped(examples[1::2])]
    true_keys = {example.key for example in examples[::2]}
    rows = sorted(zip((example.key for example in mixed), similarity(embedder, mixed).tolist(), strict=True))
    table = pa.Table.from_pylist([{"key": key, "clip": score} for key, score in rows], schema=schema_of(("clip",)))
    with tempfile.TemporaryDirectory() as folder:
        write_score_list(folder, ("clip",), [write_file(folder, score_path(0, 1), file_bytes(table))])
        best = cutoff(open_scores(folder), "clip", share)
    kept = [key for key, score in rows if best.keeps(key, score)]
    return sum(key in true_keys for key in kept), sum(key not in true_keys for key in kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    examples = list(read_examples(args.images))
    held_out = [example for example in examples if in_share(stable_hash("held out", example.key), 0.1)]
    held_keys = {example.key for example in held_out}
    training = [example for example in examples if example.key not in held_keys]
    print(f"{len(training):,} pairs for training, {len(held_out):,} held out", flush=True)
    tokenizer = train_tokenizer([example.caption for example in training])
    write_model(train(training, tokenizer, args.steps), tokenizer, args.output)
    embedder = Embedder(load_model(model_files(args.output)))
    report("held-out pairs", embedder, held_out)
    trained = {example.caption.lower() for example in training}
    new = [example for example in held_out if example.caption.lower() not in trained]
    report("of these, with captions that no pair for training has", embedder, new)
    min_words = SelectConfig().min_words
    selected = [example for example in new if count_words(example.caption) >= min_words]
    report(f"of these, of {min_words} words or more, the fewest that select keeps", embedder, selected)


def report(what: str, embedder: Embedder, examples: list[Example]) -> None:
    true, other = similarity(embedder, examples), similarity(embedder, swapped(examples))
    print(f"{len(examples):,} {what}:")
    print(f"  true caption above a swapped one in {np.mean(true > other):.1%}", end=", ")
    print(f"above {ranked_share(embedder, examples):.1%} of all others")
    for share in (0.3, 0.5):
        kept = kept_of_half_swapped(embedder, examples, share)
        print(f"  --keep-top {share:g} of a list half of which was swapped: {kept[0]} true, {kept[1]} swapped pairs")


if __name__ == "__main__":
    main()
