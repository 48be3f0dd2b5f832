"""`pairmill show` on a small dataset written by the real writers, with a tiny untrained image tokenizer."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from models import pixels
from models.data.format import read_manifest
from models.errors import UserError
from models.tokenizers.dvae import DVAE, DVAEConfig, save_dvae
from pipeline.cli import main
from pipeline.dataset.finish import ManifestFields, finish_dataset
from pipeline.dataset.shards import write_shard
from pipeline.images.fetched import FetchedImage
from pipeline.inspection import html_page, show, svg_plots
from pipeline.inspection import stats as inspection_stats
from pipeline.inspection.show_rows import PairQuery, choose_pairs, choose_rejects, original_crop, sample_indices
from pipeline.inspection.stats import Measures
from pipeline.output.files import write_file
from pipeline.output.ledger import KEPT, READ
from pipeline.output.parquet import table_bytes
from pipeline.output.schemas import REJECTS
from pipeline.records import EncodedPair, Rejected, row_key
from pipeline.tokenize_stage import EncodeConfig, PairEncoder
from tests.support.datasets import tiny_text_tokenizer
from tests.support.fetching import pair
from tests.support.folder_server import serving

SIZE, IMAGES = 32, 6
SCRIPT = "A <script>alert('x')</script> in the \"caption\" & more"
HOSTILE = "<script>'\"&amp;\u202eevil\u2066\x00"
CAPTIONS = [SCRIPT, *(f"A red cat in the snow, number {i}" for i in range(1, 16))]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """16 pairs of cc3m and wit in two shards, and 5 rejected rows; six pictures that a server has."""
    base = tmp_path_factory.mktemp("show")
    images = base / "pictures"
    images.mkdir()
    data = [image_bytes(i) for i in range(IMAGES)]
    for i, content in enumerate(data):
        (images / f"{i}.png").write_bytes(content)
    torch.manual_seed(0)
    spec = f"dvae:{base / 'tiny.safetensors'}"
    save_dvae(
        DVAE(DVAEConfig(hidden=8, vocabulary=32, decoder_input=8, blocks_per_group=1, image_size=SIZE)),
        base / "tiny.safetensors",
    )
    (base / "words.json").write_text(tiny_text_tokenizer().text, encoding="utf-8")
    encoder = PairEncoder(EncodeConfig(spec, (base / "words.json").read_text(), draws=2))
    with serving(images) as address:
        records = [record(i, address, data, encoder) for i in range(len(CAPTIONS))]
        output = base / "lions & <tigers>"
        write(output, records, encoder)
        yield SimpleNamespace(directory=str(output), records=records, encoder=encoder, spec=spec, base=base, data=data)


def image_bytes(i: int) -> bytes:
    noise = np.random.RandomState(i).randint(0, 255, (40, 48, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def record(i: int, address: str, data: list[bytes], encoder: PairEncoder) -> EncodedPair:
    """Pairs beyond the server's pictures have one that it no longer has; that of pair 1 has changed since."""
    source = "cc3m" if i % 2 else "wit"
    url, image = f"{address}/{i}.png", data[i % IMAGES]
    key = row_key(source, url, CAPTIONS[i])
    rgb_HWC = pixels.decode_rgb(image)
    boxes = [pixels.transformer_crop(48, 40, SIZE, pixels.seeded_randint(f"{key}/{n}")) for n in range(2)]
    codes = np.stack([encoder.images.encode(pixels.apply_crop(rgb_HWC, box, SIZE).copy()) for box in boxes])
    return EncodedPair(
        key=key,
        split="val" if i == 3 else "train",
        source=source,
        file=f"{source}.tsv",
        row=i,
        url=url,
        caption=CAPTIONS[i],
        width=48,
        height=40,
        licence="CC0" * (i % 3 == 0),
        page_url="javascript:alert(1)" if i == 2 else 'https://example.org/?a=1&b="2"',
        sha256=hashlib.sha256(image).hexdigest() if i != 1 else "0" * 64,
        phash="0" * 16,
        codes=codes.astype("<u2").tobytes(),
        tokens=np.array(encoder.text.encode(CAPTIONS[i]), "<u2").tobytes(),
        boxes=[number for box in boxes for number in box],
        other_captions=("the same thing",) * (i == 0),
    )


