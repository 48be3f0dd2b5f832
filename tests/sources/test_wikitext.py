"""What editors write: links, galleries, infoboxes, and the captions in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.wikitext import NAMESPACES, links
from tests.support.repetition import examples


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
        ("{{Infobox person|image={{CSS image crop|Image=A.jpg}}|caption=x}}", [("A.jpg", "")]),
        # an infobox's caption belongs to the link in its parameter
        ("{{Infobox person|image=[[File:A.jpg|200px]]|caption=A man}}", [("A.jpg", "A man")]),
        (
            "{{Infobox ship begin}}{{Infobox ship image\n|Ship image=A.jpg\n|Ship caption=''Victory'' at sea}}",
            [("A.jpg", "Victory at sea")],
        ),
        ("{{Infobox ship image|Ship image=[[File:A.jpg|300px]]|Ship caption=At sea}}", [("A.jpg", "At sea")]),
        ("{{Infobox venue|image_name=A.jpg|image_caption=The hall}}", [("A.jpg", "The hall")]),
        ("{{Infobox X|static_image_name=A.jpg|static_image_caption=The hill}}", [("A.jpg", "The hill")]),
        ("{{Infobox X|static_image_name=A.jpg|image_caption=The hill}}", [("A.jpg", "The hill")]),
        ("{{Infobox album|cover=A.jpg|caption=The sleeve}}", [("A.jpg", "The sleeve")]),
        ("{{Infobox album|cover=A.jpg|alt=A red sleeve}}", [("A.jpg", "A red sleeve")]),
        (
            "{{Infobox town|image_skyline=A.jpg|image_caption=The square|image_map=B.png|map_caption=Where it is|"
            "image_flag=C.svg|image_seal=D.svg}}",
            [("A.jpg", "The square"), ("B.png", "Where it is"), ("C.svg", ""), ("D.svg", "")],
        ),
        (
            "{{Infobox town|image_map=B.png|image=A.jpg|caption=The square}}",
            [("B.png", ""), ("A.jpg", "The square")],
        ),
        (
            "{{Taxobox|image=A.jpg|image_caption=In a zoo|range_map=B.png|range_map_caption=Range}}",
            [("A.jpg", "In a zoo"), ("B.png", "Range")],
        ),
        ("{{Speciesbox|image=A.jpg|image2=B.jpg|image2_caption=A nest}}", [("A.jpg", ""), ("B.jpg", "A nest")]),
        (
            "{{Infobox military person|image=File:A b.JPG<!-- his only photo -->|caption=In 1917}}",
            [("A b.JPG", "In 1917")],
        ),
        (
            "{{Infobox station|image=A.jpg|image_caption=Platform 2|image2=B.jpg|image_caption2=Bridge}}",
            [("A.jpg", "Platform 2"), ("B.jpg", "Bridge")],
        ),
        (
            "{{Infobox person|image=A.jpg|caption=A {{small|(left)}} in {{circa|1900}}<br />and B}}",
            [("A.jpg", "A (left) in c. 1900 and B")],
        ),
        (
            "{{Infobox bridge|photo=A.jpg|photo_caption=The bridge|logo=B.svg}}",
            [("A.jpg", "The bridge"), ("B.svg", "")],
        ),
        # groups
        (
            "{{multiple image|image1=A.jpg|caption1=One|image2=B.jpg|alt2=Two|footer=Both of them}}",
            [("A.jpg", "One"), ("B.jpg", "Two")],
        ),
        (
            "{{multiple image\n | width = 300\n | image1 = A.jpg\n | image2 = B.jpg\n | footer = Two views of it }}",
            [("A.jpg", "Two views of it"), ("B.jpg", "Two views of it")],
        ),
        (
            "{{Gallery|title=Boats|width=160|File:A.jpg|A red boat|alt1=x|File:B.jpg|A [[blue]] boat}}",
            [("A.jpg", "A red boat"), ("B.jpg", "A blue boat")],
        ),
        ("{{Gallery\n|A.jpg\n|B.jpg|Only this\n}}", [("A.jpg", ""), ("B.jpg", "Only this")]),
        ("{{Wide image|A.jpg|900px|The whole valley|50%|right}}", [("A.jpg", "The whole valley")]),
        ("{{Panorama|image=File:A.jpg|height=200|caption=The bay}}", [("A.jpg", "The bay")]),
        ("{{Tall image|A.jpg|200|400|A spire}}", [("A.jpg", "A spire")]),
        (
            "{{Double image|right|A.jpg|150|B.jpg|150|The left one|The right one}}",
            [("A.jpg", "The left one"), ("B.jpg", "The right one")],
        ),
        ("{{CSS image crop|Image=A.jpg|bSize=400|Description=A detail}}", [("A.jpg", "A detail")]),
        (
            "{{Annotated image|image=A.jpg|caption=Parts of it|annotations={{Annotation|1|2|x}}}}",
            [("A.jpg", "Parts of it")],
        ),
        # no images
        ("{{cite web|url=http://x.example/a.jpg|title=My photo.jpg}}", []),
        ("{{cite web|title=A.jpg}}<ref>{{cite book|title=B.png}}</ref>", []),
        ("{{Infobox website|url=http://example.com/a.jpg|logo=A.svg}}", [("A.svg", "")]),
        ("a table {| class=x\n| A.jpg || B.jpg\n|}", []),
    ],
)
def test_links(text, expected):
    assert [(link.name, link.caption) for link in links(text)] == expected


CAPTIONS = [
    ("{{circa|1500}}", "c. 1500"), ("{{c.|1500|1510}}", "c. 1500 – c. 1510"), ("{{fl.|1530}}", "fl. 1530"),
    ("{{reign|1509|1547}}", "r. 1509–1547"), ("{{HMS|Victory}} in dock", "HMS Victory in dock"),
    ("{{USS|Enterprise|CVN-65}}", "USS Enterprise (CVN-65)"), ("{{USS|Enterprise|CVN-65|2}}", "USS Enterprise"),
    ("{{USS|Enterprise|CVN-65|6}}", "Enterprise"), ("{{ship|HMCS|Bonaventure}}", "HMCS Bonaventure"),
    ("{{ship|French ship|Orient|1791|2}}", "French ship Orient"),
    ("{{sclass|Nimitz|aircraft carrier}}", "Nimitz-class aircraft carrier"),
    ("{{formatnum:1250}} people", "1,250 people"), ("{{formatnum:12345.6}} m", "12,345.6 m"),
    ("{{val|1250|u=km}}", "1,250 km"),
    ("{{ill|Max Muster|de}}", "Max Muster"), ("{{ill|Max Muster (painter)|de|lt=Max Muster}}", "Max Muster"),
    ("1914{{endash}}1918", "1914–1918"), ("1914{{ndash}}18, the left{{mdash}}or right", "1914–18, the left—or right"),
    ("The hall{{snd}}built in 1900", "The hall – built in 1900"), ("{{nowrap|10 km}} away", "10 km away"),
    ("10{{nbsp}}km away", "10 km away"), ("{{convert|10|km|mi}} off", "10 km off"),
    ("{{cvt|5|ft|6|in|m}} tall", "5 ft 6 in tall"),
    ("{{convert|10|to|20|km|mi}}", "10 to 20 km"), ("{{convert|3|x|4|m|ft}} large", "3 × 4 m large"),
    ("a {{convert|12|ft|m|adj=on}} wall", "a 12-foot wall"), ("{{convert|12500|km2|sqmi}}", "12,500 km²"),
    ("{{convert|30|C|F}}", "30 °C"), ("{{height|ft=6|in=2}}", "6 ft 2 in"), ("{{frac|1|2}} of it", "1/2 of it"),
    ("{{frac|3|1|2}} in", "3 1/2 in"), ("{{lang|fr|La Marianne}} by night", "La Marianne by night"),
    ("{{lang-de|Der Turm}}", "Der Turm"), ("{{transl|ru|Moskva}}", "Moskva"),
    ("{{nihongo|Himeji Castle|姫路城|Himeji-jō}}", "Himeji Castle"),
    ("{{zh|c=長城|p=Chángchéng}}", "Chángchéng"), ("{{abbr|St.|Saint}} Mary", "St. Mary"), ("{{sc|Roma}} 1", "Roma 1"),
    ("{{flag|France}} won", "France won"), ("{{flagicon|FRA}} Jean wins", "Jean wins"),
    ("{{USA}} team", "United States team"),
    ("{{start date|2009|5|12}}", "May 12, 2009"), ("{{start date|2009|5|12|df=y}}", "12 May 2009"),
    ("{{date|2009-05-12}}", "2009-05-12"),
    ("{{as of|2010}}, it stands", "As of 2010, it stands"), ("{{US$|50}} note", "US$50 note"), ("{{£|1250}}", "£1,250"),
    ("left: {{color|red|the keep}}", "left: the keep"), ("{{legend|#f00|Towns}}", "Towns"),
    ("{{hlist|One|Two}}", "One, Two"),
    ("A dog{{citation needed|date=May 2009}}", "A dog"), ("A dog.{{sfn|Smith|2009|p=4}}", "A dog."),
    ("A dog{{efn|a note}} runs", "A dog runs"),
    ("Rouen ({{IPA-fr|ʁwɑ̃}}) at dusk", "Rouen at dusk"), ("{{sic|hing|ly}} said", "hingly said"),
    ("C{{music|sharp}} key", "C♯ key"),
    ("line one<br>line two<br/>three<br />", "line one line two three"), ("x{{dot}}y", "x · y"), ("{{5x|a}}", None),
    ("{{nowrap|{{circa|1500}} or {{convert|3|m|ft}}}}", "c. 1500 or 3 m"), ("A {{unknown thing|x}} dog", None),
    ("The area of <math>x^2</math> here", None), ("{{#if:x|y}} dog", None),
    ("{{ordinal|3}} floor, {{ordinal|12}}", "3rd floor, 12th"),
    ("''{{HMS|Hood|51|6}}''", "Hood"), ("<small>(2009)</small> view", "(2009) view"), ("H<sub>2</sub>O", "H2O"),
    ("the <nowiki>[dog]</nowiki>", "the [dog]"), ("A [[:Category:Dogs|dog]] and [[cat]]s", "A dog and cats"),
    ("{{visible anchor|Tower}} hill", "Tower hill"), ("{{bracket|sic}}", "[sic]"), ("{{Circa|1500}}", "c. 1500"),
    ("{{ circa | 1500 }}", "c. 1500"),
    ("{{'}}s-Hertogenbosch", "'s-Hertogenbosch"), ("Smith{{'s}} dog", "Smith's dog"),
    ("A &ndash; B &amp; C", "A – B & C"),
]  # fmt: skip


@pytest.mark.parametrize(("wikitext", "caption"), CAPTIONS)
def test_templates_of_a_caption_are_words_or_name_themselves(wikitext, caption):
    [link] = links(f"[[File:A.jpg|thumb|{wikitext}]]")
    assert link.caption == (caption or "")
    assert bool(link.unrenderable) == (caption is None)


def test_the_template_that_can_t_be_rendered_is_named():
    [link] = links("[[File:A.jpg|thumb|A {{Weather box|x}} dog]]")
    assert link.unrenderable == "weather box"


def test_a_wiki_s_own_name_of_the_namespace():
    text = "[[Delwedd:A.jpg|bawd|A dog [[Delwedd:B.jpg|20px]] at sea]]<gallery>\nDelwedd:C.jpg|A cat\n</gallery>"
    assert [(link.name, link.caption) for link in links(text, NAMESPACES | {"delwedd"})] == [
        ("A.jpg", "A dog at sea"),
        ("B.jpg", ""),
        ("C.jpg", "A cat"),
    ]


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
@examples(60)
def test_any_wikitext_can_be_read(parts):
    assert all(isinstance(link.caption, str) for link in links("".join(parts)))
