import collections
import dataclasses
import re
import time
from typing import Any

import pytest

from pipeline import filters
from pipeline.filters import (
    CHECKS,
    Caption,
    Check,
    Rejection,
    SelectConfig,
    count_words,
    filter_candidate,
    keep_caption,
)
from pipeline.records import (
    MAX_REJECT_TEXT,
    Candidate,
    EncodedPair,
    Pair,
    Reason,
    Rejected,
    Stage,
    malformed,
    reject,
    row_key,
    split_of,
)
from pipeline.text import boilerplate, language
from pipeline.text.captions import detokenise
from pipeline.text.language import Detection
from tests.support.narrowing import instance

CONFIG = SelectConfig()
CANDIDATE = Candidate(
    source="cc12m",
    file="cc12m.tsv",
    row=7,
    url="http://example.com/a.jpg",
    fallback_urls=(),
    raw_caption="A brown dog runs across the beach",
    width=640,
    height=480,
    licence="by",
    page_url="",
    mime_type="",
)


def outcome_of(config=CONFIG, tidy=keep_caption, checks=None, **changes):
    return filter_candidate(CANDIDATE._replace(**changes), config, tidy, checks)


def rejected_by(check, text, config=CONFIG):
    """The reason that one check gives for a clean caption, or None."""
    rejection = check(CANDIDATE, Caption(text), config)
    return rejection and rejection.reason


def test_a_row_that_passes_becomes_a_pair():
    outcome = outcome_of(raw_caption="A brown dog runs&nbsp;across the <b>beach</b>")
    assert isinstance(outcome, Pair)
    assert outcome.caption == "A brown dog runs across the beach"
    assert outcome.raw_caption == "A brown dog runs&nbsp;across the <b>beach</b>"
    assert (outcome.source, outcome.file, outcome.row, outcome.width, outcome.licence) == (
        "cc12m",
        "cc12m.tsv",
        7,
        640,
        "by",
    )
    assert len(outcome.key) == 32 and outcome.split in ("train", "val")


def test_a_source_tidies_its_captions():
    tokens = "a brown dog runs across the beach ."
    assert outcome_of(raw_caption=tokens).caption == tokens
    assert outcome_of(raw_caption=f"<b>{tokens}</b>", tidy=detokenise).caption == "a brown dog runs across the beach."


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"url": ""}, Reason.NO_URL),
        ({"url": "ftp://example.com/a.jpg"}, Reason.BAD_URL),
        ({"url": "http:///a.jpg"}, Reason.BAD_URL),
        ({"url": "http://[::1/a.jpg"}, Reason.BAD_URL),
        ({"url": "http://a.example:99999/a.jpg"}, Reason.BAD_URL),
        ({"url": "a.jpg"}, Reason.BAD_URL),
        ({"mime_type": "image/svg+xml"}, Reason.UNSUPPORTED_TYPE),
        ({"mime_type": "Image/GIF; x=1"}, Reason.UNSUPPORTED_TYPE),
        ({"mime_type": "video/webm"}, Reason.VIDEO),
        ({"url": "//upload.wikimedia.org/a.jpg"}, None),
        ({"url": "//example.com/a.jpg"}, Reason.BAD_URL),
        ({"width": 1001, "height": 500}, Reason.ASPECT_RATIO),
        ({"width": 499, "height": 1000}, Reason.ASPECT_RATIO),
        ({"width": 63, "height": 64}, Reason.TOO_SMALL),
        ({"raw_caption": " "}, Reason.NO_CAPTION),
        ({"raw_caption": "<br> &nbsp;"}, Reason.NO_CAPTION),
        ({"raw_caption": "http://example.com/a"}, Reason.BOILERPLATE),
        ({"raw_caption": "Photographed on 12 May 2009"}, Reason.BOILERPLATE),
        ({"raw_caption": "IMG_0520"}, Reason.FILE_NAME),
        ({"raw_caption": "Two dogs"}, Reason.CAPTION_TOO_SHORT),
        ({"raw_caption": "a b c"}, None),
        ({"raw_caption": "Dogs"}, Reason.CAPTION_TOO_SHORT),
        ({"raw_caption": "Ein brauner Hund läuft über den Strand"}, Reason.NOT_ENGLISH),
        ({"raw_caption": "茶色の犬が浜辺を走っている"}, Reason.NOT_ENGLISH),
        ({"width": None, "height": None}, None),
        ({"width": 1000, "height": 500}, None),
        ({"width": 500, "height": 1000}, None),
        ({"width": 64, "height": 64, "mime_type": "image/jpeg"}, None),
    ],
)
def test_filter_candidate(changes, reason, monkeypatch):
    if changes.get("raw_caption") == "a b c":  # the length alone is meant
        monkeypatch.setattr(language, "detect", lambda *_: Detection(1.0, 0.5))
    outcome = outcome_of(**changes)
    assert isinstance(outcome, Pair) if reason is None else outcome.reason == reason.value


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"width": 1001, "height": 500}, "1001x500, ratio 2.002, allowed 0.5 to 2"),
        ({"width": 63, "height": 64}, "63x64, min side 64"),
        ({"raw_caption": "Two dogs"}, "2 words, min 3"),
        ({"raw_caption": "a 1 2"}, None),
        ({"raw_caption": "a dog, photographed on 12 May 2009"}, "5 of 7 words: photographed on 12 May 2009"),
        ({"raw_caption": "stock photo / click to enlarge"}, "5 of 5 words: stock photo; click to enlarge"),
        ({"licence": "by-nc"}, "by-nc"),
    ],
)
def test_a_reject_says_what_was_measured(changes, detail):
    outcome = outcome_of(dataclasses.replace(CONFIG, licences=("by",)), **changes)
    assert detail is None or outcome.detail == detail


