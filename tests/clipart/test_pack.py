"""The packing of listed images for the emoji model."""

import gzip
import io
import json
import tarfile

import pytest

from models.errors import UserError
from sample.clipart import pack
from sample.scenes.make import tar_bytes
from tests.support.narrowing import required

ROWS = [
    {"file": "b/pear.png", "captions": [{"lang": "de", "text": "Birne"}, {"lang": "en", "text": "Pear"}]},
    {"file": "b/fig.png", "captions": [{"lang": "en", "text": "fig"}], "redistributable": False},
    {"file": "a/plum.png", "captions": [{"lang": "en", "text": "plum"}]},
    {"file": "b/nut.png", "captions": [{"lang": "de", "text": "Nuss"}]},
]


def write_list(path, rows):
    path.write_bytes(gzip.compress("\n".join(json.dumps({"redistributable": True} | row) for row in rows).encode()))
    return path


def test_packs_redistributable_images_with_english_captions(tmp_path):
    (tmp_path / "images.tar").write_bytes(tar_bytes([("b/pear.png", b"pear"), ("b/fig.png", b"fig")]))
    listed = write_list(tmp_path / "list.gz", ROWS)
    options = ["--list", str(listed), "--images", str(tmp_path / "*.tar"), "--output", str(tmp_path / "out")]
    assert pack.main([*options, "--prefix", "b/"]) == 0
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "out/images/00000.tar").read_bytes())) as tar:
        members = {member.name: required(tar.extractfile(member)).read() for member in tar}
    assert (members["000000000.png"], members["000000000.txt"], len(members)) == (b"pear", b"pear", 3)
    assert (tmp_path / "out/captions.txt").read_text() == "pear\n"
    with pytest.raises(UserError, match=r"1 images of the list are missing, such as a/plum\.png"):
        pack.main(options)


def test_a_malformed_line_is_named(tmp_path):
    listed = write_list(tmp_path / "list.gz", [ROWS[0], {"file": "b/x.png"}])
    with pytest.raises(UserError, match="line 2: KeyError"):
        pack.listed_captions(listed, ("",))