def write(output: Path, records: list[EncodedPair], encoder: PairEncoder) -> None:
    kinds = [("fetch", "refused_address")] * 3 + [("select", "not_english")] * 2
    rejects = [
        Rejected(f"{i:032x}", "wit", "wit.tsv", i, f"http://10.0.0.{i}/<b>\x1b[31m", stage, reason, "why", HOSTILE)
        for i, (stage, reason) in enumerate(kinds)
    ]
    files = [write_file(str(output), "rejects/00000-of-00001.parquet", table_bytes(rejects, REJECTS))]
    shards = [
        write_shard(str(output), 2, (split, 0, 1), [r for r in records if r.split == split])
        for split in ("train", "val")
    ]
    counts = [
        (("wit", READ, ""), 13),
        (("wit", KEPT, ""), 8),
        (("wit", "fetch", "refused_address"), 3),
        (("wit", "select", "not_english"), 2),
        (("cc3m", READ, ""), 8),
        (("cc3m", KEPT, ""), 8),
    ]
    parts = ManifestFields(encoder.images.info, encoder.text.info, encoder.text.text, 2, {"encode": {}}, {}, ())
    finish_dataset(str(output), parts, shards, files, counts)


def shown(made, *options: str) -> str:
    """The page's text."""
    file = made.base / "page.html"
    assert show.main([made.directory, "--html", str(file), *options]) == 0
    return file.read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_is_complete_in_itself(made):
    text = shown(made)
    tags = Tags(text)
    names = {name for name, _ in tags.found}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "source", "video"}
    assert len(tags.all("img")) == len(CAPTIONS)
    for image in tags.all("img"):
        assert image["src"].startswith("data:image/webp;base64,") and image["alt"]
    assert not any("src" in attributes for name, attributes in tags.found if name != "img")
    assert not re.search(r"@import|url\(|srcset|\son[a-z]+=", text)
    assert "default-src 'none'" in text  # a browser holds us to it
    assert len(text.encode()) < 5_000_000
    assert not [name for name in made.base.iterdir() if name.suffix == ".tmp"]


def test_what_came_from_the_web_is_escaped(made):
    text = shown(made)
    assert "<script" not in text and "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "<title>lions &amp; &lt;tigers&gt; · pairmill</title>" in text
    assert all(link["href"].startswith(("#", "http://", "https://")) for link in Tags(text).all("a"))
    assert "javascript:" not in text
    assert "\u202e" not in text and "evil\\u2066\\u0000" in text and "\\u202eevil" in text
    assert html.unescape(text).count(HOSTILE.partition("\u202e")[0]) == 5
    assert "10.0.0.1/&lt;b&gt;" in text and 'href="http://10.0.0' not in text  # refused addresses are no links


def test_the_page_says_what_is_in_the_dataset(made):
    text, tags = shown(made), Tags(shown(made))
    words = re.sub(r"<[^>]+>", " ", text)
    for expected in (
        "16 of 16 pairs",
        "15 train",
        "1 val",
        "76.2 %",
        "refused_address",
        "not_english",
        "CC0",
        "licence not stated",
        made.encoder.images.info.fingerprint,
        made.encoder.text.info.fingerprint,
    ):
        assert expected in words, expected
    assert all(record.key in words for record in made.records)
    identifiers = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {link["href"][1:] for link in tags.all("a") if link["href"].startswith("#")} <= set(identifiers)
    assert len(tags.all("h1")) == 1 and tags.all("html") == [{"lang": "en"}] and len(tags.all("svg")) == 6


