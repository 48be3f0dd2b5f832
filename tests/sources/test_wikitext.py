"""What editors write: links, galleries, infoboxes, and the captions in them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.wikitext import NAMESPACES, links


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[Datei:a b.jpg|mini|Ein Hund]]", [("a b.jpg", "Ein Hund")]),
        ("[[File:A.jpg|thumb|upright=1.2|left|alt=An alt|A dog]]", [("A.jpg", "A dog")]),
        ("[[File:A.jpg|A dog|thumb|right|220x100px]]", [("A.jpg", "A dog")]),
        ("[[ image : A.jpg |thumb| first | the last ]]", [("A.jpg", "the last")]),
        ("[[Bild:A.jpg|thumb|alt=A small dog]]", [("A.jpg", "A small dog")]),
        ("[[File:A.jpg|frameless|100px]]", [("A.jpg", "")]),
        (
            "[[File:A.jpg|thumb|A [[dog]] and [[cat|two cats]], {{nowrap|10 km}} off{{citation needed}}<ref>"
            "[[File:B.jpg|no]]</ref> in ''the'' '''park''' &amp; [http://x.example garden] ]]",
            [("A.jpg", "A dog and two cats, 10 km off in the park & garden"), ("B.jpg", "no")],
        ),
        ("[[:File:A.jpg|a link only]] [[Media:A.jpg]] [[A.jpg]]", []),
        ("<!-- [[File:A.jpg|x]] --><nowiki>[[File:B.jpg|y]]</nowiki>[[File:C.jpg|z]]", [("C.jpg", "z")]),
        ("[[File:A.jpg|never closed", []),
        ("[[File:A.jpg|thumb|a [[File:B.png|20px]] inside]]", [("A.jpg", "a inside"), ("B.png", "")]),
        (
            '<gallery mode=packed caption="x">\nFile:A.jpg|One [[two|three]]\nB b.png\n\nno file\n'
            "Datei:C.jpg|alt=says|\n</gallery>",
            [("A.jpg", "One three"), ("B b.png", ""), ("C.jpg", "says")],
        ),
        (
            "{{Infobox building\n| name = X\n| image = A b.jpg\n| caption = The ''old'' house\n| image2 = B.png\n"
            "| caption2 = Two\n}}",
            [("A b.jpg", "The old house"), ("B.png", "Two")],
        ),
        ("{{Infobox person|image=[[File:A.jpg|200px|A man]]|caption=not twice}}", [("A.jpg", "A man")]),
        (
            "{{Multiple image|align=right|image1=A.jpg|caption1=A barn, {{convert|10|km|mi|abbr=on}} off\n"
            "|image2=B.jpg}}",
            [("A.jpg", "A barn, 10 km off"), ("B.jpg", "")],
        ),
        ("{{Infobox person|image={{CSS image crop|Image=A.jpg}}|caption=x}}", []),
    ],
)
def test_links(text, expected):
    assert [tuple(link) for link in links(text)] == expected


def test_a_wiki_s_own_name_of_the_namespace():
    text = "[[Delwedd:A.jpg|bawd|A dog [[Delwedd:B.jpg|20px]] at sea]]<gallery>\nDelwedd:C.jpg|A cat\n</gallery>"
    assert list(links(text, NAMESPACES | {"delwedd"})) == [("A.jpg", "A dog at sea"), ("B.jpg", ""), ("C.jpg", "A cat")]


PARTS = [
    "[[",
    "]]",
    "{{",
    "}}",
    "|",
    "File:",
    "A.jpg",
    "<gallery>",
    "</gallery>",
    "\n",
    "'''",
    "=",
    "<ref>",
    "</ref>",
    "<!--",
    "-->",
    "{{Infobox x",
    "image=",
    "&lt;",
    "text",
    "\0",
]


@given(st.lists(st.sampled_from(PARTS), max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_wikitext_can_be_read(parts):
    assert all(isinstance(link.caption, str) for link in links("".join(parts)))
