"""`pairmill stats DIR`: counts what a dataset holds and what was rejected, as tables or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models import files
from models.command_line import CommandParser
from models.data import format
from models.data.format import INDEX_FOLDER, MANIFEST_FILE, Manifest, Shard, read_manifest
from models.errors import UserError, printable
from models.next_command import print_next
from models.progress import track
from models.text_table import table
from pipeline.inspection.score_stats import score_stats, score_table
from pipeline.output.ledger import BalanceReport, load_ledger, rejects_by_reason
from pipeline.output.names import LEDGER_FILE, REJECTS_FOLDER, SCORES_FILE
from pipeline.output.parquet import read_columns
from pipeline.output.schemas import INDEX

STATS_COLUMNS = ["split", "source", "licence", "sha256", "phash", "caption"]  # columns of the index
MAX_DENSE_VOCABULARY = 1 << 22  # codes that are counted in an array of their vocabulary: 32 MB
QUANTILES = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}


class Measures(NamedTuple):
    """Measures of every pair, and the counts of codes and tokens, from which the statistics are computed."""

    index: pa.Table  # split, source, licence, sha256, phash, caption
    words: np.ndarray  # [pairs], of the caption
    tokens: np.ndarray  # [pairs], of the caption
    width: np.ndarray  # [pairs], px, upright
    height: np.ndarray  # [pairs]
    codes: np.ndarray  # [codes that occur], occurrences in all draws
    token_counts: np.ndarray  # [vocabulary], occurrences in all captions


def dataset_columns(directory: str, manifest: Manifest, command: str = "stats") -> Measures:
    """Reads the whole dataset once, with the progress line of a command."""
    index = read_index(directory, manifest, [*STATS_COLUMNS, "width", "height"])
    tokens, codes, token_counts = _count_tokens(directory, manifest, command)
    words = np.array([len(caption.split()) for caption in index["caption"].to_pylist()])
    width, height = (index[name].to_numpy() for name in ("width", "height"))
    return Measures(
        index=index.select(STATS_COLUMNS),
        words=words,
        tokens=tokens,
        width=width,
        height=height,
        codes=codes,
        token_counts=token_counts,
    )


def dataset_stats(directory: str) -> dict[str, Any]:
    """The statistics of a dataset on disk. Raises UserError unless the folder is a finished dataset."""
    manifest = read_manifest(directory)
    ledger = load_ledger(directory)
    return summary(manifest, ledger, dataset_columns(directory, manifest))


def summary(manifest: Manifest, ledger: dict[str, Any], measures: Measures) -> dict[str, Any]:
    """The statistics of a dataset as `--json` prints them."""
    index, width, height = measures.index, measures.width, measures.height
    return {
        "pairs": {split: manifest.pairs(split) for split in format.SPLITS},
        "pairs_by_source": _crosstab(index),
        "sources": ledger["sources"],
        "rejects_by_reason": rejects_by_reason(ledger),
        **({"balance": ledger["balance"]} if "balance" in ledger else {}),
        "captions": {"words": quantiles(measures.words), "tokens": quantiles(measures.tokens)},
        "pictures": {
            "shorter_side_px": quantiles(np.minimum(width, height)),
            "ratio": quantiles(width / np.maximum(height, 1)),
        },
        "licences": _counts(index["licence"]),
        "codes": code_usage(measures.codes, manifest.image_tokenizer.vocabulary),
        "text": code_usage(measures.token_counts, manifest.text_tokenizer.vocabulary),
        "duplicates_left": duplicates_left(index),
        "medians_by_source": medians_by_source(measures),
        "shards": {
            "number": len(manifest.shards),
            "bytes": sum(shard.bytes for shard in manifest.shards),
            "bytes_per_pair": round(sum(shard.bytes for shard in manifest.shards) / max(1, len(index)), 1),
        },
        "draws": manifest.draws,
        "codes_per_picture": manifest.image_tokenizer.shape.count,
        "image_tokenizer": manifest.image_tokenizer.to_json(),
        "text_tokenizer": vars(manifest.text_tokenizer),
    }


def read_index(directory: str, manifest: Manifest, columns: list[str]) -> pa.Table:
    """The index as a pyarrow table, in the manifest's order of shards. Raises UserError if it is not readable."""
    paths = [files.join(directory, file.path) for file in manifest.files if file.path.startswith(f"{INDEX_FOLDER}/")]
    try:
        tables = [read_columns(path, columns) for path in paths]
    except (OSError, ValueError) as error:
        raise UserError(f"{directory}: the index is not readable: {error}; `pairmill verify` names the file") from None
    empty = pa.schema([INDEX.field(name) for name in columns]).empty_table()
    return pa.concat_tables([empty, *tables])


