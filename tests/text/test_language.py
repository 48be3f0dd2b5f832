import sys

import pytest

from models.errors import UserError
from pipeline.records import MAX_REJECT_TEXT
from pipeline.text import language
from pipeline.text.language import DETECTORS, MAX_CHARACTERS, is_english

ENGLISH = [
    "A brown dog runs across the wet sand",
    "person walks along the pier at sunset",
    "street art in a narrow lane",
    "vintage tractor in front of a barn",
    "Portrait of the Duke of Parma, about 1720",
    "Golden Gate Bridge at dawn",
    "my sister's birthday cake",
    "bicycles parked beside the canal in Utrecht",
    "map of the province with its rivers",
    "<PERSON> attends the opening of the exhibition",
    "football player celebrates after the match",
    "deer in the snow",
    "the old mill at night",
    "a cup of coffee and two croissants",
    "Eiffel Tower, Paris, seen from the river",
]
OTHERS = {
    "de": ["Ein brauner Hund läuft über den nassen Sand", "Blick auf die Altstadt vom Turm aus"],
    "nl": ["Een bruine hond rent over het natte strand", "De kerk in het centrum van de stad"],
    "fr": ["Un chien brun court sur le sable mouillé", "Le pont sur la rivière en automne"],
    "es": ["Un perro marrón corre por la arena mojada", "Vista de la ciudad desde el castillo"],
    "it": ["Un cane marrone corre sulla sabbia bagnata", "Il ponte vecchio di notte con la luna"],
    "pt": ["Um cachorro marrom corre pela areia molhada", "Vista da cidade a partir do castelo"],
    "sv": ["En brun hund springer över den våta sanden", "Den gamla kyrkan vid sjön på vintern"],
    "da": ["En brun hund løber hen over det våde sand", "Den gamle kirke ved søen om vinteren"],
    "fi": ["Ruskea koira juoksee märän hiekan poikki", "Vanha kirkko järven rannalla talvella"],
    "pl": ["Brązowy pies biegnie po mokrym piasku", "Stary kościół nad jeziorem zimą"],
    "cs": ["Hnědý pes běží po mokrém písku", "Starý kostel u jezera v zimě"],
    "hu": ["Egy barna kutya fut a nedves homokon", "A régi templom a tó partján télen"],
    "tr": ["Kahverengi bir köpek ıslak kumda koşuyor", "Kışın göl kenarındaki eski kilise"],
    "id": ["Seekor anjing cokelat berlari di atas pasir", "Gereja tua di tepi danau pada musim dingin"],
    "ro": ["Un câine maro aleargă pe nisipul ud", "Biserica veche de lângă lac iarna"],
    "la": ["Canis fuscus per harenam umidam currit", "Templum vetus prope lacum hieme"],
    "ru": ["Коричневая собака бежит по мокрому песку"],
    "el": ["Ένας καφέ σκύλος τρέχει στην υγρή άμμο"],
    "ar": ["كلب بني يركض على الرمال المبللة"],
    "hi": ["एक भूरा कुत्ता गीली रेत पर दौड़ता है"],
    "zh": ["一只棕色的狗在湿沙滩上奔跑"],
    "ja": ["茶色の犬が濡れた砂浜を走っている"],
    "ko": ["갈색 개가 젖은 모래 위를 달린다"],
    "th": ["สุนัขสีน้ำตาลวิ่งบนหาดทรายเปียก"],
}
SPELLINGS = [str, str.lower, str.title, str.upper, lambda text: "_".join(text.split()) + ".jpg"]


@pytest.mark.parametrize("spell", SPELLINGS, ids=["plain", "lower", "title", "upper", "file_name"])
def test_best(spell):
    assert [text for text in ENGLISH if not is_english(spell(text))] == []
    assert [text for texts in OTHERS.values() for text in texts if is_english(spell(text))] == []


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_detector_is_deterministic_and_mostly_right(detector):
    texts = [*ENGLISH, *(text for texts in OTHERS.values() for text in texts)]
    scores = [DETECTORS[detector].score(text) for text in texts]
    assert scores == [DETECTORS[detector].score(text) for text in texts]
    assert all(0 <= score <= 1.0001 for score in scores)
    right = [is_english(text, detector) == (text in ENGLISH) for text in texts]
    assert sum(right) >= 0.85 * len(texts)


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("text", ["", " ", "1234", "!?", "😀 😀", "x" * 100_000, "two\nlines of a caption"])
def test_odd_texts_raise_nothing(detector, text):
    assert is_english(text, detector) in (True, False)


@pytest.mark.parametrize("text", ["", "1234", "!?", "😀 😀", "茶色の犬", "собака"])
def test_without_latin_letters_it_is_not_english(text):
    assert not is_english(text)


def test_threshold():
    text = "A brown dog runs across the wet sand"
    assert is_english(text, "cld3", 0.0) and not is_english(text, "cld3", 1.01)


def test_unknown_detector():
    with pytest.raises(UserError, match="choose one of best, langdetect, cld3"):
        is_english("a dog", "guess")


def test_langdetect_gives_the_same_answers_from_either_library(monkeypatch):
    texts = [*ENGLISH[:4], *OTHERS["nl"], *OTHERS["da"], "Qt 5 module"]
    fast = [language.langdetect_score(text) for text in texts]
    monkeypatch.setitem(sys.modules, "langdetect_rs", None)
    language._langdetect.cache_clear()
    try:
        assert [language.langdetect_score(text) for text in texts] == fast
    finally:
        language._langdetect.cache_clear()


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("two_dogs-running.jpg", "two dogs running"),
        ("TwoDogsRunning.jpeg", "two dogs running"),
        ("Two Dogs Running Fast", "two dogs running fast"),
        ("TWO DOGS RUNNING", "two dogs running"),
        ("A brown dog beside the Seine", "A brown dog beside the Seine"),
        ("a well-kept dog", "a well-kept dog"),
    ],
)
def test_normalised(caption, text):
    assert language.normalised(caption) == text


def test_a_reject_keeps_all_that_detection_looks_at():
    assert MAX_REJECT_TEXT >= MAX_CHARACTERS