@pytest.mark.parametrize("detector", ["best", "langdetect", "cld3", "py3langid", "fasttext"])
def test_a_caption_that_is_not_english_has_its_score_and_language(detector):
    text = "Ein brauner Hund läuft über den Strand"
    outcome = outcome_of(dataclasses.replace(CONFIG, language_detector=detector), raw_caption=text)
    assert re.fullmatch(rf"{detector} score 0\.\d\d\d, threshold 0\.5, language de", outcome.detail)


def test_a_language_that_no_detector_finds_is_unknown():
    config = dataclasses.replace(CONFIG, language_detector="langdetect")
    outcome = outcome_of(config, raw_caption="1234 5678 90", checks=(Check(filters.check_language),))
    assert outcome.detail.endswith("language unknown")


def test_a_reject_keeps_its_raw_caption_in_whole_characters():
    raw = "<b>Zwei</b> Hunde &amp; 🐕 " + "🐕" * 1000
    outcome = outcome_of(raw_caption=raw, width=1000, height=10)
    assert outcome.raw_caption == raw[:MAX_REJECT_TEXT] and len(outcome.raw_caption) == MAX_REJECT_TEXT
    assert outcome.raw_caption.encode().decode() == outcome.raw_caption
    assert outcome_of(raw_caption="half \ud800 of a pair", url="").raw_caption == "half ? of a pair"
    assert len(outcome_of(mime_type="image/gif", width=None).detail) < MAX_REJECT_TEXT
    licence = outcome_of(dataclasses.replace(CONFIG, licences=("by",)), licence="é" * 9999)
    assert licence.detail == "é" * MAX_REJECT_TEXT


def test_an_encoded_pair_gives_its_caption_also_as_the_row_type_that_beam_makes():
    values = dict.fromkeys(EncodedPair._fields, "x") | {"caption": "a brown dog"}
    row = EncodedPair._make(values.values())
    of_beam: Any = collections.namedtuple("BeamSchema", EncodedPair._fields)(**values)
    for each in (row, of_beam):
        assert reject(each, Stage.ENCODE, Reason.DUPLICATE_PAIR).raw_caption == "a brown dog"


def test_a_malformed_row_is_shown():
    row = malformed("cc3m", "f.tsv", 3, "only one field", "1 field, expected 2")
    assert (row.detail, row.raw_caption) == ("1 field, expected 2: only one field", "")
    long = malformed("cc3m", "f.tsv", 3, "x" * 9999, "1 field, expected 2")
    assert len(long.detail) == MAX_REJECT_TEXT and long.detail.startswith("1 field, expected 2: xxx")
    assert malformed("cc3m", "f.tsv", 3, "", "no page").detail == "no page"


def test_the_language_is_detected_last(monkeypatch):
    def unexpected(*_):
        raise AssertionError("detected the language of a caption that is rejected anyway")

    monkeypatch.setattr(language, "detect", unexpected)
    assert outcome_of(raw_caption="Two dogs").reason == "caption_too_short"
    assert outcome_of(width=1000, height=100).reason == "aspect_ratio"


def test_a_caption_is_cleaned_once_and_only_if_the_row_passes():
    cleaned = []

    def tidy(caption):
        cleaned.append(caption)
        return caption

    assert outcome_of(tidy=tidy, width=1000, height=100).reason == "aspect_ratio" and not cleaned
    assert isinstance(outcome_of(tidy=tidy), Pair) and len(cleaned) == 1


