"""Facts about the hosts that the sources' images lie on: rate limits, placeholders, aliases of one image."""

from __future__ import annotations

import hashlib
import math
import re
from typing import NamedTuple

from yarl import URL

WIKIMEDIA_UPLOADS = "upload.wikimedia.org"  # serves the files of all wikis
FLICKR_LIVE = "live.staticflickr.com"  # serves all photos today
# Where hosts redirect to when an image is gone: Flickr, as met in YFCC100M, and imgur.
PLACEHOLDER = re.compile(
    r"/photo_(unavailable|deleted|not_found)[^/]*\.(png|gif|jpg)$|^i\.imgur\.com/removed\.png$", re.IGNORECASE
)
FLICKR_JPEG = re.compile(r"static\.?flickr\.com/.*\.jpg$", re.IGNORECASE)
# MD5 of files that hosts serve under an image's own name when it is gone: imgur's (which is also its ETag there).
PLACEHOLDER_MD5 = frozenset({"d835884373f4d6c8f24742ceabe74946"})
PLACEHOLDER_BYTES = 4_096  # no such file is longer, so that others need no second hash


def is_placeholder(target: URL, beginning: bytes = b"") -> bool:
    """Whether a URL, or the first bytes of what it gave, is a known placeholder for a removed image."""
    place = f"{target.raw_host}{target.raw_path}"
    if PLACEHOLDER.search(place):
        return True
    # Flickr's photos are what their names say; the image that it puts in their place is a PNG or a GIF.
    return bool(FLICKR_JPEG.search(place)) and beginning.startswith((b"\x89PNG", b"GIF8"))


def is_placeholder_file(data: bytes) -> bool:
    """Whether a whole file is a known placeholder for a removed image."""
    if len(data) > PLACEHOLDER_BYTES:
        return False
    return hashlib.md5(data, usedforsecurity=False).hexdigest() in PLACEHOLDER_MD5


class HostLimits(NamedTuple):
    """Upper limits on the requests to one host."""

    connections: int  # at once
    rate: float  # requests/s, evenly spaced
    bytes_per_s: float = math.inf

    def share(self, machines: int) -> HostLimits:
        """What each of several machines may take; one connection at least."""
        return HostLimits(max(1, self.connections // machines), self.rate / machines, self.bytes_per_s / machines)


# By the end of a host's name. Wikimedia's robot policy: 2 connections, 25 Mbit/s, and a contact in the User-Agent.
# Flickr names no limit for its images: its own is less than the default, since YFCC100M has nothing but them.
HOST_LIMITS = {
    "wikimedia.org": HostLimits(2, math.inf, 25e6 / 8),
    "staticflickr.com": HostLimits(2, 5.0),
    "static.flickr.com": HostLimits(2, 5.0),
}
CONTACT_REQUIRED = ("wikimedia.org", "wikipedia.org")
CONTACT = re.compile(r"https?://|[^\s@]+@[^\s@]+\.[^\s@]+")


def limits_for(host: str, limits: HostLimits) -> HostLimits:
    """The limits, or less where the host asks for less."""
    for name, preset in HOST_LIMITS.items():
        if _is_of(host, name):
            return HostLimits(
                connections=min(limits.connections, preset.connections),
                rate=min(limits.rate, preset.rate),
                bytes_per_s=min(limits.bytes_per_s, preset.bytes_per_s),
            )
    return limits


def _is_of(host: str, name: str) -> bool:
    return host == name or host.endswith(f".{name}")


def lacks_contact(host: str, user_agent: str) -> bool:
    """Whether a host that wants a contact (a URL or an e-mail address) in the User-Agent would get none."""
    return any(_is_of(host, name) for name in CONTACT_REQUIRED) and not CONTACT.search(user_agent)


FLICKR_FARM = re.compile(r"(?:farm\d+|live|static)\.(?:staticflickr|static\.flickr|flickr)\.com")
WIKIMEDIA_THUMBNAIL = re.compile(r"(/wikipedia/[^/]+)/thumb(/./../[^/]+)/[^/]+")
FLICKR_CDN = re.compile(r"c\d+\.staticflickr\.com")
FLICKR_URL = re.compile(r"https?://[^/]*flickr\.com/", re.IGNORECASE)


def current_url(url: str) -> str:
    """Where Flickr serves a photo today: the hosts `farm1.` to `farm9.` of the lists redirect there, if they answer at
    all. For fetching only: the photo's hash, and what names it in a list, is the URL as stored."""
    return _FARM_URL.sub(f"https://{FLICKR_LIVE}/", url, count=1)


_FARM_URL = re.compile(r"https?://(?:farm\d+\.static\.?flickr\.com|static\.flickr\.com)/(?=\d+/)", re.IGNORECASE)
