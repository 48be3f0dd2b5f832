"""Ranges of rows of codes to records, as a step of a job."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared

from models.tokenizers.info import require_same_tokenizer
from models.tokenizers.text import TextTokenizer
from pipeline.codes.code_files import CodeRange, CodeRow, read_rows
from pipeline.codes.row_codes import CodeForm
from pipeline.codes.row_records import encode_row
from pipeline.dataset.existing import ExistingDataset, known_keys
from pipeline.output.counts import Step, counts_of
from pipeline.output.work_folder import CompletedUnits, add_outcomes, unit_name
from pipeline.records import REJECTED_TAG, EncodedPair, Rejected
from pipeline.sources.paths import base_name

ROWS_PER_UNIT = 1024
"""Rows that a worker holds in memory, and that a resumed job need not encode again."""


@dataclasses.dataclass(frozen=True)
class CodesConfig:
    form: CodeForm
    code_type: np.dtype  # of the shards
    text_tokenizer: str  # content of a tokenizer.json; empty: the one of the package
    text_fingerprint: str  # of the launcher's


class EncodeCodes(beam.DoFn):
    """CodeRange -> its records, without those in `existing`; rejects under their tag."""

    def __init__(self, output: str, config: CodesConfig, existing: Sequence[ExistingDataset] = ()):
        self._output, self._store, self._config = output, CompletedUnits(output), config
        self._existing, self._shared = existing, Shared()

    def setup(self) -> None:
        self._text = self._shared.acquire(partial(load_text_tokenizer, self._config))
        self._known = [known_keys(dataset, unfetched=False) for dataset in self._existing]

    def process(self, code_range: CodeRange):
        name = unit_name(repr(code_range))
        rows = read_rows(code_range)
        for number, first in enumerate(rows):
            unit = [first, *itertools.islice(rows, ROWS_PER_UNIT - 1)]
            records, rejects = self._outcomes(f"{name}-{number:06d}", code_range, unit)
            yield from records
            for row in rejects:
                yield beam.pvalue.TaggedOutput(REJECTED_TAG, row)

    def _outcomes(
        self, unit: str, code_range: CodeRange, rows: list[CodeRow]
    ) -> tuple[list[EncodedPair], list[Rejected]]:
        counts, work = counts_of(self._output), len(rows) / code_range.rows
        records, rejects = self._store.load(unit)
        if records or rejects:
            counts.step(Step.ENCODE, before=len(rows), work_before=work)
        else:
            add_outcomes(self._encoded(rows, base_name(code_range.file.path)), records, rejects)
            self._store.save(unit, records, rejects)
            counts.step(Step.ENCODE, done=len(rows), work=work)
        return records, rejects

    def _encoded(self, rows: Iterable[CodeRow], file: str) -> Iterator[EncodedPair | Rejected]:
        config = self._config
        for row in rows:
            outcome = encode_row(row, file, config.form, config.code_type, self._text)
            if not any(outcome.key in keys for keys in self._known):
                yield outcome


def load_text_tokenizer(config: CodesConfig) -> TextTokenizer:
    """Raises UserError for another tokenizer than the launcher's."""
    text = TextTokenizer(config.text_tokenizer) if config.text_tokenizer else TextTokenizer.load()
    require_same_tokenizer(
        text.info.fingerprint,
        config.text_fingerprint,
        "a worker has another tokenizer than the launcher",
        "install the same version of pairmill there",
    )
    return text
