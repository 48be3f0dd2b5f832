"""The warning of a job that kept nothing: the most frequent reason, and how to fix it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.output.ledger import KEPT, READ, rejects_by_reason
from pipeline.records import Reason, Stage

_NETWORK = "check that this machine reaches the hosts of the list"
_SERVERS = "open some of the URLs: the list may be old, or its hosts may refuse this client"
_IMAGES = "look at the images, and at --min-side, --min-ratio, --max-ratio and --max-pixels"
_SCORES = "--min-clip, --min-score, --max-score and --keep-top set which scores are kept"
_FILTERS = "`pairmill show OUTPUT` lists rows that were rejected"

FIXES: Mapping[str, str] = {
    Reason.MALFORMED_ROW: "check that the file is of the kind that --source names before its =",
    Reason.DAMAGED_FILE: "copy the file again: it ends too early or is damaged",
    Reason.NO_URL: "check that the file is of the kind that --source names before its =",
    Reason.BAD_URL: "check that the file is of the kind that --source names before its =",
    Reason.NO_CAPTION: "check that the file is of the kind that --source names before its =",
    Reason.NOT_ENGLISH: "only English captions are kept; --language-threshold sets how sure the detector must be",
    Reason.CAPTION_TOO_SHORT: "--min-characters and --min-words set the shortest caption",
    Reason.LICENCE: "--licence sets the licences that are kept",
    Reason.NOT_IN_SUBSET: "check that the subset and the list are of the same edition",
    Reason.ASPECT_RATIO: _IMAGES,
    Reason.TOO_SMALL: _IMAGES,
    Reason.TOO_MANY_PIXELS: _IMAGES,
    Reason.REFUSED_ADDRESS: "addresses of the local network are refused; --allow-address NETWORK admits them",
    Reason.DNS: _NETWORK,
    Reason.CONNECTION: _NETWORK,
    Reason.TIMEOUT: f"{_NETWORK}; --timeout sets how long a download may take",
    Reason.HTTP_403: _SERVERS,
    Reason.HTTP_404: _SERVERS,
    Reason.HTTP_410: _SERVERS,
    Reason.HTTP_429: "the hosts ask for fewer requests; --per-host-rate sets how many",
    Reason.OPTED_OUT: "the hosts forbid this use of their images; --ignore-opt-out ignores that",
    Reason.HTTP_5XX: "the hosts are out of order; run the command again later",
    Reason.NOT_AN_IMAGE: _SERVERS,
    Reason.TOO_LARGE: "--max-bytes sets the largest file",
    Reason.UNEXPECTED: "the warnings name the errors; please report them",
    Reason.NOT_STORED: "the files of the source lack their images; copy the whole folder again",
    Reason.BAD_CODES: "--code-shape and --code-vocabulary say which codes are kept, and --draws how many an image has",
    Reason.HASH_MISMATCH: "the images have changed since the list was published; leave out the file of hashes",
    Reason.MACHINE_TAG: "--yfcc-refuse-machine-tag refuses them",
    Reason.REPETITION: "--sharma rejects such captions",
    Reason.CAPITALISATION: "--sharma rejects such captions",
    Reason.PERSONAL_DATA: "--personal-data reject rejects such captions; --personal-data mask keeps them",
    Reason.EXCLUDED: "--exclude names these images; check that its list is of another data set",
    Reason.SAMPLED_OUT: "--share and --only-source leave no pair",
    Reason.LOW_SIMILARITY: _SCORES,
    Reason.UNSAFE: _SCORES,
    Reason.WATERMARK: _SCORES,
    Reason.TEXT_IN_IMAGE: _SCORES,
    Reason.SEMANTIC_DUPLICATE: _SCORES,
    Reason.LOW_QUALITY: _SCORES,
    Reason.FACE: "--faces reject rejects images with faces; --faces blur keeps them",
    Reason.NO_CONCEPT: "--balance names a file of words, and no caption has one of them",
    Reason.FILTERED_OUT: "--where holds for no pair; `pairmill show OUTPUT` lists their values",
}
"""How to fix a run in which a reason took every row; of the reasons that are not here, the rows tell more."""


OWN_STAGES = {
    "select": (Stage.SELECT,),
    "fetch": (Stage.FETCH,),
    "score": (Stage.ENCODE,),
    "encode": (Stage.ENCODE,),
    "repack": (Stage.ENCODE,),
    "filter": (Stage.ENCODE,),
}
"""Job -> the stages whose rejects are its own; those of other stages came with its input. Those of `build` are all."""


def warning(ledger: dict[str, Any], output: str, job: str = "build") -> str | None:
    """One line on a ledger in which no row was kept, or None. Rejects of the job itself come before those of its
    input."""
    rows = ledger["sources"].values()
    if any(each[KEPT] for each in rows):
        return None
    read = sum(each[READ] for each in rows)
    if not read:
        return "no row was read: the input is empty"
    table = rejects_by_reason(ledger)
    own = {stage: table[stage] for stage in OWN_STAGES.get(job, ()) if table.get(stage)}
    number, reason = max((number, reason) for reasons in (own or table).values() for reason, number in reasons.items())
    fix = FIXES.get(reason, _FILTERS)
    return f"no row was kept; {number:,} of {read:,} were {reason}: {fix.replace('OUTPUT', output)}"
