"""The format of a dataset on disk, for writers and readers.

    DIR/manifest.json            written last; names every shard with pairs, bytes and sha256
    DIR/train/NNNNN-of-MMMMM.tar one member a pair: KEY.mp, a msgpack map (webdataset decodes it)
    DIR/val/NNNNN-of-MMMMM.tar
    DIR/text_tokenizer.json      the BPE of the tokens
    DIR/index, rejects, ledger.json

The map holds `caption` (str), `tokens` (bytes: uint16 little-endian), `codes` (bytes: uint16 little-endian, crop after
crop, each in raster order) and `draws` (int).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack  # the only compact encoding that webdataset decodes by default
import numpy as np

from models import files as models_files
from models.errors import UserError
from models.tokenizers.info import ImageTokenizerInfo, TextTokenizerInfo

DATASET_FORMAT, DATASET_VERSION = "pairmill-dataset", 1
MANIFEST_FILE = "manifest.json"
INDEX_FOLDER = "index"
SPLITS = ("train", "val")
SAMPLE_SUFFIX = ".mp"
MEMBER_DTYPE = np.dtype("<u2")


class Sample(NamedTuple):
    """One pair as tokens and codes."""

    key: str
    caption: str
    tokens: np.ndarray  # uint16 [n], n <= 256
    codes: np.ndarray  # uint16 [draws, grid * grid], in raster order


@dataclasses.dataclass(frozen=True)
class Shard:
    """A tar file of the dataset, as the manifest lists it."""

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
    """`manifest.json`: the content of the dataset and the settings that produced it."""

    shards: tuple[Shard, ...]
    image_tokenizer: ImageTokenizerInfo
    text_tokenizer: TextTokenizerInfo
    draws: int
    settings: dict[str, Any]  # by stage, given options and defaults
    versions: dict[str, str]  # package -> version, of the packages that decide the bytes
    files: tuple[File, ...] = ()

    def pairs(self, split: str) -> int:
        """Number of pairs of a split."""
        return sum(shard.pairs for shard in self.shards if shard.split == split)

    def to_json(self) -> str:
        """The manifest as JSON with a hash over itself, so that damage is detected as surely as in a shard."""
        body: dict[str, Any] = {
            "format": DATASET_FORMAT,
            "version": DATASET_VERSION,
            "pairs": {split: self.pairs(split) for split in SPLITS},
        }
        body |= dataclasses.asdict(self)
        return json.dumps(body | {"sha256": _digest_of(body)}, indent=1, sort_keys=True) + "\n"


def _digest_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(directory: str | Path) -> Manifest:
    """Reads DIR/manifest.json; DIR may be a URL. Raises UserError if it is missing, damaged or of another version."""
    path = models_files.join(directory, MANIFEST_FILE)
    try:
        body = json.loads(models_files.read(path))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: this is not a finished dataset; run `pairmill build` to its end"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable: {error}; build the dataset again") from None
    if not isinstance(body, dict) or body.get("format") != DATASET_FORMAT:
        raise UserError(f"{path} is not the manifest of a pairmill dataset; give a folder made by `pairmill build`")
    if body.get("version") != DATASET_VERSION:
        raise UserError(f"{path} has version {body.get('version')}; this pairmill reads version {DATASET_VERSION}")
    if body.pop("sha256", None) != _digest_of(body):
        raise UserError(f"{path} is damaged or was edited: its hash does not match; build the dataset again")
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
    """Packs one tar member; `tokens` and `codes` are bytes of uint16 little-endian."""
    packed: bytes = msgpack.packb({"caption": caption, "tokens": tokens, "codes": codes, "draws": draws})
    return packed


def pack_uint16(numbers: np.ndarray) -> bytes:
    """Converts codes or tokens to the bytes of a sample: uint16 little-endian."""
    return numbers.astype(MEMBER_DTYPE).tobytes()


def unpack_sample(key: str, data: bytes) -> Sample:
    """Unpacks what `pack_sample` packed. Raises ValueError for malformed data."""
    try:
        body = msgpack.unpackb(data)
        tokens = np.frombuffer(body["tokens"], MEMBER_DTYPE)
        codes = np.frombuffer(body["codes"], MEMBER_DTYPE).reshape(body["draws"], -1)
        return Sample(key, body["caption"], tokens, codes)
    except (ValueError, KeyError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"{key}{SAMPLE_SUFFIX} is not a sample: {error!r}") from error


def tar_bytes(samples: Iterable[tuple[str, bytes] | tuple[str, bytes, str]]) -> bytes:
    """Makes a tar file of (key, packed sample, source), in their order, with fixed metadata: same samples, same bytes.

    The source, which is optional, is the owner's name in the header: `tar tv` shows it, and it takes no space.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            key, data = sample[:2]
            info = tarfile.TarInfo(key + SAMPLE_SUFFIX)
            info.size, info.mode, info.uname = len(data), 0o644, sample[2] if len(sample) == 3 else ""
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_member_bytes(data: bytes) -> int:
    """Bytes that a sample takes in a tar file: its header, and its data in full blocks."""
    return (1 + -(-len(data) // tarfile.BLOCKSIZE)) * tarfile.BLOCKSIZE


def read_token_shard(path: str | Path) -> Iterator[Sample]:
    """Reads the samples of one tar file (local, or a URL), in order. Raises ValueError for a damaged file."""
    try:
        with models_files.open_read(str(path)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if not info.name.endswith(SAMPLE_SUFFIX):
                    raise ValueError(f"unexpected member {info.name}")
                member = tar.extractfile(info)
                if member is None:
                    raise ValueError(f"{info.name} is not a regular file")
                yield unpack_sample(info.name.removesuffix(SAMPLE_SUFFIX), member.read())
    except (tarfile.TarError, OSError) as error:
        raise ValueError(str(error)) from error


def list_members(path: str | Path) -> Iterator[tuple[str, str]]:
    """Lists (key, source) of each sample of a tar file, in order."""
    with models_files.open_read(str(path)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            yield info.name.removesuffix(SAMPLE_SUFFIX), info.uname


REBUILD_HINT = "copy it again or build the dataset again"


def index_path(shard: str) -> str:
    """The index file of a shard: train/NAME.tar -> index/train-NAME.parquet."""
    return f"{INDEX_FOLDER}/{shard.removesuffix('.tar').replace('/', '-')}.parquet"
