"""`pairmill show DIR`: prints pairs and rejected rows of a dataset, or writes them as one HTML page.

Of scores it writes a page of their distributions; of the output of select or fetch it only prints rows."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from models import files
from models.command_line import CommandParser
from models.data.format import MANIFEST_FILE, Manifest, Sample, read_manifest
from models.errors import UserError, printable
from models.files import check_file_place, write_atomically
from models.next_command import beside, print_output
from models.tokenizers.elsewhere import require_decoder
from models.tokenizers.image import ImageTokenizer, load_image_tokenizer, require_no_code
from models.tokenizers.info import TEXT_TOKENIZER_FILE, require_same_tokenizer
from models.tokenizers.text import TextTokenizer
from pipeline.fetch.addresses import parse_networks
from pipeline.fetch.download import FetchConfig
from pipeline.inspection.html_page import MAX_CARDS, Card, Report, render
from pipeline.inspection.score_page import score_page
from pipeline.inspection.show_rows import (
    PairQuery,
    choose_pairs,
    choose_rejects,
    fetch_originals,
    read_samples,
    stage_files,
)
from pipeline.inspection.stats import dataset_columns, summary
from pipeline.output.ledger import KEPT, load_ledger, rejects_by_reason
from pipeline.output.names import LEDGER_FILE, PAIRS_FOLDER, REJECTS_FOLDER, SCORES_FILE, WORK_FOLDER
from pipeline.scores.score_files import open_scores

MAX_COLUMNS = 100  # longer lines are hard to read


# --- in the terminal -------------------------------------------------------------------------------------------------


def listing(directory: str, manifest: Manifest, query: PairQuery, columns: int) -> Iterator[str]:
    """The lines that the terminal shows of a dataset."""
    text_tokenizer = load_text_tokenizer(directory, manifest)
    rows = choose_pairs(directory, manifest, query)
    samples = read_samples(directory, manifest, rows)
    yield f"{directory}: {selection_text(total_pairs(manifest), query, len(rows))}"
    for row in rows:
        yield ""
        yield from pair_lines(row, samples[row["key"]], text_tokenizer, columns)
    if not query.keys and query.search is None:
        yield from reject_lines(directory, manifest, query, columns)


def stage_listing(directory: str, query: PairQuery, columns: int) -> Iterator[str]:
    """The lines for an output of select, or of fetch, whose pairs are with the images: only its rejects are shown."""
    if not stage_files(directory, REJECTS_FOLDER):
        raise UserError(f"{directory}: holds only counts, as `pairmill select --dry-run` leaves them; run it without")
    kept = sum(counts[KEPT] for counts in load_ledger(directory)["sources"].values())
    if has_pairs := bool(kept and stage_files(directory, PAIRS_FOLDER)):
        rows = choose_pairs(directory, None, query)
        yield f"{directory}: {selection_text(kept, query, len(rows))}"
        for row in rows:
            yield ""
            yield from selected_lines(row, columns)
    if not has_pairs or (not query.keys and query.search is None):
        yield from reject_lines(directory, None, query, columns)


def selected_lines(row: dict[str, Any], columns: int) -> Iterator[str]:
    size = f"{row['width']:,} x {row['height']:,} px  " if row["width"] and row["height"] else ""
    yield (
        f"{row['key']}  {printable(row['source'])}  {printable(row['file'])} row {row['row']:,}  {size}{row['split']}"
    )
    yield from wrapped(row["caption"], columns)
    if row["raw_caption"] != row["caption"]:
        yield from wrapped(f"was: {row['raw_caption']}", columns)
    yield from other_caption_lines(row, columns)
    yield f"  {printable(row['url'])}"


def other_caption_lines(row: dict[str, Any], columns: int) -> Iterator[str]:
    for caption in row["other_captions"]:
        yield from wrapped(f"also: {caption}", columns)


def pair_lines(row: dict[str, Any], sample: Sample, text_tokenizer: TextTokenizer, columns: int) -> Iterator[str]:
    yield (
        f"{row['key']}  {printable(row['source'])}  {printable(row['file'])} row {row['row']:,}  "
        f"{row['width']:,} x {row['height']:,} px  {row['split']}"
    )
    yield from wrapped(row["caption"], columns)
    yield from other_caption_lines(row, columns)
    yield from wrapped(
        f"{len(sample.tokens)} tokens: {tokens_as_words(sample.tokens.tolist(), text_tokenizer)}", columns
    )
    yield f"  {printable(row['url'])}"


def reject_lines(directory: str, manifest: Manifest | None, query: PairQuery, columns: int) -> Iterator[str]:
    """A few rows of each reason, under the reason with its number of rows."""
    ledger = load_ledger(directory)
    counts = {name: row_counts for name, row_counts in ledger["sources"].items() if query.source in (None, name)}
    numbers = rejects_by_reason({"sources": counts})
    heading = None
    for row in choose_rejects(directory, manifest, query.seed, query.source):
        if heading != (heading := (row["stage"], row["reason"])):
            number = numbers.get(row["stage"], {}).get(row["reason"], 0)
            yield ""
            yield f"rejected in {row['stage']}, {row['reason']}: {number:,} row{'s' * (number != 1)}"
        detail = f": {row['detail']}" if row["detail"] else ""
        yield from wrapped(f"{row['source']} {row['file']} row {row['row']:,}{detail}", columns)
        if row["raw_caption"]:
            yield from wrapped(row["raw_caption"], columns, indent="    ")
        if row["url"]:
            yield f"    {printable(row['url'])}"


def tokens_as_words(tokens: Iterable[int], text_tokenizer: TextTokenizer) -> str:
    """The tokens one by one: a space where a word begins, a dot where one goes on."""
    pieces = [text_tokenizer.decode([token]) for token in tokens]
    return "".join(piece if piece.startswith(" ") else f"·{piece}" for piece in pieces).strip(" ·")


def wrapped(text: str, columns: int, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        printable(text),
        columns,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def total_pairs(manifest: Manifest) -> int:
    return sum(shard.pairs for shard in manifest.shards)


def selection_text(total: int, query: PairQuery, shown: int) -> str:
    """How the pairs were chosen, in words."""
    how = f", {query}" if str(query) else ""
    how += "" if query.keys else f", drawn by seed {query.seed}"
    return f"{shown:,} of {total:,} pair{'s' * (total != 1)}{how}."


# --- as a page -------------------------------------------------------------------------------------------------------


def page(directory: str, manifest: Manifest, query: PairQuery, spec: str, originals: FetchConfig | None) -> Report:
    """The content of the page. `originals` says how to download the images again; None leaves them out."""
    images = load_image_tokenizer_of(manifest, spec)
    rows = choose_pairs(directory, manifest, query)
    if len(rows) > MAX_CARDS:
        raise UserError(f"{len(rows):,} pairs are too many for one page; give at most {MAX_CARDS} keys")
    ledger = load_ledger(directory)
    measures = dataset_columns(directory, manifest, "show")
    cards = list(make_cards(directory, manifest, images, rows, originals))
    rejects = choose_rejects(directory, manifest, query.seed, query.source)
    return Report(
        name=folder_name(directory),
        manifest=manifest,
        stats=summary(manifest, ledger, measures),
        measures=measures,
        cards=cards,
        selection=selection_text(total_pairs(manifest), query, len(rows)),
        rejects=rejects,
        rejects_source=query.source,
    )


def make_cards(
    directory: str, manifest: Manifest, images: ImageTokenizer, rows: list[dict[str, Any]], config: FetchConfig | None
) -> Iterator[Card]:
    samples = read_samples(directory, manifest, rows)
    originals = fetch_originals(rows, images.info.image_size, config) if config else {}
    for row in rows:
        try:
            decoded = images.decode(samples[row["key"]].codes[0])
        except ValueError as error:
            raise UserError(f"{row['shard']}: {row['key']}: {error}; `pairmill verify` names all faults") from None
        yield Card(row, decoded, originals.get(row["key"]))


def folder_name(directory: str) -> str:
    return Path(directory).resolve().name


def _spec_of(args: argparse.Namespace, manifest: Manifest) -> str:
    manifest_path = files.join(args.directory, MANIFEST_FILE)
    return args.image_tokenizer or require_no_code(manifest.image_tokenizer.spec, manifest_path)


def load_image_tokenizer_of(manifest: Manifest, spec: str) -> ImageTokenizer:
    """The tokenizer that made the codes. Raises UserError for another, which would decode them to wrong images."""
    images = load_image_tokenizer(spec)
    require_decoder(
        images.info,
        manifest.image_tokenizer,
        f"image tokenizer {spec!r} is not the one that made these codes",
        "name that one's file with --image-tokenizer, or build the dataset again",
    )
    return images


def load_text_tokenizer(directory: str, manifest: Manifest) -> TextTokenizer:
    text_tokenizer = TextTokenizer.load(files.join(directory, TEXT_TOKENIZER_FILE))
    require_same_tokenizer(
        text_tokenizer.info.fingerprint,
        manifest.text_tokenizer.fingerprint,
        f"{directory}/{TEXT_TOKENIZER_FILE} is not the one that made these tokens",
        "build the dataset again",
    )
    return text_tokenizer


# --- the command -----------------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser("show", __doc__.split("\n")[0])
    parser.add_argument("directory", metavar="DIR", help="dataset, or output of another job")
    parser.add_argument("--html", metavar="FILE", help="write a self-contained HTML page with images and plots")
    parser.add_argument("--count", type=int, default=24, metavar="N", help="number of pairs to show (default: 24)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the choice of pairs (default: 0)")
    parser.add_argument(
        "--key", action="append", default=[], metavar="KEY", help="show the pair with this key; repeatable"
    )
    parser.add_argument("--source", metavar="NAME", help="show only pairs of this source, such as cc12m")
    parser.add_argument(
        "--search", metavar="TEXT", help="show only pairs whose caption contains TEXT, in capitals or not"
    )
    parser.add_argument(
        "--fetch-originals",
        action="store_true",
        help="download the images again, to show each crop beside its reconstruction; needs --html",
    )
    parser.add_argument(
        "--allow-address",
        action="append",
        default=[],
        metavar="CIDR",
        help="network that may be connected to although its addresses are not public, such as 127.0.0.0/8; repeatable",
    )
    parser.add_argument(
        "--image-tokenizer",
        metavar="SPEC",
        help="image tokenizer that made the codes, if its files have moved (default: the SPEC in the manifest)",
    )
    parser.add_argument(
        "--images",
        metavar="PATTERN",
        help="images that were scored, as `pairmill score --images` takes them, for the page of scores",
    )
    parser.add_argument(
        "--threshold",
        action="append",
        type=threshold,
        default=[],
        metavar="NAME=X",
        help="show the pairs on both sides of X on the page of scores, such as clip=0.28; repeatable",
    )
    return parser


def check(args: argparse.Namespace) -> None:
    """Raises UserError for options that are out of range or contradict each other."""
    if args.count < 1:
        raise UserError(f"--count {args.count}: give 1 or more")
    if args.html is None:
        if args.fetch_originals:
            raise UserError("--fetch-originals: only a page shows images; add --html FILE")
        if args.images or args.threshold:
            raise UserError("--images, --threshold: only the page of scores shows them; add --html FILE")
        return
    if args.count > MAX_CARDS:
        raise UserError(f"--count {args.count}: a page holds at most {MAX_CARDS} pairs")
    check_file_place("--html", args.html)


def is_stage_output(directory: str) -> bool:
    """Whether a job that writes no dataset has finished: its ledger, written last, is there, but no manifest."""
    there = [files.exists(files.join(directory, name)) for name in (MANIFEST_FILE, LEDGER_FILE, WORK_FOLDER)]
    return there == [False, True, False]


def show_scores(args: argparse.Namespace) -> int:
    """Writes the page of a folder of scores."""
    if not files.exists(files.join(args.directory, SCORES_FILE)):
        raise UserError(f"--html: {args.directory} holds no dataset and no scores, which pages show; leave out --html")
    if not args.images:
        raise UserError("--html: name the images that were scored by --images, so that the page can show them")
    name, thresholds = folder_name(args.directory), dict(args.threshold)
    data = score_page(name, open_scores(args.directory), args.images, thresholds).encode()
    write_atomically(args.html, data)
    print(f"show: scores, {len(data) / 1e6:.1f} MB")
    filtered = ["filter", "DATASET", "--scores", args.directory, "--where", "CONDITION", "--output", "FILTERED"]
    print_output("show", args.html, filtered)
    return 0


def threshold(text: str) -> tuple[str, float]:
    """The argparse type of NAME=X."""
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: give NAME=X, such as clip=0.28") from None


def main(arguments: list[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    check(args)
    allowed = parse_networks(args.allow_address)
    query = PairQuery(number=args.count, seed=args.seed, keys=tuple(args.key), source=args.source, search=args.search)
    columns = min(MAX_COLUMNS, shutil.get_terminal_size((MAX_COLUMNS, 0)).columns)
    if is_stage_output(args.directory):
        if args.html is not None:
            return show_scores(args)
        print("\n".join(stage_listing(args.directory, query, columns)))
        return 0
    manifest = read_manifest(args.directory)
    if args.html is None:
        print("\n".join(listing(args.directory, manifest, query, columns)))
        return 0
    originals = FetchConfig(retries=1, allow_addresses=allowed) if args.fetch_originals else None
    content = page(args.directory, manifest, query, _spec_of(args, manifest), originals)
    data = render(content).encode()
    write_atomically(args.html, data)
    missing = sum(isinstance(card.original, str) for card in content.cards)
    if missing:
        print(
            f"show: {missing:,} of {len(content.cards):,} originals could not be downloaded; the page says why",
            file=sys.stderr,
        )
    print(f"show: {len(content.cards):,} pairs, {len(data) / 1e6:.1f} MB")
    print_output("show", args.html, ["train", "--dataset", args.directory, "--output", beside(args.directory, "model")])
    return 0
