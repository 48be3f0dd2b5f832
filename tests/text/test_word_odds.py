import pytest

from pipeline.text.language import is_english, without_quotes
from pipeline.text.word_odds import FEATURES, odds_features, odds_of


def features(caption):
    return dict(zip(FEATURES, odds_features(caption), strict=True))


@pytest.mark.parametrize(
    ("word", "sign"), [("dishwasher", 1), ("the", 1), ("und", -1), ("palácio", -1), ("dishwasher's", 1)]
)
def test_odds_of_words(word, sign):
    assert sign * odds_of(word) > 1


def test_a_word_of_no_language_has_no_odds():
    assert odds_of("zzyzqx") is None
    assert features("zzyzqx Zzyzqx the")["unlisted"] == features("zzyzqx Zzyzqx the")["unlisted_capitals"] == 1 / 3


@pytest.mark.parametrize("caption", ["", "1234", "!?"])
def test_nothing_speaks_for_or_against_a_caption_without_words(caption):
    assert {name for name, value in features(caption).items() if value} <= {
        "numbers",
        "first_unlisted",
        "last_unlisted",
    }


def test_particles_of_names_and_second_words_of_species_are_no_evidence():
    assert features("Vasco da Gama")["name_particles"] == 1
    assert features("Vasco da Gama")["small_against"] == 0 > features("a nave da igreja")["small_against"]
    assert features("Xyzaphila zorbensis")["unlisted"] == 0


def test_words_that_are_written_together_are_taken_apart():
    assert features("Zzyzqx WingBar")["capitals_for"] == features("Zzyzqx Wing Bar")["capitals_for"] > 0


@pytest.mark.parametrize(
    ("caption", "rest"),
    [
        ('Label of "Alte Post" beer', "Label of beer"),
        ("Pomo “Sierra Beauty”.", "Pomo ."),
        ('"Das Boot"', '"Das Boot"'),
        ("the dogs' bowls, 5' wide", "the dogs' bowls, 5' wide"),
    ],
)
def test_quotations_do_not_count(caption, rest):
    assert without_quotes(caption) == rest


@pytest.mark.parametrize(
    ("caption", "english"),
    [
        ("Electron micrograph of a mitochondrion", True), ("Cordless vacuum with wall bracket, 22V", True),
        ("Stainless Steel Colander 24cm", True), ("Kurt Weill conducting in Dessau", True),
        ("Alley in Dubrovnik", True), ("Edelstahl Nudelsieb 24 cm", False), ("Vue du port de Honfleur", False),
        ("Wetin dem dey cook for house", False), ("Blikopener met houten handvat", False),
    ],
)  # fmt: skip
def test_captions_of_things_and_names(caption, english):
    assert is_english(caption) == english
