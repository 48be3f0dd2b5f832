import pytest

from pipeline.text.frames import frame_of
from pipeline.text.known_names import FEATURES, name_features
from pipeline.text.language import is_english


def features(caption):
    """Those that are not 0."""
    values = name_features(caption, frame_of(caption))
    return {name: value for name, value in zip(FEATURES, values, strict=True) if value}


@pytest.mark.parametrize(
    ("caption", "feature"),
    [
        ("Astrid Zzyzqx", "given_and_name"), ("Xyzzor Zzyzqx", "two_names"), ("Pedro de Zzyzqx", "name_with_particles"),
        ("Tanaka Zzyzqx", "east_asian_name"), ("Colonel Zzyzqx", "title"), ("Dr. Zzyzqx and Dr. Xyzzor", "title"),
        ("Lake near Zzyzqx with Astrid Xyzzor", "given_then_name"), ("Alley in Lisbon", "located"),
        ("Zzyzqx in late winter", "in_winter"), ("Ponte Zzyzqx, Lisbon", "after_comma"),
        ("Ponte Zzyzqx, Lisbon", "decades_after_comma"), ("Zzyzqx 750 ml", "size"), ("Zzyzqx XR-200", "size"),
        ("A 1957 Zzyzqx", "article_and_name"), ("Female Xyzaphila zorbensis", "english_and_species"),
        ("Bosch Zzyzqx", "brand"), ("Zzyzqx kettle 750 ml", "sold_in_english"),
        ("Bosch Zzyzqx", "sold_otherwise"), ("Zzyzqx", "one_word"), ("Zzyzqx", "unopposed"),
        ("Zzyzqx's garden", "unopposed_english"),
    ],
)  # fmt: skip
def test_each_feature(caption, feature):
    assert feature in features(caption)


def test_names_count_once_each():
    assert features("Astrid Xyzzor, Pedro Zzyzqx")["given_then_name"] == 2


@pytest.mark.parametrize(
    ("caption", "feature"),
    [
        ("Astrid i Zzyzqx", "given_and_name"), ("Das Haus von Astrid", "unopposed"), ("Zzyzqx, Xyzzor", "after_comma"),
        ("Winter in Zzyzqx", "in_winter"), ("A zzyzqx", "article_and_name"), ("Zzyzqx of 1957", "size"),
        ("", "one_word"),
    ],
)  # fmt: skip
def test_what_is_none(caption, feature):
    assert feature not in features(caption)


@pytest.mark.parametrize(
    ("caption", "english"),
    [
        ("Thandiwe Mokoena", True), ("Baroness Ottilie von Strahl", True), ("Zhang Yifan", True),
        ("Ponte Nova, Florence", True), ("Siemens Hob 60cm", True), ("Female Calidris alpina", True),
        ("Grab von Astrid Lorenz", False), ("Ponte sobre o rio", False), ("Siemens Kochfeld 60 cm", False),
    ],
)  # fmt: skip
def test_captions_of_names(caption, english):
    assert is_english(caption) == english