def test_same_seed_same_bytes(made):
    first = shown(made, "--count", "5", "--seed", "7")
    assert first == shown(made, "--count", "5", "--seed", "7")
    assert first != shown(made, "--count", "5", "--seed", "8")
    assert len(Tags(first).all("img")) == 5


def test_the_image_is_the_one_that_the_codes_stand_for(made, monkeypatch):
    monkeypatch.setattr(html_page, "_webp", lambda image, quality, side: image.tobytes())
    content = show.page(
        made.directory, read_manifest(made.directory), PairQuery(1, keys=(made.records[4].key,)), made.spec, None
    )
    codes = np.frombuffer(made.records[4].codes, "<u2").reshape(2, -1)
    assert (content.cards[0].decoded == made.encoder.images.decode(codes[0])).all()


def test_originals_are_fetched_again_and_cropped(made, capsys):
    keys = [option for i in range(3) for option in ("--key", made.records[i].key)]
    file = made.base / "originals.html"
    assert (
        show.main(
            [
                made.directory,
                "--html",
                str(file),
                *keys,
                "--key",
                made.records[-1].key,
                "--fetch-originals",
                "--allow-address",
                "127.0.0.0/8",
            ]
        )
        == 0
    )
    text = file.read_text(encoding="utf-8")
    assert [image["alt"] for image in Tags(text).all("img")].count("Original crop") == 2
    assert "no longer the same file" in text and "http_404" in text
    assert "2 of 4 originals could not be downloaded" in capsys.readouterr().err


def test_originals_at_addresses_that_are_not_public_stay_out(made):
    text = shown(made, "--fetch-originals", "--key", made.records[0].key)
    assert "refused_address" in text and "Original crop" not in text


def test_the_crop_is_draw_0_also_of_a_resized_copy(made):
    record, image = made.records[0], made.data[0]
    rgb_HWC = pixels.decode_rgb(image)
    row = {"width": 48, "height": 40, "sha256": record.sha256, "crop_boxes": [record.boxes[:6], record.boxes[6:]]}
    fetched = FetchedImage(pair("http://a.example/a.png"), image, rgb_HWC, record.sha256)
    expected = pixels.apply_crop(rgb_HWC, pixels.CropBox(*record.boxes[:6]), SIZE)
    assert np.array_equal(original_crop(fetched, row, SIZE), expected)
    larger = fetched._replace(rgb_HWC=np.repeat(np.repeat(rgb_HWC, 2, 0), 2, 1))
    assert np.array_equal(original_crop(larger, row, SIZE), expected)
    assert "size" in original_crop(fetched._replace(rgb_HWC=rgb_HWC[:20]), row, SIZE)


