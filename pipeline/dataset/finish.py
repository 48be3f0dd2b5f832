"""The last step of a dataset: ledger, cards, manifest."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from models.data import format
from models.data.format import File, Manifest, Shard
from models.tokenizers.info import TEXT_TOKENIZER_FILE, ImageTokenizerInfo, TextTokenizerInfo
from pipeline.dataset import cards
from pipeline.dataset.balance_report import PartialReport, merge_reports, report_json
from pipeline.dataset.shards import WrittenShard
from pipeline.output import files as output_files
from pipeline.output import ledger
from pipeline.output.files import WrittenFile, write_file
from pipeline.output.finish import remove_stale_files
from pipeline.output.names import CROISSANT_FILE, LEDGER_FILE, README_FILE, REJECTS_FOLDER


def identity(parts: ManifestFields) -> dict[str, Any]:
    """What must be equal in two runs for the second to resume the first."""
    return parts.settings | {
        "image_tokenizer": parts.image_tokenizer.fingerprint,
        "text_tokenizer": parts.text_tokenizer.fingerprint,
        "versions": parts.versions,
    }


FOLDERS = (*format.SPLITS, format.INDEX_FOLDER, REJECTS_FOLDER)


@dataclasses.dataclass(frozen=True)
class ManifestFields:
    """Fields of the manifest other than the shards and files."""

    image_tokenizer: ImageTokenizerInfo
    text_tokenizer: TextTokenizerInfo
    text_tokenizer_json: str
    draws: int
    settings: dict
    versions: dict
    sources: tuple[str, ...]  # those asked for: a source whose files are empty has its totals, too


def finish_dataset(
    output: str,
    parts: ManifestFields,
    shards: list[WrittenShard],
    rejects: list[WrittenFile],
    counts: list[ledger.Count],
    balance: Sequence[PartialReport] = (),
) -> None:
    """Writes ledger, tokenizer, cards and, last, the manifest. Removes stale files of an interrupted run."""
    totals = ledger.build_ledger(counts, parts.sources)
    if balance:
        asked = parts.settings["balance"]
        totals["balance"] = report_json(merge_reports(balance), asked["by"], asked["limit"])
    named = [
        write_file(output, LEDGER_FILE, output_files.to_json(totals)),
        write_file(output, TEXT_TOKENIZER_FILE, parts.text_tokenizer_json.encode()),
    ]
    manifest = Manifest(
        shards=tuple(
            Shard(
                path=shard.path,
                split=shard.split,
                pairs=shard.pairs,
                bytes=shard.bytes,
                sha256=shard.sha256,
                sources=dict(shard.sources),
            )
            for shard in sorted(shards, key=lambda shard: shard.path)
        ),
        image_tokenizer=parts.image_tokenizer,
        text_tokenizer=parts.text_tokenizer,
        draws=parts.draws,
        settings=parts.settings,
        versions=parts.versions,
    )
    licences = sum((Counter(shard.licences) for shard in shards), Counter())
    files = [
        *rejects,
        *(shard.index_file for shard in shards),
        *named,
        *write_cards(output, manifest, totals, licences, named),
    ]
    manifest = dataclasses.replace(manifest, files=tuple(map(_entry, sorted(files))))
    written = {shard.path for shard in shards} | {file.path for file in files}
    remove_stale_files(output, FOLDERS, written)
    output_files.write_atomically(output_files.join(output, format.MANIFEST_FILE), manifest.to_json().encode())


def _entry(file: WrittenFile) -> File:
    return File(file.path, file.bytes, file.sha256)


def write_cards(
    output: str, manifest: Manifest, totals: dict[str, Any], licences: Mapping[str, int], named: list[WrittenFile]
) -> list[WrittenFile]:
    """Writes README.md and croissant.json, which list the files of `named` with their hashes."""
    description = cards.croissant(manifest, licences, list(map(_entry, named)))
    return [
        write_file(output, README_FILE, cards.data_card(manifest, totals, licences)),
        write_file(output, CROISSANT_FILE, description),
    ]
