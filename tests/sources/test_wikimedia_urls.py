"""Where Wikimedia's images lie."""

from __future__ import annotations

import hashlib

from pipeline.select.urls import canonical_url
from pipeline.sources.wikimedia_urls import file_name, file_url, image_urls

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
