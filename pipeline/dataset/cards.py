"""Descriptions of a dataset: README.md for people, croissant.json (MLCommons Croissant) for tools.

Both depend on the data and the settings alone, not on date or folder: the same dataset has the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from models.data.format import INDEX_FOLDER, MANIFEST_FILE, SPLITS, File, Manifest
from models.errors import printable
from pipeline.output.files import to_json
from pipeline.version import VERSION

NOT_STATED = "not stated"
MAX_LICENCES = 50  # the most frequent of thousands of spellings
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
FIELDS = (  # of index/*.parquet, but for those that hold lists
    ("key", "sc:Text", "32 hex digits, unique over all sources"),
    ("split", "sc:Text", "train or val, by hash of the key"),
    ("source", "sc:Text", "the list that has the pair"),
    ("file", "sc:Text", "the list's file"),
    ("row", "sc:Integer", "the row in that file, from 0"),
    ("url", "sc:URL", "where the picture was fetched"),
    ("caption", "sc:Text", "cleaned, in its own case"),
    ("width", "sc:Integer", "px of the picture as fetched, upright"),
    ("height", "sc:Integer", "px of the picture as fetched, upright"),
    ("licence", "sc:Text", "as the source states it; may be empty"),
    ("page_url", "sc:URL", "the page that shows the picture; may be empty"),
    ("sha256", "sc:Text", "of the picture's bytes as fetched"),
    ("phash", "sc:Text", "64-bit perceptual hash, 16 hex digits"),
    ("shard", "sc:Text", "the tar file that holds the codes and tokens, as KEY.mp"),
    ("position", "sc:Integer", "the place in that tar file, from 0"),
)


def content_name(manifest: Manifest) -> str:
    """A name by the hash of the shards, in whatever folder they are."""
    digest = hashlib.sha256("".join(shard.sha256 for shard in manifest.shards).encode()).hexdigest()
    return f"pairmill-{digest[:12]}"


def describe(manifest: Manifest) -> str:
    images, pairs = manifest.image_tokenizer, sum(map(manifest.pairs, SPLITS))
    return (
        f"{pairs:,} captions and pictures as tokens: {images.shape} image codes of a vocabulary of "
        f"{images.vocabulary:,}, and BPE tokens of a vocabulary of {manifest.text_tokenizer.vocabulary:,}. "
        "No picture is contained."
    )


def croissant(manifest: Manifest, licences: Mapping[str, int], files: list[File]) -> bytes:
    """JSON-LD whose records are the rows of the index. `files` are listed with their hashes."""
    shown = list(by_number(licences))
    return to_json(
        {
            "@context": CONTEXT,
            "@type": "sc:Dataset",
            "name": content_name(manifest),
            "description": describe(manifest),
            "conformsTo": CONFORMS_TO,
            "version": f"{VERSION}",
            "license": [name for name in shown if name != NOT_STATED][:MAX_LICENCES] or [NOT_STATED],
            "citeAs": "the publications of the sources that ledger.json names",
            "url": MANIFEST_FILE,
            "distribution": [
                *(
                    {
                        "@type": "cr:FileObject",
                        "@id": file.path,
                        "name": file.path,
                        "contentUrl": file.path,
                        "contentSize": f"{file.bytes} B",
                        "encodingFormat": "application/json",
                        "sha256": file.sha256,
                    }
                    for file in files
                ),
                _file_set(
                    INDEX_FOLDER,
                    f"{INDEX_FOLDER}/*.parquet",
                    "application/x-parquet",
                    "a row for each pair",
                ),
                *(
                    _file_set(
                        split,
                        f"{split}/*.tar",
                        "application/x-tar",
                        "one member a pair, KEY.mp: a msgpack map of caption, tokens, codes and draws",
                    )
                    for split in SPLITS
                ),
            ],
            "recordSet": [
                {
                    "@type": "cr:RecordSet",
                    "@id": "pairs",
                    "name": "pairs",
                    "description": "one a pair: the index",
                    "key": {"@id": "pairs/key"},
                    "field": [
                        {
                            "@type": "cr:Field",
                            "@id": f"pairs/{name}",
                            "name": name,
                            "description": description,
                            "dataType": kind,
                            "source": {"fileSet": {"@id": "index"}, "extract": {"column": name}},
                        }
                        for name, kind, description in FIELDS
                    ],
                }
            ],
        }
    )


def _file_set(name: str, pattern: str, encoding: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "includes": pattern,
        "encodingFormat": encoding,
        "description": description,
    }


def data_card(manifest: Manifest, ledger: Mapping[str, Any], licences: Mapping[str, int]) -> bytes:
    """README.md: what is in the dataset, where it comes from, what made it, how to read it."""
    images, text = manifest.image_tokenizer, manifest.text_tokenizer
    size = sum(shard.bytes for shard in manifest.shards)
    pairs = sum(map(manifest.pairs, SPLITS))
    source_rows = [
        (name, counts["read"], counts["kept"], counts["read"] - counts["kept"])
        for name, counts in sorted(ledger["sources"].items())
    ]
    counted = list(by_number(licences).items())
    remaining = sum(number for _, number in counted[MAX_LICENCES:])
    shown = counted[:MAX_LICENCES] + [("others", remaining)] * (remaining > 0)
    files = manifest.settings.get("select", manifest.settings).get("files", [])
    return "\n".join(
        [
            "---",
            "license: other",
            "task_categories:",
            "- text-to-image",
            "configs:",
            "- config_name: default",
            "  data_files:",
            *(
                f"  - split: {'validation' if split == 'val' else split}\n    path: {split}/*.tar"
                for split in SPLITS
                if manifest.pairs(split)
            ),
            "---",
            "",
            f"# {content_name(manifest)}",
            "",
            describe(manifest),
            "",
            *_table(
                ("split", "pairs", "shards"),
                [
                    (split, manifest.pairs(split), sum(shard.split == split for shard in manifest.shards))
                    for split in SPLITS
                ],
            ),
            f"{size:,} bytes of shards, {size / max(1, pairs):,.0f} a pair; {manifest.draws} "
            f"draw{'s' * (manifest.draws != 1)} of {images.shape.count:,} codes a picture.",
            "",
            "## Sources",
            "",
            "Every row read is kept, or rejected with a reason: see `ledger.json` and `rejects/`.",
            "",
            *_table(("source", "rows read", "kept", "rejected"), source_rows),
            *(
                _table(("file", "bytes", "sha256"), [(f["name"], f["bytes"], f.get("sha256", "")) for f in files])
                if files
                else []
            ),
            "## Licences",
            "",
            "Of the pictures, as the sources state them. The captions and the pictures' addresses are "
            "under the terms of their sources.",
            "",
            *_table(("licence", "pairs"), shown),
            "## Made with",
            "",
            *_table(
                ("what", "which"),
                [
                    (
                        "image tokenizer",
                        _Ready(
                            f"{_code(images.spec)}, {images.vocabulary:,} codes"
                            + f", {images.image_size} px" * bool(images.image_size)
                        ),
                    ),
                    ("its fingerprint", _code(images.fingerprint)),
                    ("text tokenizer", f"BPE, {text.vocabulary:,} tokens, at most {text.max_tokens:,} a caption"),
                    ("its fingerprint", _code(text.fingerprint)),
                    *((name, version) for name, version in sorted(manifest.versions.items())),
                ],
            ),
            "## Reading it",
            "",
            "`manifest.json` names every file with its sha256 and holds all settings; `pairmill verify` checks them. A "
            "sample is one tar member, `KEY.mp`, which `webdataset` decodes by itself:",
            "",
            "```python",
            "import numpy as np, webdataset as wds",
            "",
            f'for sample in wds.WebDataset("{manifest.shards[0].path if manifest.shards else "train/SHARD.tar"}", '
            "shardshuffle=False).decode():",
            '    pair = sample["mp"]',
            f'    codes = np.frombuffer(pair["codes"], "{images.code_type.str}").reshape(pair["draws"], -1)',
            '    tokens = np.frombuffer(pair["tokens"], "<u2")',
            "```",
            "",
        ]
    ).encode()


def by_number(licences: Mapping[str, int]) -> dict[str, int]:
    """Sorted by frequency, then by name; "" becomes NOT_STATED."""
    return dict(
        sorted(
            ((name or NOT_STATED, number) for name, number in licences.items()), key=lambda item: (-item[1], item[0])
        )
    )


def _table(header: tuple[str, ...], rows: list[tuple]) -> list[str]:
    lines = [header, tuple("--:" if rows and isinstance(rows[0][i], int) else "---" for i in range(len(header))), *rows]
    return [
        "| " + " | ".join(_cell(f"{cell:,}" if isinstance(cell, int) else cell) for cell in row) + " |" for row in lines
    ] + [""]


_MARKDOWN = str.maketrans({**{mark: f"\\{mark}" for mark in "\\|[]!`"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})
_LINK = re.compile(r"(?<=:)//|(?<=www)\.|@", re.IGNORECASE)  # what GitHub makes a link of, without any brackets


class _Ready(str):
    """Markdown that needs no more escapes."""


def _cell(text: str) -> str:
    """Escapes text from the web, so that it neither ends a cell nor is read as HTML, a link or an image."""
    if isinstance(text, _Ready):
        return text
    return _LINK.sub(_entity, printable(" ".join(text.split())).translate(_MARKDOWN))


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0][0])};{match[0][1:]}"


def _code(text: str) -> _Ready:
    """Text as code in a cell."""
    return _Ready("`" + printable(" ".join(text.split())).replace("`", "'").replace("|", "\\|") + "`")
