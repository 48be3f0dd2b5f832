"""Addresses of Wikimedia's images, from the names that pages give them.

The folders are the first digits of the name's MD5. The name does not say whether a file lies on Commons or on the wiki
itself, so that the second is a fallback. Thumbnails exist only in the widths of `WIDTHS`, and none wider than the
original; what is no JPEG, PNG or WebP has nothing else."""

from __future__ import annotations

import hashlib
import html
import re
from urllib.parse import quote, unquote

from pipeline.sources.hosts import WIKIMEDIA_UPLOADS

WIDTHS = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)
"""px; any other is answered with status 400."""
RENDERED_WIDTH = 960
"""px, of what has no original that could be fetched, where originals are wanted."""
IMAGES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
RENDERED = {  # ending -> (before the width, after the name) of a thumbnail
    "svg": ("", ".png"),
    "gif": ("", ""),
    "tif": ("lossy-page1-", ".jpg"),
    "tiff": ("lossy-page1-", ".jpg"),
    "pdf": ("page1-", ".jpg"),
    "djvu": ("page1-", ".jpg"),
    "xcf": ("", ".png"),
}
VIDEOS = frozenset({"webm", "ogv", "mpg", "mpeg"})


def file_name(text: str) -> str:
    """The name that MediaWiki gives to a file as written in a link: underscores, the first letter upper-case."""
    name = re.sub(r"[\s_]+", "_", unquote(html.unescape(text)).strip().strip("_ \u200e\u200f"))
    first = name[:1].upper()
    return first + name[1:] if len(first) == 1 else name  # MediaWiki leaves a letter whose capital would be two


def file_url(name: str, project: str) -> str:
    folder = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return f"https://{WIKIMEDIA_UPLOADS}/wikipedia/{project}/{folder[0]}/{folder[:2]}/{_quoted(name)}"


def thumbnail_url(name: str, project: str, width: int) -> str:
    folder = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    before, after = RENDERED.get(name.rpartition(".")[2].lower(), ("", ""))
    # A longer name would not fit into the file system together with its width.
    short = "thumbnail." + name.rpartition(".")[2] if len(name.encode()) > 160 else name
    return (
        f"https://{WIKIMEDIA_UPLOADS}/wikipedia/{project}/thumb/{folder[0]}/{folder[:2]}/{_quoted(name)}/"
        f"{before}{width}px-{_quoted(short)}{after}"
    )


def image_urls(name: str, host: str, width: int) -> list[str]:
    """Where an image of the wiki at `host` may be, the likeliest first; [] for what no image can be made of. `width`
    is that of a thumbnail, one of WIDTHS; 0: the original where there is one."""
    ending = name.rpartition(".")[2].lower()
    if ending not in IMAGES and ending not in RENDERED:
        return []
    urls = []
    for project in dict.fromkeys(("commons", host.partition(".")[0])):
        if width or ending in RENDERED:
            urls.append(thumbnail_url(name, project, width or RENDERED_WIDTH))
        if ending in IMAGES:  # also where an image is narrower than the thumbnail
            urls.append(file_url(name, project))
    return urls


def original_of(url: str) -> tuple[str, str]:
    """(name, project) of the file that an address of upload.wikimedia.org gives; ("", "") for another address."""
    match = _UPLOAD.fullmatch(url)
    return (unquote(match["name"]), match["project"]) if match else ("", "")


def rendering_of(url: str, width: int | None) -> str:
    """The address of a rendering of a file that can't be fetched as it is: SVG, GIF, TIFF; "" if there is none.
    `width`: px of the original, if it is known, since a rendering of pixels is never wider."""
    name, project = original_of(url)
    ending = name.rpartition(".")[2].lower()
    if ending not in RENDERED:
        return ""
    widths = [each for each in WIDTHS if each <= RENDERED_WIDTH and (ending == "svg" or not width or each <= width)]
    return thumbnail_url(name, project, widths[-1]) if widths else ""


_UPLOAD = re.compile(
    rf"(?:https?:)?//{re.escape(WIKIMEDIA_UPLOADS)}/wikipedia/(?P<project>[\w-]+)/[0-9a-f]/[0-9a-f]{{2}}/(?P<name>[^/?#]+)",
    re.IGNORECASE,
)


def _quoted(name: str) -> str:
    return quote(name, safe="")  # as MediaWiki does: it escapes ( ) , ' ! @ ; * as well
