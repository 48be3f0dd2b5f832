"""The dataset on disk: the one place that knows it, for those who write it and those who read it.

    DIR/manifest.json            written last; names every shard with pairs, bytes and sha256
    DIR/train/NNNNN-of-MMMMM.tar one member a pair: KEY.mp, a msgpack map (stock webdataset decodes it)
    DIR/val/NNNNN-of-MMMMM.tar
    DIR/text_tokenizer.json      the BPE that made the tokens
    DIR/index, rejects, ledger.json

The map holds `caption` (str), `tokens` (bytes: uint16 little-endian), `codes` (bytes: uint16 little-endian, draw after
draw, each row by row) and `draws` (int).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgpack  # the one compact form that webdataset decodes without help
import numpy as np

from models import files as models_files
from models.errors import UserError
from models.tokenizers.info import ImageTokenizerInfo, TextTokenizerInfo

DATASET_FORMAT, DATASET_VERSION = "pairmill-dataset", 1
SPLITS = ("train", "val")
SAMPLE_SUFFIX = ".mp"
MEMBER_DTYPE = np.dtype("<u2")


class Sample(NamedTuple):
    """One pair, ready for a model."""

    key: str
    caption: str
    tokens: np.ndarray  # uint16 [n], n <= 256
    codes: np.ndarray  # uint16 [draws, grid * grid]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A tar file of the dataset, as the manifest names it."""

    path: str  # relative to the dataset
    split: str
    pairs: int
    bytes: int
    sha256: str
    sources: dict[str, int] = dataclasses.field(default_factory=dict)  # source -> pairs


@dataclasses.dataclass(frozen=True)
class File:
    """Any other file of the dataset: index, rejects, ledger, text tokenizer."""

    path: str  # relative to the dataset
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """`manifest.json`: what is in the dataset, and what made it."""

    shards: tuple[Shard, ...]
    image_tokenizer: ImageTokenizerInfo
    text_tokenizer: TextTokenizerInfo
    draws: int
    settings: dict  # by stage, as given and as defaulted
    versions: dict  # package -> version, of what decides the bytes
    files: tuple[File, ...] = ()

    def pairs(self, split: str) -> int:
        return sum(shard.pairs for shard in self.shards if shard.split == split)

    def to_json(self) -> str:
        """With a hash over itself, so that a damaged manifest tells as surely as a damaged shard."""
        body = {
            "format": DATASET_FORMAT,
            "version": DATASET_VERSION,
            "pairs": {split: self.pairs(split) for split in SPLITS},
        }
        body |= dataclasses.asdict(self)
        return json.dumps(body | {"sha256": _digest_of(body)}, indent=1, sort_keys=True) + "\n"


def _digest_of(body: dict) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(directory: str | Path) -> Manifest:
    """Reads DIR/manifest.json; DIR may be a URL. Raises UserError when it is missing, damaged or of another version."""
    path = models_files.join(directory, "manifest.json")
    try:
        body = json.loads(models_files.read(path))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: not a finished dataset; run `pairmill build` to its end") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable: {error}; build the dataset again") from None
    if not isinstance(body, dict) or body.get("format") != DATASET_FORMAT:
        raise UserError(f"{path} is not the manifest of a pairmill dataset")
    if body.get("version") != DATASET_VERSION:
        raise UserError(f"{path} has version {body.get('version')}; this pairmill reads version {DATASET_VERSION}")
    if body.pop("sha256", None) != _digest_of(body):
        raise UserError(f"{path} is damaged or was edited: its own hash does not fit; build the dataset again")
    try:
        return Manifest(
            shards=tuple(Shard(**shard) for shard in body["shards"]),
            image_tokenizer=ImageTokenizerInfo(**body["image_tokenizer"]),
            text_tokenizer=TextTokenizerInfo(**body["text_tokenizer"]),
            draws=body["draws"],
            settings=body["settings"],
            versions=body["versions"],
            files=tuple(File(**file) for file in body["files"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} lacks or misnames a field ({error}); build the dataset again") from None


# --- samples and shards ----------------------------------------------------------------------------------------------


def pack_sample(caption: str, tokens: bytes, codes: bytes, draws: int) -> bytes:
    """The bytes of one tar member; `tokens` and `codes` are uint16 little-endian already."""
    return msgpack.packb({"caption": caption, "tokens": tokens, "codes": codes, "draws": draws})


def pack_uint16(numbers: np.ndarray) -> bytes:
    """Codes or tokens as they stand in a sample."""
    return numbers.astype(MEMBER_DTYPE).tobytes()


def unpack_sample(key: str, data: bytes) -> Sample:
    """The inverse of pack_sample. Raises ValueError for anything else."""
    try:
        body = msgpack.unpackb(data)
        tokens = np.frombuffer(body["tokens"], MEMBER_DTYPE)
        codes = np.frombuffer(body["codes"], MEMBER_DTYPE).reshape(body["draws"], -1)
        return Sample(key, body["caption"], tokens, codes)
    except (ValueError, KeyError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"{key}{SAMPLE_SUFFIX} is not a sample: {error!r}") from error


def tar_bytes(samples: Iterable[tuple[str, bytes] | tuple[str, bytes, str]]) -> bytes:
    """A tar file of (key, packed sample, source), in the order given, with fixed metadata: same samples, same bytes.

    The source stands in the header as the owner's name: `tar tv` shows it, and it takes no room. It may be left out.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, data, *source in samples:
            info = tarfile.TarInfo(key + SAMPLE_SUFFIX)
            info.size, info.mode, info.uname = len(data), 0o644, "".join(source)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_member_bytes(data: bytes) -> int:
    """The room that a sample takes in a tar file: its header, and its bytes in whole blocks."""
    return (1 + -(-len(data) // tarfile.BLOCKSIZE)) * tarfile.BLOCKSIZE


def read_token_shard(path: str | Path) -> Iterator[Sample]:
    """The samples of one tar file, in order. Raises ValueError for a damaged one."""
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if not info.name.endswith(SAMPLE_SUFFIX):
                    raise ValueError(f"unexpected member {info.name}")
                yield unpack_sample(info.name.removesuffix(SAMPLE_SUFFIX), tar.extractfile(info).read())
    except (tarfile.TarError, OSError) as error:
        raise ValueError(str(error)) from error


def list_members(path: str | Path) -> Iterator[tuple[str, str]]:
    """(key, source) of each sample of a tar file, in order."""
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            yield info.name.removesuffix(SAMPLE_SUFFIX), info.uname


REBUILD_HINT = "copy it again or build the dataset again"


def index_path(shard: str) -> str:
    """The part of the index that belongs to a shard: train/NAME.tar -> index/train-NAME.parquet."""
    return f"index/{shard.removesuffix('.tar').replace('/', '-')}.parquet"
