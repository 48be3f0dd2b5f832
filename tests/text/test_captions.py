import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.captions import MAX_CHARACTERS, clean_caption, detokenise, has_url, is_file_name


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("", ""),
        ("A dog on a lawn.", "A dog on a lawn."),
        ("  A dog\r\n\ton\u00a0a\u2028lawn  ", "A dog on a lawn"),
        # encodings, entities, tags
        ("schÃ¶ne HÃ¤user", "schöne Häuser"),
        ("the lakeâ€™s shore", "the lake's shore"),
        ("Caf&eacute; &amp; bar &#8212; Lyon &quot;old&quot;", 'Café & bar — Lyon "old"'),
        ("R&amp;amp;D lab &amp;lt;b&amp;gt;today&amp;lt;/b&amp;gt;", "R&D lab today"),
        ("AT&T tower &copy 2", "AT&T tower &copy 2"),
        ("A <b>big</b> dog<br/>runs <A HREF='http://x.example/'>home</A>", "A big dog runs home"),
        ("<p>One</p><p>Two</p>", "One Two"),
        ("a mill <script>var a = '<b>';</script><!-- note -->by a stream", "a mill by a stream"),
        ('the old mill <a href="http://x.exa', "the old mill"),
        ("<PERSON> meets <PERSON>", "<PERSON> meets <PERSON>"),
        ("I <3 my cat, 2 < 3 > 1", "I <3 my cat, 2 < 3 > 1"),
        # control, zero-width and direction characters
        ("a\u200bb\ufeff c\x00d \u202eevil\u202c \x1b[31mred\x1b[0m soft\u00adware", "ab cd evil red software"),
        ("family 👨\u200d👩\u200d👧 walking\u200d home", "family 👨\u200d👩\u200d👧 walking home"),
        ("lone \ud800 surrogate", "lone surrogate"),
        # links, handles, hashtags
        ("sunset over the bay http://example.com/a.jpg?x=1&y=2", "sunset over the bay"),
        ("see www.example.com, it is a barn", "see it is a barn"),
        ("a weir (https://en.wikipedia.org/wiki/Weir_(dam)) in spring", "a weir in spring"),
        ("more at flickr.com/photos/someone/ and here", "more at and here"),
        ("made with example.com tools", "made with example.com tools"),
        ("write to jo.doe+pics@mail.example.org for prints", "write to for prints"),
        ("dinner with @jo_doe and @amy's cat", "dinner with and cat"),
        ("dinner @ the harbour, 50mm @f/2", "dinner @ the harbour, 50mm @f/2"),
        ("#sunset #GoldenHour over the #1 beach, C# code", "sunset GoldenHour over the #1 beach, C# code"),
        ("https://example.com/only", ""),
        ("- a barn |", "a barn"),
        ("a barn | http://example.com", "a barn"),
        ("half-timbered, well-kept -5 °C", "half-timbered, well-kept -5 °C"),
        ("---", ""),
        # what an address leaves behind
        ("a barn [http://example.com/a] in spring", "a barn in spring"),
        ("a barn (see http://example.com/a) in spring", "a barn in spring"),
        ("a barn (via @jo_doe)", "a barn"),
        ("a barn <http://example.com> in spring", "a barn in spring"),
        ("a barn {www.example.com}", "a barn"),
        ("a barn (photo: http://example.com/a.jpg)", "a barn"),
        ("a barn [url=http://example.com/a]at home[/url] today", "a barn at home today"),
        ("a barn (http://example.com/a", "a barn"),
        ("a barn (see below) and a house [1]", "a barn (see below) and a house [1]"),
        ("a barn (from the north) http://example.com", "a barn (from the north)"),
        # placeholders of a title
        ("Untitled. A barn in spring", "A barn in spring"),
        ("Untitled - 3: a barn", "a barn"),
        ("Untitled (1953), oil on canvas", "Untitled (1953), oil on canvas"),
        ("Untitled film stills", "Untitled film stills"),
    ],
)
def test_clean_caption(raw, clean):
    assert clean_caption(raw) == clean


WRONGLY_DECODED = [
    "Das Café am Marktplatz — im Frühling",
    "l’été à la plage",
    "the lake’s shore",
    "“Old Mill” by the river",
    "naïve façade… in São Paulo",
    "the señor’s hat",
    "10 € a day",
    "Łódź in winter – a view",
    "the Måløy harbour’s “lower” quay",
    "tickets ‘at the door’",
    "Škoda’s first car",
    "a smörgåsbord – for two",
    "the bridge at Český Krumlov",
]


@pytest.mark.parametrize("encoding", ["latin-1", "windows-1252"])
@pytest.mark.parametrize("text", WRONGLY_DECODED)
def test_text_that_was_decoded_wrongly(text, encoding):
    """As a browser decodes it: bytes that Windows-1252 has no letter for stay control characters."""
    control = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
    parts = (bytes([byte]).decode("latin-1" if byte in control else encoding) for byte in text.encode())
    wrong = "".join(parts)
    assert clean_caption(wrong) == clean_caption(text)


