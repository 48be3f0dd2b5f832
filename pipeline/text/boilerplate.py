"""Phrases that say nothing of what an image shows: when and by whom it was taken, how to use the page it stood on, its
licence, what camera software writes by itself. `boilerplate_words` says how much of a caption they are."""

from __future__ import annotations

import functools
import re

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?:1[6-9]\d\d|20\d\d)"
_WEEKDAY = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\.?,?\s+(?:the\s+)?"
_TIME = (
    r"(?:(?:,|\s+at|\s+@|T)?\s*(?:[01]?\d|2[0-4])[:.][0-5]\d(?:[:.][0-5]\d(?:\.\d+)?)?\s*(?:[ap]\.?m\.?)?Z?"
    r"|(?:,|\s+at)\s*(?:1[0-2]|[1-9])\s*[ap]\.?m\.?)"
)
_CALENDAR = "|".join(
    (
        rf"{_YEAR}[-/.:]\d{{1,2}}[-/.:]\d{{1,2}}",  # 2009-05-12, EXIF's 2009:05:12
        rf"\d{{1,2}}[-/.]\d{{1,2}}[-/.](?:{_YEAR}|\d\d)",  # 12/05/2009, 12.5.09
        rf"{_DAY}[-\s]+(?:of\s+)?{_MONTH}[-,\s]+(?:{_YEAR}|'\d\d)",  # 12th of May, 2009; 12-May-2009
        rf"{_MONTH}\s+{_DAY}(?:\s*,\s*|\s+)(?:{_YEAR}|'\d\d)",  # May 12th, 2009
        rf"{_YEAR}\s+{_MONTH}\s+{_DAY}",
    )
)
_FULL_DATE = rf"(?:{_WEEKDAY})?(?:{_CALENDAR})(?:{_TIME})?"
_VAGUE_DATE = (
    rf"(?:{_MONTH},?\s+(?:of\s+)?{_YEAR}|{_DAY}\s+(?:of\s+)?{_MONTH}|{_MONTH}\s+{_DAY}|"
    rf"(?:(?:early|mid|late)[-\s]+)?(?:(?:spring|summer|autumn|fall|winter)(?:\s+of)?\s+)?"
    rf"(?:(?:circa|ca?\.|about|around)\s*)?(?:the\s+)?{_YEAR}(?:s|'s)?)"
)
_DATE = rf"(?:<date>|{_FULL_DATE}|{_VAGUE_DATE})"
_IMAGE = r"(?:photo(?:graph)?|picture|image|pic|shot|snapshot|scan|screenshot|file|video|pano(?:rama)?)s?"
_TAKEN = r"(?:photograph|shoot|record|film|captur|upload|creat|post|scann|publish|add|dat)(?:ed|ing)|taken|shot|snapped"
_NAME = r"(?:[^\W\d_a-z][\w'.-]*|[\w-]+)(?:\s+[^\W\d_a-z][\w'.-]*){0,3}"  # after the first word, only capitals
_LICENCE = (
    r"(?:cc[-\s]by(?:[-\s](?:sa|nc|nd)){0,2}|creative\s+commons(?:\s+(?:attribution|zero|by))?|gfdl|"
    r"gnu\s+free\s+documentation(?:\s+licen[cs]e)?|public\s+domain|cc[-\s]?0)"
    r"(?:[-\s,]+(?:share[-\s]?alike|non[-\s]?commercial|no[-\s]?deriv(?:ative)?s?(?:\s+works)?|attribution|generic|"
    r"unported|international|licen[cs]ed?|sa|nc|nd|v?\d(?:\.\d)?|dedication|mark))*"
)
_LICENCE_HINTS = ("cc by", "cc-by", "cc0", "cc 0", "cc-0", "commons", "gfdl", "gnu free", "public domain")

_CAPITALISED = r"[^\W\d_a-z][\w'.-]*(?:\s+[^\W\d_a-z][\w'.-]*){0,3}"
_EXPOSURE = r"(?:f/?\d+(?:\.\d+)?|iso\s*\d{2,5}|\d+(?:\.\d+)?\s*mm|1/\d+(?:\s*s(?:ec)?)?|\d+(?:\.\d+)?\s*s(?:ec)?)"
_AGENCIES = "shutterstock|istock(?:photo)?|getty ?images|alamy|dreamstime|depositphotos|123rf|fotolia|adobe stock"

