"""`python:MODULE:FACTORY`: a class of one's own is checked, part of the fingerprint, and encodes like any other."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from models.errors import UserError
from models.tokenizers.image import load_image_tokenizer, require_no_code
from models.tokenizers.info import CodeShape

OWN = '''
import torch
from models.tokenizers.info import CodeShape

class Stripes:
    """A code is the brightness of one of four stripes, times a step."""
    identity, vocabulary, shape, image_size = "stripes 1", 1 << 18, CodeShape(sequence=4), 8

    def encode(self, x_BCHW):
        return (x_BCHW.mean((1, 3)).view(-1, 4, 2).mean(2) * (self.vocabulary - 1)).round().int()

    def decode(self, codes_BN):
        return (codes_BN / (self.vocabulary - 1)).repeat_interleave(2, 1)[:, None, :, None].expand(-1, 3, -1, 8)

class Other(Stripes):
    identity = "stripes 2"

class Loose(Stripes):
    def encode(self, x_BCHW):
        return super().encode(x_BCHW).float()

class Beyond(Stripes):
    def encode(self, x_BCHW):
        return super().encode(x_BCHW) + 1

class Small(Stripes):
    def decode(self, codes_BN):
        return super().decode(codes_BN)[:, :, :4]

class Listed(Stripes):
    shape = [4]

class Vast(Stripes):
    vocabulary = 1 << 33

class Nameless(Stripes):
    identity = ""

def nothing():
    return 5
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "stripes_module.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "needy_module.py").write_text("import surely_not_installed")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "python:stripes_module:"


def test_codes_and_images(own):
    tokenizer = load_image_tokenizer(f"{own}Stripes")
    assert tokenizer.info.shape == CodeShape(sequence=4) and tokenizer.info.vocabulary == 1 << 18
    view_HWC = np.repeat([0, 51, 102, 255], 2).astype(np.uint8)[:, None, None].repeat(8, 1).repeat(3, 2)
    codes_N = tokenizer.encode(view_HWC)
    assert codes_N.dtype == np.uint32 and codes_N.tolist() == [0, 52429, 104857, 262143]
    assert np.array_equal(tokenizer.decode(codes_N), view_HWC)
    assert np.array_equal(tokenizer.encode_batch(view_HWC[None].repeat(2, 0), 4), [codes_N, codes_N])


def test_the_fingerprint_follows_from_what_it_says_of_itself(own):
    first, again, other = (load_image_tokenizer(f"{own}{name}").info for name in ("Stripes", "Stripes", "Other"))
    assert first.fingerprint == again.fingerprint != other.fingerprint and len(first.fingerprint) == 64


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("python:stripes_module", "give `python:MODULE:FACTORY`"),
        (
            "python:no_such_module:Stripes",
            r"cannot be imported \(No module named .*\); install it or put",
        ),
        ("python:needy_module:Stripes", "cannot be imported .*surely_not_installed"),
        ("python:stripes_module:Missing", "stripes_module.py has no function or class Missing"),
        ("python:stripes_module:nothing", "nothing returns int, which lacks identity, vocabulary, shape"),
        ("python:stripes_module:Listed", r"shape is \[4\]; give a CodeShape"),
        ("python:stripes_module:Vast", "vocabulary is 8589934592; give an integer from 1 to 4,294,967,296"),
        ("python:stripes_module:Nameless", "identity is ''; give a text"),
        ("python:stripes_module:Stripes@16", "images of 8 px alone; leave out @16"),
    ],
)
def test_what_is_missing_is_said_in_one_line(own, spec, told):
    with pytest.raises(UserError, match=told) as raised:
        load_image_tokenizer(spec)
    assert str(raised.value).startswith(f"image tokenizer '{spec}': ") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Loose", r"encode gives torch.float32 of shape \[1, 4\], expected integers \[1, 4\]"),
        ("Beyond", "encode gives codes 262144 to 262144 of a vocabulary of 262,144"),
    ],
)
def test_codes_that_were_not_announced(own, name, told):
    with pytest.raises(UserError, match=told):
        load_image_tokenizer(f"{own}{name}").encode(np.full((8, 8, 3), [[[0]], [[255]]][name == "Beyond"], np.uint8))


def test_a_file_cannot_ask_for_code():
    assert require_no_code("bundled", "manifest.json") == "bundled"
    with pytest.raises(
        UserError, match="names code as its image tokenizer, 'python:os:abort'; give --image-tokenizer SPEC to run it"
    ):
        require_no_code("python:os:abort", "manifest.json")


def test_images_of_another_size(own):
    with pytest.raises(UserError, match=r"decode gives \[1, 3, 4, 8\], expected \[1, 3, 8, 8\]"):
        load_image_tokenizer(f"{own}Small").decode(np.zeros(4, np.uint32))