def check_weekday(candidate, caption, config):
    """No caption about Mondays."""
    return Rejection("weekday", "monday") if "monday" in caption.text.casefold() else None


def test_checks_can_be_added_left_out_and_reordered():
    weekday = Check(check_weekday)
    text = "A brown dog runs across the beach on a Monday"
    rejected = outcome_of(raw_caption=text, checks=(*CHECKS, weekday))
    assert (rejected.reason, rejected.detail) == ("weekday", "monday")
    assert isinstance(outcome_of(raw_caption=text), Pair)
    assert outcome_of(raw_caption="Monday washing", checks=(*CHECKS, weekday)).reason == "caption_too_short"
    assert outcome_of(raw_caption="Monday washing", checks=(weekday, *CHECKS)).reason == "weekday"
    without_language = tuple(check for check in CHECKS if check.rejection is not filters.check_language)
    assert isinstance(outcome_of(raw_caption="Ein brauner Hund am Strand", checks=without_language), Pair)


def test_settings_change_the_outcome():
    assert outcome_of(dataclasses.replace(CONFIG, min_words=9)).reason == "caption_too_short"
    assert outcome_of(dataclasses.replace(CONFIG, min_characters=99)).reason == "caption_too_short"
    assert outcome_of(dataclasses.replace(CONFIG, min_side=481)).reason == "too_small"
    assert outcome_of(dataclasses.replace(CONFIG, max_ratio=1.3)).reason == "aspect_ratio"
    assert outcome_of(dataclasses.replace(CONFIG, language_threshold=1.01)).reason == "not_english"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("a dog runs", 3),
        ("a - dog & co.", 3),
        ("<PERSON> in 2009", 3),
        ("...", 0),
        ("well-kept", 1),
        ("собака бежит", 2),
        ("茶色の犬が走る", 4),
        ("หมาวิ่งบนชายหาด", 3),
        ("red 車 on 道路", 4),
        ("ខ្មែរ", 1),
        ("犬", 1),
        ("한국어 단어", 2),
    ],
)
def test_count_words(text, words):
    assert count_words(text) == words


BOILERPLATE = """
photographed on 12 May 2009|Photographed on 2015-03-12 in Paris|photographed on <date>
Photo taken on June 5th, 2010 at 3:45 pm|Taken on Saturday, 12 May 2009|uploaded by me on 3/4/2012
12 May 2009|2009:05:12 10:11:12|a dog, photographed on 12 May 2009|Photographed in 1923 by Carl Jansen
Photograph taken circa 1900|Captured on 23-Jul-2011 at 17:45|Date: 2011-07-23|taken in the summer of 1987
This photo was taken on 1.5.2008|Image taken on 12th of May, 2009|shot on May 12 2009 14:30:05
click to enlarge|Click here to view a larger image|Click on the image to enlarge|tap to zoom in
stock photo|Stock Photography|royalty free stock vector|Royalty-free stock photo|free stock images
embedded image permalink|Embedded Image Permalink|profile photo|Profile picture for user jo|avatar image
OLYMPUS DIGITAL CAMERA|SONY DSC|KODAK Digital Still Camera|Exif_JPEG_PICTURE|Processed with VSCO with f2 preset
Creative Commons Attribution-ShareAlike 3.0 Unported|CC BY-SA 4.0|public domain
This file is licensed under the Creative Commons Attribution-Share Alike 4.0 International license
All rights reserved|© 2012 Jo Doe|Copyright 2014 Jo Doe, all rights reserved|Please do not use without permission
Photo by Jane Doe|Image credit: NASA|Photo courtesy of the Miller family|Photographer: Jo Doe
Originally uploaded by bobby|Uploaded with Flickr Uploadr|Uploaded via iPhone|Best viewed large on black
Canon EOS 5D f/2.8 1/60 ISO 400|no image available|No photo description available|Picture 3 of 12
Own work by the uploader|featured image|Image may contain|Photographed on a Sunday, 12 May 2009
2009-05-12 (according to Exif data)|Taken with my iPhone on 3 May 2011|Image taken on 9 March 2014 by the author
Image may be subject to copyright
Photo taken yesterday|taken on a Sunday afternoon in May 2010|Last modified on 5 May 2011 at 10:00|Canon EOS 5D Mark II
Nikon D90 with 18-105mm lens|Aperture f/5.6, shutter speed 1/200|Focal length 35 mm|3 exposure HDR|Taken with my phone
Strobist: SB-600 camera left at 1/4 power|Edited in Lightroom|Scanned from a slide|Taken by me|Picture of the day
No machine-readable author provided|Transferred from en.wikipedia to Commons|May be an image of tree, sky and grass
Image may contain: one or more people|Diagram Description automatically generated|Add to cart|Follow us on Instagram
Skip to content|Image coming soon|Blog post image|company logo image|For editorial use only|Used with permission
"""
CONTENT = """
photo of a dog taken on 3 May 2010|Two dogs playing, photographed on 12 May 2009
click to enlarge picture of the town hall|a long viaduct over the valley
The image of the saint in the church|man working on his camera|summer of 1969 on the farm
view of the lake in winter|see the full moon rising over hills|people at a photo shoot|red car stock photo of a parade
screenshot of the game with two players|A cat on a bed on 5 May 2013|The battle of 12 May 1809 at the river
a girl may press a button to open the door|original painting of a large ship|Public domain photo of a steam train
the work of a potter|a source of clean water|police officer shares a view of the domain|a copyright office building
hit single cover with the band on stage|the camera shop around the corner|trains at platform 9 and 10
Hindenburg disaster, 6 May 1937|D-Day landings, 6 June 1944|Kew Gardens, 3 May 2010|Paris, 14 July 1919
The castle was captured on 3 May 1648|Courtesy bus in front of a hotel|A sign that says buy now
An old Canon camera on a table
Reading more books in the library|A selfie with an elephant|Sky and cloud above a field|A 35 mm film roll on a table
a picture by my little sister of our house and garden|the mail was sent by ship across the sea
"""


