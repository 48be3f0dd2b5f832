"""The format of a dataset on disk, for writers and readers.

    DIR/manifest.json            written last; names every shard with pairs, bytes and sha256
    DIR/train/NNNNN-of-MMMMM.tar one member a pair: KEY.mp, a msgpack map (webdataset decodes it)
    DIR/val/NNNNN-of-MMMMM.tar
    DIR/text_tokenizer.json      the BPE of the tokens
    DIR/index, rejects, ledger.json

The map holds `caption` (str), `tokens` (bytes: uint16 little-endian), `codes` (bytes: uint16 or, of a vocabulary over
65,536, uint32 little-endian, crop after crop, each in raster order) and `draws` (int); where the image has further
texts, also `other_captions` (list of str).

The manifest has version 1 if codes are uint16 in a square grid, and names its side as `image_tokenizer.grid`. All other
codes have version 2, with `image_tokenizer.shape`, {"grid": [rows, columns]}, {"sequence": n} or {"scales": [[rows,
columns], ...]}, and `image_tokenizer.code_type`. Readers take both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgpack  # the only compact encoding that webdataset decodes by default
import msgspec  # decodes and checks types at once: what comes from outside has a schema
import numpy as np

from models import files as models_files
from models.data.retry import read_patiently
from models.errors import UserError
from models.tokenizers.info import UINT16, ImageTokenizerInfo, TextTokenizerInfo, upgrade_info

DATASET_FORMAT, DATASET_VERSIONS = "pairmill-dataset", (1, 2)
MANIFEST_FILE = "manifest.json"
INDEX_FOLDER = "index"
SPLITS = ("train", "val")
SAMPLE_SUFFIX = ".mp"
MAX_SAMPLE_BYTES = 1 << 26


# What names and numbers of a manifest may be. A name leads to a place inside the dataset, whatever it is joined to.
Name = Annotated[str, msgspec.Meta(pattern=r"\A(?:[A-Za-z0-9_][A-Za-z0-9_.=-]*/)*[A-Za-z0-9_][A-Za-z0-9_.=-]*\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Split = Annotated[str, msgspec.Meta(pattern=r"\A(?:train|val)\Z")]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Sample(NamedTuple):
    """One pair as tokens and codes."""

    key: str
    caption: str
    tokens: np.ndarray  # uint16 [n], n <= 256
    codes: np.ndarray  # uint16 or uint32 [draws, codes of an image], in raster order
    other_captions: tuple[str, ...] = ()  # further texts of the image


@dataclasses.dataclass(frozen=True)
class Shard:
    """A tar file of the dataset, as the manifest lists it."""

    path: Name  # relative to the dataset
    split: Split
    pairs: Count
    bytes: Count
    sha256: Sha256
    sources: dict[str, Count] = dataclasses.field(default_factory=dict)  # source -> pairs


@dataclasses.dataclass(frozen=True)
class File:
    """Any other file of the dataset: index, rejects, ledger, text tokenizer."""

    path: Name  # relative to the dataset
    bytes: Count
    sha256: Sha256


@dataclasses.dataclass(frozen=True)
class Manifest:
    """`manifest.json`: the content of the dataset and the settings that produced it."""

    shards: tuple[Shard, ...]
    image_tokenizer: ImageTokenizerInfo
    text_tokenizer: TextTokenizerInfo
    draws: Positive
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
            "version": 1 if self.image_tokenizer.fits_version_1 else 2,
            "pairs": {split: self.pairs(split) for split in SPLITS},
        }
        body |= dataclasses.asdict(self) | {"image_tokenizer": self.image_tokenizer.to_json()}
        return json.dumps(body | {"sha256": _digest_of(body)}, indent=1, sort_keys=True) + "\n"


def _digest_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(directory: str | Path) -> Manifest:
    """Reads DIR/manifest.json; DIR may be a URL. Raises UserError if it is missing, damaged or of another version."""
    path = models_files.join(directory, MANIFEST_FILE)
    try:
        body = json.loads(read_patiently(path))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: this is not a finished dataset; run `pairmill build` to its end"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable: {error}; build the dataset again") from None
    if not isinstance(body, dict) or body.get("format") != DATASET_FORMAT:
        raise UserError(f"{path} is not the manifest of a pairmill dataset; give a folder made by `pairmill build`")
    if body.get("version") not in DATASET_VERSIONS:
        raise UserError(f"{path} has version {body.get('version')}; this pairmill reads versions 1 and 2")
    if body.pop("sha256", None) != _digest_of(body):
        raise UserError(f"{path} is damaged or was edited: its hash does not match; build the dataset again")
    try:
        body["image_tokenizer"] = upgrade_info(body.get("image_tokenizer"))
        return msgspec.convert(body, Manifest)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is not as pairmill writes it: {error}; build the dataset again") from None


# --- samples and shards ----------------------------------------------------------------------------------------------


def pack_sample(caption: str, tokens: bytes, codes: bytes, draws: int, other_captions: Sequence[str] = ()) -> bytes:
    """Packs one tar member; `tokens` and `codes` are their little-endian bytes."""
    fields: dict[str, Any] = {"caption": caption, "tokens": tokens, "codes": codes, "draws": draws}
    packed: bytes = msgpack.packb(fields | ({"other_captions": list(other_captions)} if other_captions else {}))
    return packed


def pack_tokens(tokens: np.ndarray) -> bytes:
    """Converts tokens, integers [n] below 65,536, to the bytes of a sample: uint16 little-endian."""
    return tokens.astype(UINT16).tobytes()


class _Packed(msgspec.Struct):
    caption: str
    tokens: bytes
    codes: bytes
    draws: Positive
    other_captions: tuple[str, ...] = ()


_packed = msgspec.msgpack.Decoder(_Packed)


def unpack_sample(key: str, data: bytes, code_type: np.dtype) -> Sample:
    """Unpacks what `pack_sample` packed; the manifest's image tokenizer has the `code_type`. Raises ValueError for
    malformed data."""
    try:
        body = _packed.decode(data)
        tokens = np.frombuffer(body.tokens, UINT16)
        codes = np.frombuffer(body.codes, code_type).reshape(body.draws, -1)
        return Sample(key=key, caption=body.caption, tokens=tokens, codes=codes, other_captions=body.other_captions)
    except (ValueError, msgspec.MsgspecError) as error:
        raise ValueError(f"{key}{SAMPLE_SUFFIX} is not a sample: {error}") from error


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


def read_token_shard(path: str | Path, code_type: np.dtype) -> Iterator[Sample]:
    """Reads the samples of one tar file (local, or a URL), in order; `code_type` is as in `unpack_sample`.

    Raises ValueError for a damaged file.
    """
    try:
        with models_files.open_read(str(path)) as file:
            yield from unpack_samples(file, code_type)
    except OSError as error:
        raise ValueError(str(error)) from error


def unpack_samples(file: BinaryIO, code_type: np.dtype) -> Iterator[Sample]:
    """The samples of an open tar file, in order. Raises ValueError for a damaged file."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in _members(tar):
                member = tar.extractfile(info)
                assert member, "a regular file has content"
                yield unpack_sample(info.name.removesuffix(SAMPLE_SUFFIX), member.read(), code_type)
    except (tarfile.TarError, OSError, EOFError, OverflowError) as error:
        raise ValueError(str(error)) from error


def list_members(path: str | Path) -> Iterator[tuple[str, str]]:
    """Lists (key, source) of each sample of a tar file, in order. Raises as `read_token_shard`."""
    try:
        with models_files.open_read(str(path)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in _members(tar):
                yield info.name.removesuffix(SAMPLE_SUFFIX), info.uname
    except (tarfile.TarError, OSError, EOFError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a shard. Raises ValueError for what pairmill does not write: links, sparse files, long ones."""
    for info in tar:
        if not info.name.endswith(SAMPLE_SUFFIX):
            raise ValueError(f"unexpected member {info.name!r}")
        if not info.isreg() or info.issparse() or info.size > MAX_SAMPLE_BYTES:
            raise ValueError(f"{info.name!r} is not a regular file of at most {MAX_SAMPLE_BYTES:,} bytes")
        yield info


REBUILD_HINT = "copy it again or build the dataset again"


def index_path(shard: str) -> str:
    """The index file of a shard: train/NAME.tar -> index/train-NAME.parquet."""
    return f"{INDEX_FOLDER}/{shard.removesuffix('.tar').replace('/', '-')}.parquet"
