"""Where Wikimedia's images lie."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

import pytest

from pipeline.sources.canonical_urls import canonical_url
from pipeline.sources.wikimedia_urls import file_name, file_url, image_urls, rendering_of

DE = "de.wikipedia.org"


def test_addresses():
    folder = hashlib.md5("Ä_b.jpg".encode()).hexdigest()
    base, quoted = "https://upload.wikimedia.org/wikipedia", "%C3%84_b.jpg"
    place = f"{folder[0]}/{folder[:2]}/{quoted}"
    name = file_name(" ä_ b.jpg ")
    assert image_urls(name, DE, 500) == [
        f"{base}/commons/thumb/{place}/500px-{quoted}",
        f"{base}/commons/{place}",
        f"{base}/de/thumb/{place}/500px-{quoted}",
        f"{base}/de/{place}",
    ]
    assert image_urls(name, DE, 0) == [f"{base}/commons/{place}", f"{base}/de/{place}"]
    # known: https://commons.wikimedia.org/wiki/File:Example.jpg
    assert file_url("Example.jpg", "commons").endswith("/commons/a/a9/Example.jpg")
    names = [image_urls(f"X.{ending}", DE, 330)[0].rpartition("/")[2] for ending in ("svg", "tif", "pdf", "gif")]
    assert names == ["330px-X.svg.png", "lossy-page1-330px-X.tif.jpg", "page1-330px-X.pdf.jpg", "330px-X.gif"]
    assert all("/thumb/" in url for url in image_urls("X.svg", DE, 0))
    assert image_urls("X.ogg", DE, 500) == []
    assert image_urls("x" * 200 + ".jpg", DE, 500)[0].endswith("/500px-thumbnail.jpg")
    assert canonical_url(image_urls(name, DE, 500)[0]) == canonical_url(image_urls(name, DE, 0)[0])


NAMES = ["Weir_(dam),_2009!.jpg", "Tom's_@_home;_1*.png", "Größe_~_a-b.jpg", "A+B=C&D.jpg", "50%25.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_one_address_of_a_name(name):
    """MediaWiki escapes ( ) , ' ! @ ; *; lists write some of them raw."""
    url = file_url(name, "commons")
    assert not set("(),'!@;*") & set(url.removeprefix("https://"))
    raw = url.rpartition("/")[0] + "/" + quote(name, safe="!$()*,;:@~'")
    assert (
        len({canonical_url(each) for each in (url, raw, raw.replace("https:", "http:"), raw.replace("https:", ""))})
        == 1
    )
    assert canonical_url(image_urls(name, DE, 500)[0]) == canonical_url(raw)


@pytest.mark.parametrize(
    ("name", "width", "rendering"),
    [
        ("X.svg", 20, "960px-X.svg.png"),
        ("X_(1).gif", 700, "500px-X_%281%29.gif"),
        ("X.tif", 5000, "lossy-page1-960px-X.tif.jpg"),
        ("X.tif", None, "lossy-page1-960px-X.tif.jpg"),
        ("X.gif", 15, ""),
        ("X.jpg", 500, ""),
    ],
)
def test_renderings(name, width, rendering):
    assert rendering_of(file_url(name, "commons"), width).rpartition("/")[2] == rendering
    assert rendering_of(f"http://a.example/{name}", width) == ""
