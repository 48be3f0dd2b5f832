"""Templates of wikitext as the words that a reader sees: `{{circa|1500}}` is "c. 1500".

`RENDERERS` has a function for each name, of the template's parameters as text. What stands for no words of a caption
(references, flags, anchors) renders as nothing. Any other template is `Unrenderable`: a caption with a hole in it would
say something else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Unrenderable(ValueError):
    """A template of which the text is not known; its name is the message."""


class Call(NamedTuple):
    """A template with its parameters as text."""

    name: str  # in lower case, with spaces
    values: Sequence[str]  # those without a name, in their order
    named: Mapping[str, str]  # by names in lower case
    name_as_written: str = ""

    def value(self, number: int, default: str = "") -> str:
        """A parameter without a name, from 1."""
        return self.values[number - 1] if number <= len(self.values) else self.named.get(str(number), default)


def render(call: Call) -> str:
    """The words of a template. Raises Unrenderable."""
    name = call.name
    if renderer := RENDERERS.get(name):
        return renderer(call)
    if name.startswith(_NOTHING_PREFIXES):
        return ""
    if name.startswith(("lang-", "langx-")) or name in COUNTRIES:
        return COUNTRIES.get(name) or call.value(1)
    function, colon, argument = call.name_as_written.partition(":")
    if colon and function.strip().lower() in _PARSER_FUNCTIONS:
        return _PARSER_FUNCTIONS[function.strip().lower()](argument)
    raise Unrenderable(name)


def grouped(number: str) -> str:
    """A number with commas: 1250 -> 1,250."""
    match = re.fullmatch(r"([-−+]?)(\d+)(\.\d+)?", number.strip().replace(",", ""))
    return f"{match[1]}{int(match[2]):,}{match[3] or ''}" if match else number.strip()


# Each renders a Call.


def _first(call: Call) -> str:
    return call.value(1)


def _second(call: Call) -> str:
    return call.value(2)


def _last(call: Call) -> str:
    return call.values[-1] if call.values else ""


def _nothing(call: Call) -> str:
    return ""


def _joined(call: Call) -> str:
    return ", ".join(value for value in call.values if value)


def _always(text: str) -> Callable[[Call], str]:
    return lambda call: text


def _around(before: str, after: str = "") -> Callable[[Call], str]:
    return lambda call: f"{before}{call.value(1)}{after}"


def _years(prefix: str) -> Callable[[Call], str]:
    """`c. 1500` and `c. 1500 – c. 1510`; of a reign `r. 1500–1510`."""

    def render_years(call: Call) -> str:
        first, last = call.value(1), call.value(2)
        if not last:
            return f"{prefix} {first}".strip()
        return f"{prefix} {first} – {prefix} {last}" if prefix == "c." else f"{prefix} {first}–{last}"

    return render_years


def _link_to_other_wiki(call: Call) -> str:
    return call.named.get("lt") or call.value(1)


def _ship(call: Call) -> str:
    """`{{HMS|Victory}}`, `{{USS|Enterprise|CVN-65|2}}`, `{{ship|French ship|Orient|1791}}`."""
    values = list(call.values)
    prefix = values.pop(0) if call.name == "ship" and values else call.name.upper()
    prefix = {"SMS": "SMS", "MV": "MV"}.get(prefix, prefix)
    name, number, form = [*values, "", "", ""][:3]
    form = form or call.named.get("up", "")
    forms = {"1": number, "2": f"{prefix} {name}", "3": f"{name} ({number})", "5": f"{prefix} {number}", "6": name}
    if form in forms:
        return forms[form].strip()
    return f"{prefix} {name}{f' ({number})' if number else ''}".strip()


def _ship_class(call: Call) -> str:
    kind, what, form = call.value(1), call.value(2), call.value(3)
    return {"1": f"{kind} class", "2": kind, "5": f"{kind} class"}.get(form) or f"{kind}-class {what}".strip()


def _fraction(call: Call) -> str:
    if len(call.values) == 1:
        return f"1/{call.value(1)}"
    *whole, above, below = list(call.values[:3]) or ["", ""]
    return " ".join([*whole, f"{above}/{below}"])


def _value(call: Call) -> str:
    unit = call.named.get("u") or call.named.get("ul") or call.named.get("upl") or ""
    return f"{call.named.get('p', '')}{grouped(call.value(1))}{call.named.get('s', '')} {unit}".strip()


_UNITS = {
    "c": "°C", "f": "°F", "k": "K", "km2": "km²", "m2": "m²", "cm2": "cm²", "mm2": "mm²", "m3": "m³", "cm3": "cm³",
    "sqmi": "sq mi", "sqft": "sq ft", "ft2": "sq ft", "mi2": "sq mi", "cuft": "cu ft", "acre": "acres", "mph": "mph",
    "kph": "km/h", "ha": "ha", "lb": "lb", "lbs": "lb", "foot": "feet", "inch": "inches", "mile": "miles",
    "long ton": "long tons", "short ton": "short tons", "tonne": "tonnes", "t": "tonnes", "lt": "long tons",
    "pound": "pounds", "metre": "metres", "yard": "yards", "usgal": "US gallons", "impgal": "gallons", "hp": "hp",
}  # fmt: skip
_ADJECTIVES = {
    "ft": "foot", "in": "inch", "mi": "mile", "yd": "yard", "lb": "pound", "m": "metre",
    "km": "kilometre", "cm": "centimetre",
    "mm": "millimetre", "kg": "kilogram", "acre": "acre", "t": "tonne", "long ton": "long-ton",
    "foot": "foot", "inch": "inch",
}  # fmt: skip
_BETWEEN = {
    "to": " to ", "and": " and ", "-": "–", "–": "–", "x": " × ", "×": " × ", "by": " by ", "or": " or ", "to(-)": "–",
    "+/-": " ± ", "*": " × ", "to about": " to about ", "and(-)": "–",
}  # fmt: skip


def _converted(call: Call) -> str:
    """The measure as it is written, in its own unit: `{{convert|5|ft|6|in|m}}` is "5 ft 6 in"."""
    values = [value.strip() for value in call.values]
    if len(values) < 2 or not re.match(r"[\d.+−-]", values[0]):
        raise Unrenderable(call.name)
    text, position = grouped(values[0]), 1
    while position + 1 < len(values) and values[position] in _BETWEEN:
        text += _BETWEEN[values[position]] + grouped(values[position + 1])
        position += 2
    unit = values[position] if position < len(values) else ""
    if call.named.get("adj") in ("on", "mid") and unit in _ADJECTIVES:
        return f"{text}-{_ADJECTIVES[unit]}{call.named.get('mid', '')}"
    text = f"{text} {_UNITS.get(unit.lower(), unit)}".strip()
    if position + 2 < len(values) and re.fullmatch(r"[\d.]+", values[position + 1]):
        return f"{text} {values[position + 1]} {_UNITS.get(values[position + 2].lower(), values[position + 2])}"
    return text


def _height(call: Call) -> str:
    parts = [f"{call.named[unit]} {unit}" for unit in ("m", "cm", "ft", "in") if call.named.get(unit)]
    if not parts:
        raise Unrenderable(call.name)
    return " ".join(parts)


MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def _date(call: Call) -> str:
    """`{{start date|2009|5|12}}`: "May 12, 2009", with df=y "12 May 2009"."""
    numbers = [value.strip() for value in call.values if re.fullmatch(r"\s*\d{1,4}\s*", value)][:3]
    if not numbers:
        if call.value(1):
            return call.value(1)
        raise Unrenderable(call.name)
    year, *others = numbers
    if not others or not 1 <= int(others[0]) <= 12:
        return year
    month = MONTHS[int(others[0]) - 1]
    if len(others) == 1:
        return f"{month} {year}"
    day_first = call.named.get("df", "n")[:1].lower() == "y"
    return f"{int(others[1])} {month} {year}" if day_first else f"{month} {int(others[1])}, {year}"


def _as_of(call: Call) -> str:
    word = "as of" if call.named.get("lc") else "As of"
    return call.named.get("alt") or f"{word} {_date(call)}"


def _money(sign: str) -> Callable[[Call], str]:
    return lambda call: f"{sign}{grouped(call.value(1))}" if call.value(1) else sign


def _ordinal(call: Call) -> str:
    number = call.value(1).strip()
    if not number.isdecimal():
        raise Unrenderable(call.name)
    teen = number[-2:-1] == "1"
    return number + ("th" if teen else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th"))


def _of_alternatives(*names: str) -> Callable[[Call], str]:
    """The first of the named parameters that is there, else the first without a name."""
    return lambda call: next((call.named[name] for name in names if call.named.get(name)), call.value(1))


def _nihongo(call: Call) -> str:
    return call.value(1) or call.value(3) or call.value(2)


def _sort_name(call: Call) -> str:
    return f"{call.value(1)} {call.value(2)}".strip()


def _sic(call: Call) -> str:
    return "".join(call.values)


def _music(call: Call) -> str:
    return {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯", "natural": "♮"}.get(call.value(1), call.value(1))


_TABLE: tuple[tuple[Callable[[Call], str], str], ...] = (
    (
        _nothing,
        "citation needed|cn|fact|clarify|who|when|where|which|by whom|according to whom|dubious|disputed inline|vague|"
        "better source needed|bsn|dead link|verify source|failed verification|page needed|rp|r|ref|refn|efn|efn-ua|"
        "efn-lr|sfn|sfnp|sfnm|harv|harvnb|harvtxt|note|notetag|ref label|cref|cref2|citation|webarchive|anchor|anchors|"
        "clear|-|clr|clearleft|clearright|coord|flagicon|flagicon image|flagdeco|flag icon|fbicon|cricon|ruicon|"
        "country flag|ipac-en|ipa|ipa link|respell|pronunciation|pron|hs|sort key|shy|zwsp|zwj|wbr|"
        "hidden comment|void|refname|commons-inline|commonscat-inline|self-published inline|sps|primary source inline|"
        "importance inline|relevance inline|update inline|update after|contradict inline|globalize|"
        "full citation needed|"
        "need quotation|request quotation|image reference needed|original research inline|or|pov statement|why|how|"
        "specify|what|peacock inline|weasel inline|elucidate|ambiguous|disambiguation needed|dn|color box|colorbox|"
        "colour box|legend color|open access|closed access|subscription required|registration required|infobox|"
        "icon|silver medal|gold medal|bronze medal|gold01|silver02|bronze03|increase|decrease|steady|small div|end|"
        "use dmy dates|use mdy dates|section link|see below|toclimit|spoken|audio icon|speaker|listen|stub|interp",
    ),
    (
        _first,
        "nowrap|nobr|small|smaller|smalldiv|big|bigger|larger|large|nobold|noitalic|noitalics|em|"
        "strong|bold|italic|italics|"
        "normal|vanchor|visible anchor|va|abbr|abbrv|abbreviation|tooltip|sc|sc1|smallcaps|"
        "small caps|uc|lc|underline|u|"
        "strike|s|mono|code|kbd|tt|var|mvar|math|mathcal|sup|sub|superscript|subscript|super|su|quote|blockquote|bq|"
        "proper name|not a typo|notatypo|typo|as written|flag|flagu|flagcountry|flagg|flag+link|flagteam|nation|"
        "keypress|key press|button|script|nihongo2|jpn|cjk|hebrew|arabic|right-to-left|rtl-lang|linear-text|unicode|"
        "title|film|play|song|ship class|no wrap|nowraplinks|no italic|plain link|plainlist|flatlist|vertical-align|"
        "lower|raise|center|centre|left|right|align center|floatright|floatleft|caps|allcaps|nbsp text|"
        "pslink|section-link|interlinear|taxon|polytonic|grc|wikt|wiktionary|w|date|dts|val2|player|cite taxon|"
        "gsub|au|nomen|text|gaps|block indent|indent|ipa-all|pinyin|transl-zh|snamei|snamb|sname|snames|no spam|"
        "lw|see|subject|ctl|st|cb|langr|not typo|font|serif|sans-serif|big text|xt|!xt|tq|pre2",
    ),
    (
        _second,
        "lang|lang2|resize|font size|fontsize|color|colour|background color|bgcolor|highlight|legend|legend2|legend0|"
        "legend inline|sort|wikt-lang|linktext lang|rotate|rotation|small font|hover title|aligned|vl",
    ),
    (_last, "transl|translit|transliteration|font color|fontcolor|align|langue|float|stack|ruby|ruby-ja"),
    (_joined, "hlist|ubl|ubil|unbulleted list|bulleted list|blist|ulist|cslist|comma separated entries|linktext|enum"),
    (_years("c."), "circa|c.|ca|ca.|c|circa-inline"),
    (_years("fl."), "floruit|fl.|fl"),
    (_years("r."), "reign|r.|ruled"),
    (_around("b. "), "b.|born"),
    (_around("d. "), "d.|died"),
    (_around("["), "bracket open"),
    (_around("[", "]"), "bracket|brackets|bracketed"),
    (_around("", "′"), "prime"),
    (_around("", " BC"), "bc"),
    (_around("", " BCE"), "bce"),
    (_around("AD "), "ad"),
    (_around("", " CE"), "ce"),
    (_around("“", "”"), "qq|\"|''"),
    (_around("No. "), "no.|numero|number sign"),
    (_link_to_other_wiki, "ill|interlanguage link|link-interwiki|illm|interlanguage link multi|lien|iw|ill-wd|wd link"),
    (
        _ship,
        "ship|hms|uss|ss|ms|mv|rms|hmas|hmcs|hmnzs|hmt|rv|usns|uscgc|hmis|hnlms|hdms|hswms|sms|tss|"
        "ps|mt|my|usat|usrc|css|"
        "orp|ara|ins|jds|js|rocs|roks|pns|tcg|gts|ts|hmbs|hmhs|hmm|hmy|usrs|usav|rfa|mts|psv|ftv|lé|sas|kri|krii|brp|"
        "arc|arm|arp|cs|empire|hmqs|hmvs|mf|mfv|mn|msc|nrp|pv|rnlb|rrs|smu|sy|toss|usc&gs|uscs|ussv|usrv|yv|st. s",
    ),
    (_ship_class, "sclass|sclass2|sclass-|class"),
    (_fraction, "frac|fraction|sfrac|split fraction|fract"),
    (_value, "val|nts|ntsh|number table sorting|formatnum|num|commas|formatprice"),
    (_converted, "convert|cvt|conv|converted|unité|unit|convinfobox|height in meters"),
    (_height, "height|hauteur"),
    (
        _date,
        "start date|end date|birth date|death date|film date|start-date|end-date|date2|start date and age|dob|"
        "birth date and age|death date and age|release date|launch date|date table sorting|bda|dda|start and end dates",
    ),
    (_as_of, "as of|asof"),
    (_money("US$"), "us$|usd|us dollar"),
    (_money("$"), "$|dollar"),
    (_money("£"), "£|gbp|pound sterling|pound|currency gbp"),
    (_money("€"), "€|euro|eur"),
    (_money("A$"), "a$|aud"),
    (_money("C$"), "c$|cad|ca$"),
    (_money("₹"), "₹|inr|indian rupee"),
    (_money("¥"), "¥|jpy|cny|yen"),
    (_ordinal, "ordinal|ord|ordinal number"),
    (_of_alternatives("p", "t", "s", "c", "l"), "zh|zh-full|chinese|lang-zh"),
    (_nihongo, "nihongo|nihongo3|nihongo krt|nihongo core|nihongo foot|korean"),
    (_sort_name, "sortname|sort name|person name"),
    (_sic, "sic"),
    (_music, "music"),
    (_always("–"), "endash|ndash|en dash|–|nsndash"),
    (_always(" – "), "snd|snds|spnd|spaced ndash|spaced en dash|snds|spndsp|spaced en dash space|spaced endash"),
    (_always("—"), "emdash|mdash|em dash|—|nsmdash"),
    (_always(" — "), "spaced mdash|spaced em dash|spaced emdash"),
    (
        _always(" "),
        "nbsp|spaces|space|thinsp|thin space|hair space|hsp|sp|pad|br|break|newline|crlf|brk|pb|ensp|emsp|nnbsp",
    ),
    (_always("|"), "!|pipe|bar|vert"),
    (_always("="), "=|equals"),
    (_always("'"), "'|apostrophe|apos"),
    (_always("'s"), "'s|as"),
    (_always("-"), "hyphen|hyphen-"),
    (_always("−"), "minus|−"),
    (_always("±"), "±|plus minus|plusmn"),
    (_always("×"), "times|×|x"),
    (_always(" · "), "dot|·|middot|bullet|•|bull|interpunct|\\"),
    (_always("°"), "degree|deg|°|degrees"),
    (_always("†"), "dagger|†|extinct"),
    (_always("‡"), "double-dagger|ddagger|‡"),
    (_always("*"), "asterisk|*|star"),
    (_always("{"), "(|lbrace"),
    (_always("}"), ")|rbrace"),
    (_always("["), "bracket-l|lbrack"),
    (_always("]"), "bracket-r|rbrack"),
    (_always("…"), "ellipsis|...|…"),
    (_always("♂"), "male|♂"),
    (_always("♀"), "female|♀"),
    (_always("№"), "no"),
)  # fmt: skip
RENDERERS: dict[str, Callable[[Call], str]] = {
    name: renderer for renderer, names in _TABLE for name in names.split("|") if name
} | {"|": _always("|")}
_NOTHING_PREFIXES = (
    "cite ",
    "citation ",
    "sfn",
    "harv",
    "efn",
    "refn",
    "#tag:ref",
    "ipa-",
    "ipac-",
    "ipa/",
    "wp:",
    "verify ",
)
_PARSER_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "formatnum": grouped,
    "lc": str.lower,
    "uc": str.upper,
    "lcfirst": lambda text: text[:1].lower() + text[1:],
    "ucfirst": lambda text: text[:1].upper() + text[1:],
}
_COUNTRY_CODES = (
    "usa=United States|us=United States|uk=United Kingdom|gbr=United Kingdom|fra=France|ger=Germany|"
    "deu=Germany|ita=Italy|"
    "esp=Spain|por=Portugal|ned=Netherlands|nld=Netherlands|bel=Belgium|sui=Switzerland|che=Switzerland|aut=Austria|"
    "pol=Poland|cze=Czech Republic|svk=Slovakia|hun=Hungary|rou=Romania|bul=Bulgaria|gre=Greece|grc=Greece|tur=Turkey|"
    "rus=Russia|ukr=Ukraine|swe=Sweden|nor=Norway|den=Denmark|dnk=Denmark|fin=Finland|isl=Iceland|"
    "irl=Ireland|can=Canada|"
    "mex=Mexico|bra=Brazil|arg=Argentina|chi=Chile|chl=Chile|aus=Australia|nzl=New Zealand|jpn=Japan|chn=China|"
    "prc=China|ind=India|pak=Pakistan|kor=South Korea|prk=North Korea|isr=Israel|egy=Egypt|rsa=South Africa|ken=Kenya|"
    "nga=Nigeria|eng=England|sco=Scotland|wal=Wales|urs=Soviet Union|ussr=Soviet Union|yug=Yugoslavia|srb=Serbia|"
    "cro=Croatia|hrv=Croatia|slo=Slovenia|est=Estonia|lat=Latvia|ltu=Lithuania|cub=Cuba|phi=Philippines|tha=Thailand|"
    "vie=Vietnam|ina=Indonesia|mas=Malaysia|sgp=Singapore|iri=Iran|irn=Iran|irq=Iraq"
)
COUNTRIES = dict(pair.split("=") for pair in _COUNTRY_CODES.split("|") if "=" in pair)
"""What templates of a country's code show beside its flag."""