def _count_tokens(directory: str, manifest: Manifest, command: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens of each caption [pairs], how often each code occurs that does [codes in use], how often each token does
    [vocabulary of the text tokenizer]). Raises UserError for a damaged shard."""
    images, lengths, codes = manifest.image_tokenizer, [], Occurrences(manifest.image_tokenizer.vocabulary)
    tokens = np.zeros(manifest.text_tokenizer.vocabulary, np.int64)
    for shard in track(manifest.shards, command, "shards", len(manifest.shards)):
        here = list(iter_samples(directory, shard, images.code_type))
        if here:  # counted shard by shard: a count for each sample would touch the whole vocabulary each time
            lengths += [len(sample.tokens) for sample in here]
            codes.add(np.concatenate([sample.codes.ravel() for sample in here]))
            tokens += np.bincount(np.concatenate([sample.tokens for sample in here]), minlength=len(tokens))
    return np.array(lengths), codes.counts, tokens


class Occurrences:
    """Counts how often codes occur. Of a large vocabulary, memory holds only the codes that do."""

    def __init__(self, vocabulary: int):
        self._is_dense = vocabulary <= MAX_DENSE_VOCABULARY
        self._codes = np.zeros(0, np.uint32)  # those that occur, unless counts are dense
        self._counts = np.zeros(vocabulary if self._is_dense else 0, np.int64)

    @property
    def counts(self) -> np.ndarray:
        """The counts of the codes that occur, int64, in the order of the codes."""
        return self._counts[self._counts > 0]

    def add(self, codes_N: np.ndarray) -> None:
        """Counts codes, integers [N]. Raises ValueError for those outside a vocabulary whose counts are dense."""
        if self._is_dense:
            self._counts += np.bincount(codes_N, minlength=len(self._counts))
            return
        found, counts = np.unique(codes_N, return_counts=True)
        self._codes, place = np.unique(np.concatenate([self._codes, found]), return_inverse=True)
        merged = np.zeros(len(self._codes), np.int64)
        np.add.at(merged, place, np.concatenate([self._counts, counts]))
        self._counts = merged


def iter_samples(directory: str, shard: Shard, code_type: np.dtype) -> Iterator[format.Sample]:
    """The samples of a shard, in order. Raises UserError for a damaged one."""
    try:
        yield from format.read_token_shard(files.join(directory, shard.path), code_type)
    except ValueError as error:
        raise UserError(f"{shard.path} is damaged: {error}; `pairmill verify` lists all damage") from None


def quantiles(values: np.ndarray) -> dict[str, float]:
    """QUANTILES of the values, [N], and their mean, to three digits; {} without a value."""
    if not len(values):
        return {}
    spread = {name: round(float(np.percentile(values, q)), 3) for name, q in QUANTILES.items()}
    return spread | {"mean": round(float(values.mean()), 3)}


def code_usage(counts: np.ndarray, vocabulary: int) -> dict[str, Any]:
    """How much of a vocabulary is used, and the entropy of the codes in bits. `counts`: [vocabulary], or fewer where
    codes that do not occur are left out."""
    share = counts[counts > 0] / max(1, counts.sum())
    entropy = float(-(share * np.log2(share)).sum()) if len(share) else 0.0
    return {
        "vocabulary": vocabulary,
        "used": int((counts > 0).sum()),
        "entropy_bits": round(entropy, 3),
        "most_bits": round(math.log2(vocabulary), 3),
        "perplexity": round(2**entropy, 1),
        "zipf_exponent": zipf_exponent(counts),
    }


def zipf_exponent(counts: np.ndarray) -> float:
    """s of frequency ~ rank^-s, by least squares on the logarithms; 0 is even use, words of a language have about 1.
    `counts`: int64 [N], in any order."""
    ordered = np.sort(counts[counts > 0])[::-1]
    if len(ordered) < 2:
        return 0.0
    slope = np.polyfit(np.log(np.arange(1, len(ordered) + 1)), np.log(ordered), 1)[0]
    return abs(round(float(slope), 3))


def duplicates_left(index: pa.Table) -> dict[str, int]:
    """Counts of pairs that share something with an earlier pair; a few are normal. `index` has STATS_COLUMNS."""
    captions = pc.utf8_lower(index["caption"])
    return {
        name: len(stated := column.filter(pc.not_equal(column, ""))) - len(pc.unique(stated))
        for name, column in (
            ("same_picture", index["sha256"]),
            ("same_perceptual_hash", index["phash"]),
            ("same_caption", captions),
        )
    }


def medians_by_source(measures: Measures) -> dict[str, dict[str, float]]:
    """Source -> medians of its pairs: words, tokens, shorter side in px."""
    sources = measures.index["source"].to_numpy(zero_copy_only=False)
    side = np.minimum(measures.width, measures.height)
    return {
        str(source): {
            name: round(float(np.median(values[sources == source])), 1)
            for name, values in (("words", measures.words), ("tokens", measures.tokens), ("shorter_side_px", side))
        }
        for source in np.unique(sources)
    }


def _crosstab(index: pa.Table) -> dict[str, dict[str, int]]:
    grouped = index.group_by(["source", "split"]).aggregate([([], "count_all")]).to_pylist()
    table: dict[str, dict[str, int]] = {}
    for row in sorted(grouped, key=lambda row: (row["source"], row["split"])):
        table.setdefault(row["source"], dict.fromkeys(format.SPLITS, 0))[row["split"]] = row["count_all"]
    return table


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = {row["values"] or "not stated": row["counts"] for row in pc.value_counts(column).to_pylist()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


# --- tables ----------------------------------------------------------------------------------------------------------


def ledger_tables(ledger: dict[str, Any]) -> str:
    """Tables of rows by source and of rejects by stage and reason."""
    source_rows = [
        (name, counts["read"], counts["kept"], sum(sum(reasons.values()) for reasons in counts["rejected"].values()))
        for name, counts in sorted(ledger["sources"].items())
    ]
    total = ("all", *(sum(row[i] for row in source_rows) for i in (1, 2, 3)))
    reasons = [
        (stage, reason, number)
        for stage, numbers in rejects_by_reason(ledger).items()
        for reason, number in numbers.items()
    ]
    return "\n\n".join(
        [
            table(["source", "read", "kept", "rejected"], [*source_rows, total]),
            table(["stage", "reason", "rows"], reasons),
            *([balance_tables(ledger["balance"])] if "balance" in ledger else []),
        ]
    )


def balance_tables(report: BalanceReport) -> str:
    """Tables of head and tail of the groups that were balanced, before and after."""
    by, limit = report["by"], report["limit"]
    parts = [
        (f"head: {by}s of more than {limit:,}", report["head"]),
        (f"tail: {by}s of up to {limit:,}", report["tail"]),
    ]
    header = ["pairs before", "after"]
    rows = [(name, each["groups"], each["before"], each["after"]) for name, each in parts]
    return "\n\n".join(
        [
            f"balance by {by}, limit {limit:,}: {report['pairs']['before']:,} pairs before, "
            f"{report['pairs']['after']:,} after",
            table(["balance", f"{by}s", *header], rows),
            table([f"largest {by}s", *header], [tuple(each.values()) for each in report["largest"]]),
            table(
                [f"pairs of a {by}", f"{by}s before", "after"],
                [(f"up to {each['to']:,}", each["before"], each["after"]) for each in report["sizes"]],
            ),
        ]
    )


def stats_tables(stats: dict[str, Any]) -> str:
    pairs = [(source, splits["train"], splits["val"]) for source, splits in stats["pairs_by_source"].items()]
    spreads = [
        (name, *values.values())
        for name, values in (
            ("caption words", stats["captions"]["words"]),
            ("caption tokens", stats["captions"]["tokens"]),
            ("shorter side, px", stats["pictures"]["shorter_side_px"]),
            ("width / height", stats["pictures"]["ratio"]),
        )
        if values
    ]
    shards = stats["shards"]
    return "\n\n".join(
        [
            table(["pairs by source", *format.SPLITS], [*pairs, ("all", *stats["pairs"].values())]),
            ledger_tables(stats),
            table(["spread", *QUANTILES, "mean"], spreads),
            table(
                ["median by source", "words", "tokens", "shorter side, px"],
                [(source, *values.values()) for source, values in stats["medians_by_source"].items()],
            ),
            table(["licence", "pairs"], stats["licences"].items()),
            table(
                ["duplicates left", "pairs"],
                [(name.replace("_", " "), number) for name, number in stats["duplicates_left"].items()],
            ),
            *(
                f"{name}: {usage['used']:,} of {usage['vocabulary']:,} used, entropy {usage['entropy_bits']} of "
                f"{usage['most_bits']} bits, perplexity {usage['perplexity']:,}, Zipf exponent {usage['zipf_exponent']}"
                for name, usage in (("codes", stats["codes"]), ("tokens", stats["text"]))
            ),
            f"shards: {shards['number']:,}, {shards['bytes']:,} bytes, {shards['bytes_per_pair']:,} a pair, "
            f"{stats['draws']} draw{'s' * (stats['draws'] != 1)}",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser("stats", __doc__.split("\n")[0])
    parser.add_argument("directory", metavar="DIR", help="dataset, or output of another job")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON instead of tables")
    args = parser.parse_args(arguments)
    is_dataset = files.exists(files.join(args.directory, MANIFEST_FILE))
    if not is_dataset and not files.exists(files.join(args.directory, LEDGER_FILE)):
        raise UserError(f"{args.directory} holds neither {MANIFEST_FILE} nor {LEDGER_FILE}: nothing finished is there")
    if is_dataset:
        stats = dataset_stats(args.directory)
        print(_json_text(stats) if args.json else stats_tables(stats))
        next_commands = [["verify", args.directory]]
    else:
        ledger = load_ledger(args.directory)
        scores = score_stats(args.directory) if files.exists(files.join(args.directory, SCORES_FILE)) else {}
        if args.json:
            print(_json_text(ledger | ({"scores": scores} if scores else {})))
        else:
            print("\n\n".join([ledger_tables(ledger), *([score_table(scores)] if scores else [])]))
        has_rows = not scores and files.exists(
            files.join(args.directory, REJECTS_FOLDER)
        )  # a dry run leaves only counts
        next_commands = [["show", args.directory]] if has_rows else []
    if not args.json:
        print_next(*next_commands)
    return 0


def _json_text(value: Any) -> str:
    """JSON as people read it, without what could control their terminal."""
    return "\n".join(map(printable, json.dumps(value, indent=1, ensure_ascii=False).split("\n")))
