"""Captions of names: the words beside them decide."""

from __future__ import annotations

from importlib import resources

import pytest

from pipeline.text.frames import frame_of, is_english_by_frame
from pipeline.text.language import is_english

ENGLISH = [
    "Heidelberg in winter", "Map of Bavaria", "View of Dubrovnik", "Ljubljana at night", "The road to Cusco",
    "Near Tallinn",
    "Emma Hansen and Priya Silva", "Johann Keller with Giulia Rossi at Pont Neuf", "Zoltán Horváth by José García",
    "Mayor Luís Costa and Katarzyna Nowak in Kraków", "Portrait of Béatrice Lefèvre by Lars Lindqvist, 1893",
    "Wei Zhang vs. Yuki Tanaka", "Nikolai Rossi, 1907", "Statue of Jan Kowalski in Plovdiv",
    "Grave of Siobhán O'Brien",
    "Interior of Santa Maria Novella", "Coat of arms of Ústí nad Labem", "Vulpes vulpes in Bavaria",
    "Kyoto 京都 in autumn",
    "Veloria X120 Cordless Drill", "Zentro - Bookshelf - Beige", "Kaminox Women's Running Shoes Black",
    "Downtown Novi Sad",
    "Rio de Janeiro at sunset", "Hokkaido before the war", "Flag of Oaxaca", "Priya Sharma on tour, Lisbon",
    # persons by their given names, places by a known one, words of captions
    "Coach Anna Orlova", "Andrei Nagy, Maria Ferreira", "Emma Larsen, c. 1923",
    "Heinrich Costa as Hamlet", "Hagia Irene, Tallinn", "Bad Ischl, Austria", "Vermont skyline",
    "Arvento stud earrings",
    "Anna Kowalska, architect", "Hradec Králové in winter",
]  # fmt: skip
FOREIGN = [
    "Blick auf Heidelberg", "Heidelberg im Winter", "Karte von Bayern", "Johann Keller und Giulia Rossi",
    "Marktplatz in Lisbon",
    "Vue de Dubrovnik", "Emma Hansen et Priya Silva", "Vista de Cusco", "Luís Costa y Carmen García en Toledo",
    "Veduta di Verona", "Giulia Rossi con la moglie Anna", "Gezicht op Ghent", "Udsigt over Bergen",
    "Widok na Kraków",
    "Jan Nowak i Olga Nowak", "Kilátás Tallinn felé", "Peta Jakarta", "Eglwys Llandudno",
    "The auld toun o Inverness frae the brae", "Dem dey sell fish for Kano market", "Wetin una dey do for Lagos",
    "Ecclesia Sancti Petri in Verona", "Kart over Bergen", "Iglesia de Santa Lucía", "Chaussures Veloria pour femme",
    "Emma dey cook rice for im mama", "The braw new brig ower the watter at Leith", "Priya Silva beim Training in Graz",
    "Bergen om høsten", "Portretul lui Ion Popescu", "Castell Aberystwyth yn y nos", "Masjid di Jakarta",
    "Ivan Horvat i Ana Kovač", "Pieter Bruegel, Žeteoci - 1565",
]  # fmt: skip


@pytest.mark.parametrize("caption", ENGLISH)
def test_an_english_frame(caption):
    assert is_english(caption)


@pytest.mark.parametrize("caption", FOREIGN)
def test_a_frame_of_another_language(caption):
    assert not is_english(caption)


@pytest.mark.parametrize("caption", ["A dog runs across the wet sand", "Ein Hund läuft", "", "123", "Ubuntu"])
def test_no_opinion_without_names_and_a_frame(caption):
    assert is_english_by_frame(caption, frame_of(caption)) in (None, False)


def test_a_second_script_in_part_of_the_caption():
    assert is_english("The old harbour of Nara (奈良) in spring") and not is_english("奈良 harbour の冬の古い町並み")


@pytest.mark.parametrize(
    "name",
    [
        "captions", "foreign_small", "foreign_frequent", "dialect", "given_names", "places", "english", "brands",
        "more_given_names", "east_asian_names",
    ],
)  # fmt: skip
def test_lists_are_sorted_and_small(name):
    words = (resources.files("pipeline.text") / f"{name}.txt").read_text(encoding="utf-8").split()
    assert words == sorted(set(words)) and all(word == word.lower() for word in words)


def test_the_kinds_of_words():
    frame = frame_of("The road from Kraków to Rio de Janeiro, und zurück")
    assert (frame.strong, frame.semi, frame.names, frame.particles, frame.foreign) == (2, 1, 3, 1, 2)


def test_a_compound_counts_by_its_last_part():
    frame = frame_of("Hand-painted Kiyomizu-dera near Stoke-on-Trent, Gtk-kontrolbibliotek")
    assert (frame.english_capitals, frame.strong, frame.names) == (1, 1, 3)


def test_frequent_words_of_other_languages_count_only_beside_capitals():
    assert frame_of("Aalborg med abend").foreign == 2 and frame_of("aalborg abend").foreign == 0
