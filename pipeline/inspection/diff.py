"""`pairmill diff A B`: compares two datasets pair by pair; the exit status is 0 if all pairs are equal, else 1."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from models.command_line import CommandParser
from models.data.format import Manifest, read_manifest
from models.errors import UserError, printable
from models.files import is_url
from models.next_command import print_next
from models.progress import track
from models.text_table import table
from pipeline.inspection.stats import iter_samples, read_index

EXAMPLES = 5  # keys shown of each kind
FIELDS = ("caption", "source", "url", "licence", "split", "width", "height", "sha256")


def differences(left: str, right: str) -> tuple[list[str], list[list[str]]]:
    """(lines that describe the differences, commands that show pairs that differ: none if all are equal). Raises
    UserError for a damaged dataset."""
    manifests = read_manifest(left), read_manifest(right)
    lines = list(_settings(*manifests))
    indices = [_by_key(directory, manifest) for directory, manifest in zip((left, right), manifests, strict=True)]
    only = [sorted(left_index.keys() - right_index.keys()) for left_index, right_index in (indices, indices[::-1])]
    both = sorted(indices[0].keys() & indices[1].keys())
    changed: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    tokens = _digests((left, right), manifests)
    for key in both:
        left_row, right_row = indices[0][key], indices[1][key]
        for name in (
            *(name for name in FIELDS if left_row[name] != right_row[name]),
            *(name for i, name in enumerate(("tokens", "codes")) if tokens[0][key][i] != tokens[1][key][i]),
        ):
            changed[name] += 1
            examples.setdefault(name, []).append(key)
    sources = sorted({row["source"] for index in indices for row in index.values()})
    lines.append(
        table(
            ["source", "pairs in A", "pairs in B", "only in A", "only in B"],
            [
                (
                    source,
                    *(sum(row["source"] == source for row in index.values()) for index in indices),
                    *(sum(indices[i][key]["source"] == source for key in only[i]) for i in (0, 1)),
                )
                for source in sources
            ],
        )
    )
    if changed:
        lines.append(
            table(
                ["differs in both", "pairs", "for example"],
                [(name, number, examples[name][0]) for name, number in sorted(changed.items())],
            )
        )
    for name, keys in (("A", only[0]), ("B", only[1])):
        lines += [f"only in {name}: {printable(key)}" for key in keys[:EXAMPLES]]
        lines += [f"only in {name}: {len(keys) - EXAMPLES:,} more"] * (len(keys) > EXAMPLES)
    lines.append(
        f"{len(both):,} pairs in both, {len(only[0]):,} only in A, {len(only[1]):,} only in B; "
        f"{len({key for keys in examples.values() for key in keys}):,} of those in both differ"
    )
    first = sorted(key for keys in examples.values() for key in keys)[:1]
    shown = [(left, first), (right, first), (left, only[0][:1]), (right, only[1][:1])]
    return lines, [["show", directory, "--key", printable(key)] for directory, keys in shown for key in keys]


def _settings(left: Manifest, right: Manifest) -> Iterator[str]:
    """A line for each setting, version and tokenizer that differs."""
    named = [
        {
            **dict(_flat("settings", manifest.settings)),
            **dict(_flat("versions", manifest.versions)),
            "draws": manifest.draws,
            "image tokenizer": manifest.image_tokenizer.fingerprint,
            "text tokenizer": manifest.text_tokenizer.fingerprint,
        }
        for manifest in (left, right)
    ]
    for name in sorted({*named[0], *named[1]}):
        left_value, right_value = (fields.get(name, "not there") for fields in named)
        if left_value != right_value:
            yield printable(f"{name}: {left_value} -> {right_value}")


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}", inner)
    else:
        yield path, value


def _by_key(directory: str, manifest: Manifest) -> dict[str, dict[str, Any]]:
    rows: pa.Table = read_index(directory, manifest, ["key", *FIELDS])
    return {row["key"]: row for row in rows.to_pylist()}


def _digests(directories: Sequence[str], manifests: Sequence[Manifest]) -> list[dict[str, tuple[bytes, bytes]]]:
    """For each dataset: key -> hashes of its tokens and codes. Raises UserError for a damaged shard."""
    found: list[dict[str, tuple[bytes, bytes]]] = [{} for _ in manifests]
    shards = [(side, shard) for side, manifest in enumerate(manifests) for shard in manifest.shards]
    for side, shard in track(shards, "diff", "shards", len(shards)):
        for sample in iter_samples(directories[side], shard, manifests[side].image_tokenizer.code_type):
            found[side][sample.key] = _digest(sample.tokens.tobytes()), _digest(sample.codes.tobytes())
    return found


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _location(directory: str) -> str:
    return directory.rstrip("/") if is_url(directory) else os.path.realpath(directory)


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser("diff", __doc__.split("\n")[0])
    parser.add_argument("left", metavar="A", help="dataset to compare")
    parser.add_argument("right", metavar="B", help="dataset to compare A with")
    args = parser.parse_args(arguments)
    if _location(args.left) == _location(args.right):
        raise UserError(f"{args.left} and {args.right} are the same folder; name two datasets")
    lines, next_commands = differences(args.left, args.right)
    print("\n".join(lines))
    print_next(*next_commands)
    return 1 if next_commands else 0