# Each phrase with its hints: it can only be in a caption that holds one of them, in lower case and with every digit
# as 0. Most captions hold few, and looking for a hint is a hundred times cheaper than looking for a phrase.
_CREDITS = (
    (
        (" by ", ":"),
        rf"(?i:{_IMAGE}|photography|courtesy)(?i:\s+(?:credits?|source|courtesy|copyright))?(?i:\s+(?:taken|of))?"
        rf"(?:(?i:\s+by)\s+|\s*:\s*){_NAME}",
    ),
    (
        ("courtesy", "via ", "ed by "),
        rf"(?i:(?:{_IMAGE}\s+)?courtesy(?:\s+of)?|via|(?:photograph|upload|post)ed\s+by)\s+{_NAME}",
    ),
    (("credit", "photographer", "source", "author"), rf"(?i:credits?|photographer|source|author)\s*:\s*{_NAME}"),
    (("©", "(c)", "copyright"), rf"(?:©|\([cC]\)|[Cc]opyright)\s*(?:{_YEAR}\s*)?(?:[Bb]y\s+)?{_CAPITALISED}"),
    (("0 by ",), rf"(?<=\d\s)by\s+(?:(?i:me|the\s+(?:author|photographer|uploader))|{_CAPITALISED})$"),
)
_PHRASES = (
    # when it was taken
    (
        ("0", "<date>"),
        rf"(?:(?:this|the|my)\s+)?(?:{_IMAGE}\s+)?(?:(?:was|were|is|originally|first)\s+)*(?:{_TAKEN})"
        rf"(?:\s+(?:by\s+me|with\s+(?:(?:an?|my|the)\s+)?\w+))?\s*(?:on|in|at|during|back\s+in|circa|:)?\s*"
        rf"(?:(?:the|a)\s+)?{_DATE}",
    ),
    (("0",), rf"(?:{_IMAGE}|date)(?:\s+(?:date|from|of|on))?\s*[:\s]\s*{_FULL_DATE}"),
    (("0",), rf"(?:(?:on|dated|from)\s+)?{_FULL_DATE}"),
    # where it was put
    (
        ("uploaded", "posted", "shared", "sent", "published"),
        r"(?:originally\s+)?(?:uploaded|posted|shared|sent|published)\s+(?:by|from|with|via|to|using|on)\s+"
        r"(?:(?:my|the)\s+)?(?:flickr\S*(?:\s+mobile|\s+uploadr)?|instagram|iphone|ipad|android|twitter|facebook|"
        r"picasa\S*|lightroom|iphoto|blackberry|mobile(?:\s+phone)?|phone|email)(?:\s+app)?",
    ),
    (("original ",), r"original\s+(?:uploader|upload\s+date|uploaded|filename|caption)\b[^.]{0,40}"),
    # how to use the page
    (
        ("click", "tap", "press", "hit", "hover", "roll"),
        r"(?:please\s+)?(?:(?:double[-\s]?)?click|tap|press|hit|hover|roll\s*over)(?:\s+(?:here|on|the|this|any|each|"
        r"image|photo|picture|pic|thumbnail|link|it|icon|l|f11|above|below))*\s+(?:to|for)\s+(?:(?:a|the|see|view|it|be)"
        r"\s+)*(?:enlarged?|zoom|view|see|larger?|bigger|full|hi(?:gh)?|open|download|play|expand|magnify|more|details?)"
        r"(?:[-\s]+(?:the|a|an|it|this|image|photo|picture|pic|view|version|size|sized|res|resolution|screen|in|larger|"
        r"bigger|full|details?|info|information|here|or|on|black|gallery|video))*",
    ),
    (
        ("view", "see"),
        r"(?:best\s+)?(?:view(?:ed)?|see|seen)\s+(?:it\s+)?(?:(?:on|in|at|its)\s+)?(?:larger?|big(?:ger)?|full|original|"
        r"black)(?:\s+(?:on|in|size|sized|version|image|photo|picture|screen|resolution|view|black))+",
    ),
    (("best ", "view "), r"best\s+(?:viewed|seen)\s+\w+|view\s+(?:large|on\s+black)"),
    (
        ("enlarge", "zoom", "download", "view", "open", "share", "save", "pin", "print"),
        r"(?:enlarge|zoom|download|view|open|share|save|pin|print)\s+(?:(?:this|the)\s+)?"
        r"(?:image|photo|picture|full[-\s]size)",
    ),
    (
        ("embedded", "permalink"),
        r"embedded\s+(?:image|photo|video)(?:\s+permalink)?|(?:image\s+)?permalink(?:\s+to\s+\w+)?",
    ),
    (
        ("profile", "avatar"),
        r"(?:(?:user|my|facebook|twitter|default)\s+)?(?:profile|avatar)\s+(?:photo|picture|pic|image)s?"
        r"(?:\s+(?:for|of)\s+@?\w+)?|profile\s+for\s+\w+",
    ),
    (
        ("available", "no "),
        r"(?:no\s+)?(?:photo|image|picture|alt(?:\s+text)?|description|caption|preview)\s+(?:description\s+)?"
        r"(?:(?:is|are)\s+)?(?:not\s+|un)?available(?:\s+yet)?|"
        r"no\s+(?:photo|image|picture|description|caption|title|alt\s+text)",
    ),
    (
        ("may contain", "results for", "result for", "thumbnail"),
        r"image\s+may\s+contain\s*:?|(?:image|photo|picture)\s+results?\s+for|thumbnail\s+(?:for|of)\s+version",
    ),
    (
        ("image", "photo", "picture", "thumbnail"),
        r"(?:missing|broken|placeholder|featured|feature|main|hero|header|cover|background|default|blog|product|attached|"
        r"additional|related|slide(?:show)?)\s+(?:image|photo|picture|thumbnail)s?(?:\s+\d+)?",
    ),
    (
        ("0",),
        r"(?:image|photo|picture|slide|figure|fig\.?|page|item|view)\s+(?:number\s+|no\.?\s*|#\s*)?\d+(?:\s+of\s+\d+)?",
    ),
    (
        ("google maps", "see more", "see all", "all sizes"),
        r"view\s+\S+\s+in\s+google\s+maps|all\s+sizes|see\s+(?:more|all)\s+(?:photos|pictures|images|pics)",
    ),
    # stock
    (
        ("stock",),
        r"(?:(?:(?:royalty|copyright)[-\s]free|free|rights[-\s]managed|premium|high[-\s]quality)\s+)?(?:vector\s+)?stock\s+"
        r"(?:photo(?:graph(?:y|s)?)?|image|picture|pic|illustration|footage|video|vector|clip\s?art|art|graphic)s?"
        r"(?:\s+(?:and|&)\s+(?:royalty[-\s]free\s+)?(?:photo|image|picture|illustration)s?)?",
    ),
    (("royalty",), r"royalty[-\s]free(?:\s+(?:stock|vector|images?|photos?|pictures?|illustrations?|clip\s?art))*"),
    (("stock", "getty", "alamy", "dreams", "deposit", "000rf", "fotolia"), _AGENCIES),
    # licences
    (
        _LICENCE_HINTS,
        rf"(?:(?:this|the|all)\s+)?(?:(?:{_IMAGE}|work|content)\s+)?(?:(?:is|are|was|has\s+been)\s+)?(?:(?:licen[cs]ed|"
        r"released|available|published|made\s+available|in|dedicated|placed|free\s+to\s+use)\s+)+"
        rf"(?:(?:under|into|in|to|a|an|the|terms|of|with)\s+)*{_LICENCE}",
    ),
    (_LICENCE_HINTS, _LICENCE),
    (
        ("reserved", "restrictions", "without", "subject to"),
        r"(?:(?:image|photo)s?\s+)?may\s+be\s+subject\s+to\s+copyright|"
        r"(?:all|some)\s+rights?\s+reserved|no\s+known\s+copyright\s+restrictions|(?:please\s+)?(?:do\s+not|don't|no)\s+"
        r"(?:use|copy|copying|reproduce|reproduction|post)[^.]{0,60}\swithout\s+[^.]{0,50}",
    ),
    (
        ("permission", "work", "commons"),
        r"permission\s+is\s+granted\s+to\s+copy[^.]*|(?:own|self[-\s]made)\s+work(?:\s+by(?:\s+the)?\s+\S+)?|"
        r"(?:from\s+)?wikimedia\s+commons",
    ),
    (
        ("©", "(c)", "copyright"),
        rf"(?:©|\(c\)|copyright(?:ed)?)(?:\s*(?:©|\(c\)))?(?:\s*{_YEAR}(?:\s*[-–]\s*{_YEAR})?)?",
    ),
    # what cameras and their software write
    (
        ("camera", "dsc", "exif", "technologies"),
        r"according\s+to\s+exif(?:\s+data)?|"
        r"(?:(?:olympus|minolta|samsung)\s+)?digital\s+(?:still\s+)?camera|kodak\s+digital\s+still\s+camera|sony\s+dsc|"
        r"samsung\s+camera\s+pictures|exif[\s_]jpeg[\s_](?:picture|t\d+)|lead\s+technologies(?:\s+inc\.?)?(?:\s+v[\d.]+)?",
    ),
    (
        ("processed", "created", "default title"),
        r"processed\s+with\s+(?:vsco(?:cam)?|snapseed|moldiv|rookie)(?:\s+with\s+\S+\s+preset)?|"
        r"created\s+(?:with|by|using)\s+(?:gimp|dji\s+\w+|photoshop|picasa|lightroom|hugin)|default\s+title",
    ),
    (
        ("f/0", "f0", "iso", "mm", "0/0"),
        r"(?:(?:canon|nikon|sony|fuji(?:film)?|olympus|panasonic|pentax|leica|kodak|casio|samsung)\s+)?(?:eos\s+)?"
        rf"(?:[a-z]{{0,3}}\d{{1,4}}[a-z]{{0,3}}\s+)?{_EXPOSURE}(?:[\s,;|@]+{_EXPOSURE})+",
    ),
)