PIECES = st.sampled_from(
    [
        "&amp;",
        "&lt;",
        "b",
        "&gt;",
        "<b>",
        "</b>",
        "<br>",
        "<",
        ">",
        "#",
        "@",
        "http://",
        "www.",
        "a.com/",
        " ",
        "  ",
        "-",
        "|",
        "(",
        ")",
        "[",
        "]",
        "\u200d",
        "\u200b",
        "é",
        "Ã©",
        "â€™",
        "漢",
        "ﬁ",
        "A",
        "…",
        ".",
        "\x1b[0m",
        "\ud800",
        "&#0;",
        "&nbsp;",
        "<!--",
        "-->",
        "\n",
        "\u0301",
        "'",
        '"',
        "<PERSON>",
        ":",
        "：",
        "＠",
        "＃",
        "&#x26;",
        "x@y.org",
    ]
)


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=12).map("".join)))
@settings(max_examples=800, deadline=None)
def test_cleaning_a_clean_caption_changes_nothing(raw):
    clean = clean_caption(raw)
    assert clean_caption(clean) == clean
    assert clean == " ".join(clean.split())


@given(st.text(alphabet=" abcABC09\"'(),.!?:;%$-w/@#", max_size=30))
@settings(max_examples=500)
def test_the_short_way_for_plain_text_gives_the_same(raw):
    assert clean_caption(raw) == clean_caption(raw + "\u200b")  # which takes the long way


def test_a_huge_caption_is_cut():
    assert len(clean_caption("<!-- " * 500_000 + "words " * 500_000)) <= MAX_CHARACTERS


def test_has_url():
    assert has_url("at http://example.com") and not has_url("a colon: here")


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("our planet is .", "our planet is."),
        ("it does n't rain , they 're here !", "it doesn't rain, they're here!"),
        ('a sign that says " keep out " on a door', 'a sign that says "keep out" on a door'),
        ("`` keep out '' it says", '"keep out" it says'),
        ("the word ' open ' in red", "the word 'open' in red"),
        ("person 's hat and the boys ' shoes", "person's hat and the boys' shoes"),
        ("a shop ( closed ) : to let ; cheap", "a shop (closed): to let; cheap"),
        ("costs $ 5 or 10 % of # 1 .", "costs $5 or 10% of #1."),
        ("wait . . . what ?", "wait... what?"),
        ("a 5 - year - old in a t - shirt", "a 5-year-old in a t-shirt"),
        ("black - and - white print", "black-and-white print"),
        ("the harbour - a view", "the harbour - a view"),
        ("a plain caption", "a plain caption"),
        (".net and 'tis", ".net and 'tis"),
    ],
)
def test_undo_tokenised_spacing(tokens, text):
    assert detokenise(tokens) == text


TOKENS = st.sampled_from(
    ["a", "dogs", "5", "'", '"', ".", ",", "(", ")", "'s", "n't", "-", "year", "old", "$", "#", "%", "``", "''", ":"]
)


@given(st.lists(TOKENS, max_size=10).map(" ".join))
@settings(max_examples=500)
def test_undoing_twice_is_undoing_once(tokens):
    text = detokenise(tokens)
    assert detokenise(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "IMG_0520",
        "img 0520",
        "IMG_0520.JPG",
        "DSC01234",
        "DSC_0123-Edit",
        "DSCN0001 copy",
        "_MG_1234",
        "IMG_0520 (2)",
        "P1010123",
        "PB120034",
        "R0012345",
        "100_1234",
        "100B1234",
        "20160716_113957",
        "20160716_113957.JPG",
        "2009-05-12 11.23.45",
        "Screenshot 2019-04-05 at 10.11.12 AM",
        "WhatsApp Image 2020-01-02 at 11.12.13",
        "IMG-20150101-WA0001",
        "Picture 012",
        "6985418911_df7747990d_o",
        "4e2f7a26a1dfbf165a7e30bdabf7e72a",
        "two_dogs_running.jpeg",
        "File:Weir.svg",
        "GOPR0123.MP4",
        "WP_20140612_12_34_56_Pro",
        "12345678",
    ],
)
def test_file_names(name):
    assert is_file_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A dog",
        "Route 66",
        "Boeing 747",
        "NGC 1234",
        "Apollo 11",
        "Ferrari F40",
        "1984",
        "img 12 dogs",
        "Photo 3",
        "Space Shuttle STS-135",
        "DSC00123 a dog",
        "A380",
        "Kodak 5000",
        "facade",
        "Untitled",
        "Highway 101 at dusk",
        "a dog.jpg with a cat",
    ],
)
def test_texts_that_are_no_file_names(text):
    assert not is_file_name(text)