def test_images_keep_within_the_budget():
    noise = [np.random.RandomState(i).randint(0, 255, (256, 256, 3)).astype(np.uint8) for i in range(4)]
    everything = noise * (2 * html_page.MAX_CARDS // len(noise))
    assert sum(map(len, html_page.encode_images(noise))) > 4 * 20_000
    assert sum(len(html_page._webp(image, *html_page.QUALITIES[-1])) for image in noise) * len(everything) / 4 < (
        html_page.IMAGE_BYTES
    )


def test_a_page_of_100_000_pairs_is_one_file_under_5_mb(made):
    """Plots are made of numbers, not of pairs; the pictures have their budget."""
    manifest, number = read_manifest(made.directory), 100_000
    random = np.random.RandomState(0)
    index = pa.table(
        {
            "split": random.choice(["train", "val"], number),
            "source": random.choice(["wit", "cc3m"], number),
            "licence": [f"licence {i % 3000} {'of a long name ' * 9}" for i in range(number)],
            "sha256": [f"{i:x}" for i in range(number)],
            "phash": [f"{i % 90_000:x}" for i in range(number)],
            "caption": [f"caption {i}" for i in range(number)],
        }
    )
    words, width, height = (random.randint(3, most, number) for most in (90, 4000, 4000))
    measures = Measures(index, words, 2 * words, width, height, random.randint(0, 99, 8192), random.zipf(2, 16384))
    account = {"read": 150_000, "kept": number, "rejected": {"fetch": {"http_404": 50_000}}}
    stats = inspection_stats.summary(manifest, {"sources": {"wit": account}}, measures)
    row = choose_pairs(made.directory, manifest, PairQuery(1))[0]
    noise = random.randint(0, 255, (256, 256, 3)).astype(np.uint8)
    cards = [html_page.Card(row | {"key": f"{i:032x}", "caption": "long " * 500}, noise, noise) for i in range(40)]
    content = html_page.Report("large", manifest, stats, measures, cards, "40 of 100,000 pairs.", [])
    assert stats["duplicates_left"]["same_perceptual_hash"] == 10_000
    assert len(html_page.render(content).encode()) < 5_000_000


# --- the terminal ----------------------------------------------------------------------------------------------------


def test_the_listing(made, capsys):
    assert main(["show", made.directory, "--count", "3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{made.directory}: 3 of 16 pairs, drawn by seed 0.")
    assert len(re.findall(r"^[0-9a-f]{32}  (?:cc3m|wit)  \S+ row \d+  48 x 40 px  (?:train|val)$", text, re.M)) == 3
    assert text.count("tokens: ") == 3
    assert "rejected in select, not_english: 2 rows" in text and "rejected in fetch, refused_address: 3 rows" in text
    assert text.index("in select") < text.index("in fetch")
    assert "\x1b" not in text and "\\u001b[31m" in text
    assert text.count("row") and text.count("    <script>") == 5 and "\u202e" not in text and "\\u202eevil" in text


def test_rejects_of_an_earlier_version_have_no_captions(made, tmp_path, capsys):
    copy = shutil.copytree(made.directory, tmp_path / "copy")
    path = copy / "rejects" / "00000-of-00001.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns("raw_caption"), path)
    assert show.main([str(copy)]) == 0
    text = capsys.readouterr().out
    assert "rejected in select, not_english: 2 rows" in text and "evil" not in text


def test_one_pair_by_its_key(made, capsys):
    assert show.main([made.directory, "--key", made.records[0].key]) == 0
    text = capsys.readouterr().out
    assert SCRIPT in text and made.records[0].url in text and "rejected" not in text
    assert "also: the same thing" in text


def test_tokens_read_as_words():
    tokenizer = tiny_text_tokenizer()
    words = show.tokens_as_words(tokenizer.encode("A red cat in the zoo"), tokenizer)
    assert words.replace("·", "") == "a red cat in the zoo" and words.endswith("z·o·o")


# --- choosing --------------------------------------------------------------------------------------------------------


def chosen(made, **wanted):
    return choose_pairs(made.directory, read_manifest(made.directory), PairQuery(**{"number": 100, **wanted}))


def test_the_choice_can_be_narrowed(made):
    assert {row["source"] for row in chosen(made, source="wit")} == {"wit"}
    assert [row["caption"] for row in chosen(made, search="SCRIPT")] == [SCRIPT]
    assert len(chosen(made, source="cc3m", search="number 1")) == 4  # 1, 11, 13, 15
    keys = tuple(made.records[i].key for i in (5, 3, 9))  # 3 lies in another shard
    assert tuple(row["key"] for row in chosen(made, keys=keys, number=1)) == keys
    assert len({row["key"] for row in chosen(made)}) == 16
    rejects = choose_rejects(made.directory, read_manifest(made.directory), 0, "cc3m")
    assert rejects == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--key", "0" * 32], f"no pair has the key {'0' * 32}"),
        (["--search", "no such text"], "no pair matches --search 'no such text'"),
        (["--source", "cc12m"], "no pair matches --source cc12m"),
        (["--count", "0"], "--count 0"),
        (["--fetch-originals"], "add --html"),
        (["--html", "x.html", "--count", "201"], "at most 200"),
        (["--html", "no/such/folder/x.html"], "there is no folder no/such/folder; create it"),
        (["--html", "."], "is a folder; name a file"),
        (["--allow-address", "loopback"], "--allow-address loopback"),
    ],
)
def test_errors_are_one_line(made, capsys, options, words):
    assert main(["show", made.directory, *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_key_must_match_the_rest_too(made):
    with pytest.raises(UserError, match="and matches --source cc3m"):
        chosen(made, keys=(made.records[0].key,), source="cc3m")


def test_another_image_tokenizer_is_refused(made, tmp_path):
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_dvae(DVAE(DVAEConfig(hidden=8, vocabulary=32, decoder_input=8, blocks_per_group=1, image_size=SIZE)), other)
    output = tmp_path / "page.html"
    with pytest.raises(UserError, match="not the one that made these codes"):
        show.main([made.directory, "--html", str(output), "--image-tokenizer", f"dvae:{other}"])
    assert not output.exists()
    moved = shutil.copy(made.base / "tiny.safetensors", tmp_path / "moved.safetensors")
    assert show.main([made.directory, "--html", str(output), "--image-tokenizer", f"dvae:{moved}"]) == 0


def test_an_image_tokenizer_that_is_gone_is_named(made, tmp_path):
    manifest = read_manifest(made.directory)
    info = dataclasses.replace(manifest.image_tokenizer, spec="dvae:gone.safetensors")
    copy = shutil.copytree(made.directory, tmp_path / "copy")
    (copy / "manifest.json").write_text(dataclasses.replace(manifest, image_tokenizer=info).to_json())
    with pytest.raises(UserError, match=r"gone\.safetensors does not exist"):
        show.main([str(copy), "--html", str(tmp_path / "page.html")])
    assert show.main([str(copy), "--count", "1"]) == 0  # the listing needs none


def test_another_text_tokenizer_is_refused(made, tmp_path):
    copy = shutil.copytree(made.directory, tmp_path / "copy")
    file = copy / "text_tokenizer.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UserError, match="not the one that made these tokens"):
        show.main([str(copy)])


@pytest.mark.parametrize(("total", "count"), [(0, 5), (1, 1), (10, 3), (10, 10), (10, 99), (10**12, 4)])
def test_draw_gives_different_numbers(total, count):
    picks = sample_indices(total, count, "seed")
    assert len(picks) == len(set(picks)) == min(total, count)
    assert all(0 <= pick < total for pick in picks) and picks == sample_indices(total, count, "seed")


# --- plots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[5], [3, 3, 3], [*range(1, 20)], [1, 2, 3, 1000]])
def test_bins_hold_every_value(values):
    values = np.array(values)
    assert sum(each.values for each in svg_plots.whole_bins(values)) == len(values)
    assert sum(each.values for each in svg_plots.log_bins(values, 1, 100)) == len(values)
    assert len(svg_plots.whole_bins(values)) <= svg_plots.HISTOGRAM_BINS
    assert f": {len(values[values == values.min()]):,}</title>" in svg_plots.whole_histogram(values, "words")


def test_plots_of_nothing_are_empty():
    assert svg_plots.whole_histogram(np.array([], int), "words") == ""
    assert svg_plots.frequency_curve(np.zeros(16, int)) == ""
    assert svg_plots.frequency_curve(np.array([4, 0, 0, 9])).count("<path") == 1


def test_the_line_of_even_use_is_at_the_mean_of_all_codes():
    """The codes that never occur count as well. Heights are logarithmic: the most frequent code fills all but 6 px."""
    svg = svg_plots.frequency_curve(np.array([4, 0, 0, 9]))
    y = 132 - 22 - np.log1p(13 / 4) / np.log1p(9) * (132 - 22 - 6)
    assert f'<line class="even" x1="0" x2="360" y1="{y:.1f}" y2="{y:.1f}"/>' in svg
    even = svg_plots.frequency_curve(np.array([5, 5, 5]))
    assert 'y1="6.0" y2="6.0"' in even and " L0.0,6.0" in even  # where all are equal, it lies on the curve