_PATTERNS = tuple(
    (hints, re.compile(rf"(?<![\w-])(?:{phrase})(?![\w-])", flags))
    for phrases, flags in ((_CREDITS, 0), (_PHRASES, re.IGNORECASE))  # names first: a phrase may cover their beginning
    for hints, phrase in phrases
)
# The hints of all, flat: most captions end here, and this loop is the most expensive part of judging them.
_HINTS = tuple((hint, number) for number, (hints, _) in enumerate(_PATTERNS) for hint in hints)
_DIGITS = str.maketrans("123456789", "000000000")
_WORD = re.compile(r"\w[\w'’.:/-]*")
_COVER = "\0"
_COVERED = re.compile(f"{_COVER}+")
MAX_CHARACTERS = 2000
"""Of a longer caption only the beginning is judged."""


def is_possible(caption: str) -> bool:
    """False for most captions: none of their words can lie in boilerplate."""
    return bool(_hinted(caption[:MAX_CHARACTERS]))


def boilerplate_words(caption: str) -> tuple[int, int]:
    """How many of a caption's words lie in boilerplate, and how many there are."""
    caption = caption[:MAX_CHARACTERS]
    covered = _covered(caption)
    if covered == caption:
        return 0, len(_WORD.findall(caption))
    words = [match.span() for match in _WORD.finditer(caption)]
    return sum(1 for start, end in words if covered.count(_COVER, start, end) * 2 > end - start), len(words)


def phrases(caption: str) -> list[str]:
    """The parts of a caption that lie in boilerplate, in their order; neighbours that touch come as one."""
    caption = caption[:MAX_CHARACTERS]
    return [caption[slice(*match.span())] for match in _COVERED.finditer(_covered(caption))]


def _covered(caption: str) -> str:
    """The caption with _COVER for each character of boilerplate."""
    for number in _hinted(caption):
        caption = _PATTERNS[number][1].sub(lambda match: _COVER * len(match[0]), caption)
    return caption


@functools.lru_cache(maxsize=1)  # asked for the same caption twice in a row
def _hinted(caption: str) -> list[int]:
    """The numbers of the patterns that a caption may hold."""
    folded = caption.lower().translate(_DIGITS)
    return sorted({number for hint, number in _HINTS if hint in folded})