@pytest.mark.parametrize("caption", [text for line in BOILERPLATE.split("\n") for text in line.split("|") if text])
def test_boilerplate(caption):
    assert rejected_by(filters.check_boilerplate, caption) is Reason.BOILERPLATE


@pytest.mark.parametrize("caption", [text for line in CONTENT.split("\n") for text in line.split("|") if text])
def test_content_beside_boilerplate_stays(caption):
    assert rejected_by(filters.check_boilerplate, caption) is None


@pytest.mark.parametrize(
    "phrase",
    [
        "photo ",
        "click to ",
        "1 ",
        "12-",
        "was ",
        "licensed under ",
        "(c) ",
        "1.5 mm ",
        "x",
        "image taken by ",
        "by Jo ",
        "view in large ",
        "5 May 2009 ",
        "available ",
    ],
)
def test_boilerplate_is_found_in_half_a_second(phrase):
    start = time.perf_counter()
    boilerplate.boilerplate_words(phrase * 5000)
    assert time.perf_counter() - start < 0.5


def test_split_is_a_hash_of_the_key():
    keys = [f"{number:032x}" for number in range(20_000)]
    held_out = {key for key in keys if split_of(key, 0.01) == "val"}
    assert 120 <= len(held_out) <= 280
    assert held_out < {key for key in keys if split_of(key, 0.02) == "val"}
    assert {split_of(key, 0) for key in keys} == {"train"} and {split_of(key, 1) for key in keys} == {"val"}
    halves = [split_of(f"{number:032x}", 0.5) for number in range(8)]  # the same in every version of pairmill
    assert halves == ["train", "val", "train", "train", "train", "val", "val", "val"]


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("sale sale sale sale shoes sale", Reason.REPETITION),
        ("a dog and a cat and a bird on a wall", None),
        ("the cat the cat the cat the cat", Reason.REPETITION),
        ("MEN IN BLACK SUITS", Reason.CAPITALISATION),
        ("Classic Leather Shoes For Men 2019", Reason.CAPITALISATION),
        ("Old Mill Bridge", None),
        ("A dog on the Golden Gate Bridge", None),
        ("清晨的湖面上有两只小船", None),
    ],
)
def test_filters_of_sharma(caption, reason):
    checks = (filters.check_repetition, filters.check_capitalisation)
    found = [rejected_by(check, caption, SelectConfig(sharma=True)) for check in checks]
    assert next(filter(None, found), None) == reason
    assert [rejected_by(check, caption, CONFIG) for check in checks] == [None, None]


@pytest.mark.parametrize(
    ("licences", "stated", "passes"),
    [
        ((), "", True),
        (("attribution license",), "Attribution License", True),
        (("Attribution License", "CC0"), "Attribution-NonCommercial License", False),
        (("Attribution License",), "", False),
    ],
)
def test_licence(licences, stated, passes):
    row = CANDIDATE._replace(licence=stated)
    assert (filters.check_licence(row, Caption("x"), SelectConfig(licences=licences)) is None) == passes


