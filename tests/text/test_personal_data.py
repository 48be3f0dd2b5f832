"""E-mail addresses and telephone numbers are found; years, coordinates, catalogue numbers and ISBNs are not."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import UserError
from pipeline.filters import SelectConfig, filter_candidate, hide_personal_data
from pipeline.records import Candidate, Pair, Rejected, malformed
from pipeline.text import personal_data
from pipeline.text.personal_data import MASK, REJECT, find, mask

CONFIG = SelectConfig(language_detector="cld3")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mail jane.doe+x@mail.example.co.uk, or ask", "mail <EMAIL>, or ask"),
        ("(j@b.io)", "(<EMAIL>)"),
        ("from post@bücher.example today", "from <EMAIL> today"),
        ("a photo by @jane at the zoo", None),
        ("two cats @ home. nice", None),
        ("a@b", None),
        ("http://user@host.example/picture", None),
    ],
)
def test_addresses(text, masked):
    assert mask(text) == (masked or text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("visit us, +44 20 7946 0958, in London", "visit us, <PHONE>, in London"),
        ("the sign says (212) 736-5000 in red", "the sign says <PHONE> in red"),
        ("a billboard with 1-800-273-8255 on it", "a billboard with <PHONE> on it"),
        ("tel. 2127365000", "tel. <PHONE>"),
        ("mobile 07911 123456", "mobile <PHONE>"),
        ("+49 30 227 32152 or a@b.example", "<PHONE> or <EMAIL>"),
        ("a house of 1914-1918, rebuilt 1939-1945", None),
        ("at 40.712776, -74.005974 in the north", None),
        ("accession number 1937.12-45.678", None),
        ("inventory no. 212-736-5000", None),
        ("NAID 519 543 2210", None),
        ("ISBN 978-0-306-40615-7", None),
        ("ISBN 0-306-40615-2", None),
        ("a file 2127365000 of the archive", None),
        ("taken 2015-06-12 18:45:33", None),
        ("DSC_20150612_184533", None),
        ("LC-USZ62-123456, Library of Congress", None),
        ("a price of 1,234,567 dollars", None),
        ("Boeing 747-400, 9V-SMH, 26550/1204", None),
    ],
)
def test_telephone_numbers(text, masked):
    pytest.importorskip("phonenumbers", reason="needs the extra `personal`")
    assert mask(text) == (masked or text)


@given(st.text(st.characters(exclude_characters="@")).filter(lambda text: sum(map(str.isdecimal, text)) < 7))
def test_a_text_without_at_and_with_few_digits_is_never_touched(text):
    assert mask(text) == text


@given(st.text("a1@.-+ ()x", max_size=30).filter(lambda text: sum(map(str.isdecimal, text)) < 7))
def test_a_mask_leaves_nothing_to_find(text):
    assert not find(mask(text))


def candidate(caption: str) -> Candidate:
    return Candidate("cc3m", "list", 0, "http://h.example/a.jpg", (), caption, None, None, "", "", "")


def outcome(caption: str, action: str) -> Pair | Rejected:
    config = dataclasses.replace(CONFIG, personal_data=action)
    return hide_personal_data(filter_candidate(candidate(caption), config), config)


CAPTION = "a brown dog on the beach, write to jane@example.org for prints"


def test_captions_are_kept_masked_or_rejected():
    kept, masked, rejected = (outcome(CAPTION, action) for action in ("", MASK, REJECT))
    assert isinstance(kept, Pair) and kept.raw_caption == CAPTION
    assert isinstance(masked, Pair) and "write to <EMAIL> for prints" in masked.caption
    assert isinstance(rejected, Rejected) and (rejected.reason, rejected.detail) == ("personal_data", "<EMAIL>")
    assert kept.key == masked.key == rejected.key
    assert "jane" not in str(masked) + str(rejected)


def test_rows_that_leave_for_another_reason_are_masked_as_well():
    config = dataclasses.replace(CONFIG, personal_data=REJECT)
    assert "jane" not in str(outcome("jane@example.org", REJECT))
    row = malformed("cc3m", "list", 0, "jane@example.org", "1 field, expected 2")
    assert "jane@example.org" in row.detail
    assert "jane" not in str(hide_personal_data(row, config))


def test_a_caption_that_passes_all_the_same_is_unchanged():
    assert outcome("a brown dog on the beach in 2015", MASK) == outcome("a brown dog on the beach in 2015", "")


def test_the_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[personal\]'"):
        personal_data.check_installed()
