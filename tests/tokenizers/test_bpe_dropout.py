"""BPE dropout with tokenizers of several forms: with probability 0 it gives the library's tokens."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from models.errors import UserError
from models.tokenizers.bpe_dropout import BPEDropout
from models.tokenizers.text import TextTokenizer

CAPTIONS = ["a red cat on a mat", "the <crop> of   a cat", "käse & 猫 😀😀 cat", "", "CAT<crop>mat"]


def llama() -> Tokenizer:
    """The form of Llama 2: no pre-tokenizer, spaces are a character, unknown characters are bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["a red cat on a mat", "the cat sat on the red mat"], trainer)
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = plain["added_tokens"][:1]  # the bytes are no added tokens there
    return Tokenizer.from_str(json.dumps(plain))


def incomplete(unknown: str | None, fuse: bool = False) -> Tokenizer:
    """Of characters that some captions lack; `unknown` stands for them."""
    tokenizer = Tokenizer(models.BPE(unk_token=unknown, fuse_unk=fuse))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=60, special_tokens=[unknown] if unknown else [], limit_alphabet=12, show_progress=False
    )
    tokenizer.train_from_iterator(["a red cat on a mat", "the cat sat on the red mat"], trainer)
    return tokenizer


def with_added_tokens() -> Tokenizer:
    tokenizer = incomplete("[UNK]")
    tokenizer.add_tokens([AddedToken("<crop>", lstrip=True), "red cat"])
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [llama(), incomplete(None), incomplete("[UNK]"), incomplete("[UNK]", fuse=True), with_added_tokens()],
    ids=["llama", "no unknown token", "unknown token", "fused unknown tokens", "added tokens"],
)
def test_no_dropout_gives_the_librarys_tokens(tokenizer):
    whole = tokenizer.to_str()
    for caption in CAPTIONS:
        expected = tokenizer.encode(caption, add_special_tokens=False).ids
        assert BPEDropout(whole, 0.0).encode(caption, "1") == expected
        dropped = BPEDropout(whole, 0.5).encode(caption, "1")
        assert dropped == BPEDropout(whole, 0.5).encode(caption, "1") and len(dropped) >= len(expected)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    described = json.loads(incomplete("[UNK]").to_str())
    described["model"]["vocab"]["cat"] = 4000
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"token 'cat' has id 4,000, but there are \d+ tokens; number them"):
        TextTokenizer.load(tmp_path / "tokenizer.json")