@pytest.mark.parametrize(
    ("texts", "caption"),
    [
        (["Ein Hund läuft am Strand entlang", "A dog runs along the beach"], "A dog runs along the beach"),
        (["A dog runs along the beach", "A second text for the same image"], "A dog runs along the beach"),
        (["DSC01234.JPG", "dog", "A dog runs along the beach"], "A dog runs along the beach"),
        (["Ein Hund läuft am Strand entlang", "dog"], None),
        (["A dog runs along the b\ufffdach", "A dog runs along the shore"], "A dog runs along the shore"),
    ],
)
def test_the_first_text_that_passes_is_the_caption(texts, caption):
    row = CANDIDATE._replace(raw_caption=texts[0], alternatives=tuple(texts[1:]))
    outcome = filter_candidate(row, SelectConfig())
    assert getattr(outcome, "caption", None) == caption
    assert outcome.raw_caption == (caption or texts[0])
    assert outcome.key == row_key(row.source, row.url, outcome.raw_caption)


@pytest.mark.parametrize(
    ("texts", "parts", "others"),
    [
        (["A dog runs along the beach", "Our dog on the beach in June", "Ein Hund am Strand", "dog"], (), [1]),
        (["DSC01234.JPG", "A dog runs along the beach", "Our dog on the beach in June"], (), [2]),
        (["A dog runs along the beach", "a dog runs along the BEACH", "A  dog runs along the beach"], (), []),
        (["A dog by a lake. It runs along", "A dog by a lake", "It runs along the shore"], (1, 2), []),
        (["A dog by a lake. Hund am See", "A dog by a lake", "Hund am See im Winter"], (1, 2), []),
        ([f"A dog runs along the beach in {year}" for year in range(1990, 2020)], (), range(1, 9)),
    ],
)
def test_further_texts_that_pass_are_other_captions(texts, parts, others):
    row = CANDIDATE._replace(
        raw_caption=texts[0], alternatives=tuple(texts[1:]), parts=tuple(texts[number] for number in parts)
    )
    outcome = instance(filter_candidate(row, SelectConfig()), Pair)
    assert outcome.other_captions == tuple(texts[number] for number in others)


@pytest.mark.parametrize(
    ("cut", "raw", "caption"),
    [
        (False, "A dog on a beach. Photo by Jane Doe", "A dog on a beach. Photo by Jane Doe"),
        (True, "A dog on a beach. Photo by Jane Doe", "A dog on a beach."),
        (True, "Red barn at dusk, taken with my phone", "Red barn at dusk"),
    ],
)
def test_tails_are_cut_by_choice(cut, raw, caption):
    pair = instance(filter_candidate(CANDIDATE._replace(raw_caption=raw), SelectConfig(cut_tails=cut)), Pair)
    assert (pair.caption, pair.raw_caption) == (caption, raw)


def test_no_other_text_is_tried_for_a_row_that_can_t_be_used():
    calls = []

    def tidy(text: str) -> str:
        calls.append(text)
        return text

    row = CANDIDATE._replace(url="", alternatives=("A dog runs along the beach",) * 9)
    filter_candidate(row, SelectConfig(), tidy=tidy)
    assert calls == []


def test_a_caption_that_lost_a_character_is_malformed():
    outcome = filter_candidate(CANDIDATE._replace(raw_caption="A dog runs along the b\ufffdach"), SelectConfig())
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, "U+FFFD" in outcome.detail) == ("malformed_row", True)


@pytest.mark.parametrize(("caption", "kept"), [
    ("<PERSON> <PERSON> <PERSON>", False), ("<PERSON>, <PERSON> and <PERSON>", False), ("<PERSON>  <PERSON>", False),
    ("<PERSON> and <PERSON> at the fair", True), ("<PERSON> at a fair", True),
])  # fmt: skip
def test_marks_of_names_alone_are_no_caption(caption, kept):
    assert isinstance(filter_candidate(CANDIDATE._replace(raw_caption=caption), SelectConfig()), Pair) == kept


@pytest.mark.parametrize(
    ("url", "expected", "fallbacks"),
    [
        ("//upload.wikimedia.org/a.jpg", "https://upload.wikimedia.org/a.jpg", ()),
        ("http://a.example/x?w=1&amp;h=2", "http://a.example/x?w=1&h=2", ("http://a.example/x?w=1&amp;h=2",)),
        ("http://a.example/x?w=1&#38;h=2", "http://a.example/x?w=1&h=2", ("http://a.example/x?w=1&#38;h=2",)),
        ("http://a.example/R&amp;D.jpg", "http://a.example/R&amp;D.jpg", ()),
        ("http://a.example/x?w=1&h=2", "http://a.example/x?w=1&h=2", ()),
    ],
)
def test_addresses_are_repaired(url, expected, fallbacks):
    outcome = outcome_of(url=url)
    assert (outcome.url, tuple(outcome.fallback_urls)) == (expected, fallbacks)
