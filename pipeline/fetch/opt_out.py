"""Headers by which a site opts out of the use of its images."""

from __future__ import annotations

from collections.abc import Collection

from multidict import CIMultiDictProxy

TDM_RESERVATION = "tdm-reservation"
OPT_OUTS = (
    "noai",
    "noimageai",
    "noindex",
    "noimageindex",
    TDM_RESERVATION,
)  # the directives of X-Robots-Tag are img2dataset's
_DIRECTIVES_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def opt_out(headers: CIMultiDictProxy[str], obeyed: Collection[str] = OPT_OUTS, robot: str = "pairmill") -> str | None:
    """The header by which a site keeps its images out of training sets, or None. Only those in `obeyed` count.

    Directives of X-Robots-Tag may be for one robot: "somebot: noindex, noai". Those for others don't count.
    """
    for value in headers.getall("X-Robots-Tag", []):
        addressed = True
        for part in value.lower().split(","):
            name, colon, directive = part.partition(":")
            if colon and name.strip() not in _DIRECTIVES_WITH_VALUES:
                addressed = name.strip() in ("*", robot)
            else:
                directive = part
            if addressed and directive.strip() in obeyed:
                return f"X-Robots-Tag: {directive.strip()}"
    if TDM_RESERVATION in obeyed and headers.get("TDM-Reservation", "").strip() == "1":
        return "TDM-Reservation: 1"
    return None
