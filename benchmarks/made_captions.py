"""Captions of known kinds, made of templates and names: for measuring what the filters do with what people write.

English: plain descriptions, titles as on Flickr, captions as on Wikipedia, products, captions that are mostly names of
people (`names`) or a short frame around a place (`places`). Foreign: the same kinds in other languages, and what looks
like English without being it (Scots, Pidgin, short Latin). All names and sentences are made up. Half of the templates
(`is_held_out`) are for judging, the others for fitting."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

CAPTIONS_PER_TEMPLATE = 6


class Made(NamedTuple):
    """A caption."""

    kind: str
    text: str
    is_english: bool
    held_out: bool


def _split(text: str, separator: str = " ") -> list[str]:
    return text.split(separator)


FIRST = _split(
    "John Mary Anna Peter Johann Pierre Giulia Marco Elena José Carmen Ivan Olga Katarzyna Jan Lars Ingrid "
    "Hiroshi Yuki Wei Mei Ahmed Fatima Rajesh Priya Kwame Amina Thabo Carlos Lucía Sofia Dmitri Zoltán Eszter "
    "Mehmet Ayşe Björn Siobhán Rhys Emma James William Charlotte Friedrich Wilhelmina Ludwig Antoine Béatrice "
    "Nikolai Tomáš Jiří Ana Luís Tiago Noor"
)
LAST = _split(
    "Smith Jones Keller Brandt Müller Dupont Lefèvre Rossi Bianchi García Fernández Ivanov Petrova Kowalski "
    "Nowak Hansen Lindqvist Tanaka Suzuki Zhang Chen Hassan Khan Sharma Mensah Okafor Dlamini Silva Costa "
    "Horváth Yılmaz O'Brien Llewellyn Whitfield Harrington McAllister van Dijk de Boer Novák Popescu "
    "Andersson Virtanen Kuznetsov Takahashi Nguyen Pereira"
)
PLACES = _split(
    "Heidelberg|Salzburg|Kraków|Toledo|Bergen|Ljubljana|Lisbon|Verona|Ghent|Bruges|Tallinn|Nara|Kyoto|Hanoi|"
    "Jaipur|Cusco|Valparaíso|Marrakesh|Zanzibar|Ouagadougou|Reykjavík|Tromsø|Plovdiv|Sibiu|Dubrovnik|Bavaria|"
    "Tuscany|Brittany|Saxony|Andalusia|Moravia|Lake Garda|Lake Bled|Mont Ventoux|Rio de Janeiro|São Paulo|"
    "Buenos Aires|Santiago de Compostela|Castelnau-le-Lez|Sankt Goar|Bad Ischl|Stoke-on-Trent|"
    "Ashby-de-la-Zouch|Llandudno|Inverness|Galway|Novi Sad|Ústí nad Labem|Val d'Isère|Alba Iulia|Cluj-Napoca|"
    "Uttar Pradesh|Kerala|Hokkaido|Okinawa|Oaxaca|Chiapas|Minas Gerais|Alentejo",
    "|",
)
BUILDINGS = _split(
    "Schloss Neuhausen|Palazzo Bellini|Château de Montfort|Castelo de Valverde|Sint-Jacobskerk|"
    "Notre-Dame de la Garde|Santa Maria Novella|Casa Rossi|Wawel|Villa Adriana|Plaza Mayor|Marienkirche|"
    "Hagia Irene|Torre del Oro|Pont Neuf|St Mary's Church|Trinity College|the Old Town Hall|"
    "the Royal Exchange|Fort St. Angelo",
    "|",
)
BRANDS = _split(
    "Nortek Veloria Kaminox Asterion Bellavia Zentro Quorra Fjordline Solano Trivex Hikaru Montclair Brisa Ostara"
)
THINGS = _split(
    "running shoes|backpack|cordless drill|table lamp|wall clock|coffee mug|phone case|office chair|"
    "leather wallet|wool sweater|garden hose|desk organizer|shower curtain|water bottle|sofa cover|"
    "bath towel set|picture frame|dog bed|kids' rain jacket|stainless steel watch|area rug|pendant necklace|"
    "brake pads|LED headlight|graphic T-shirt|cutting board|bookshelf",
    "|",
)
COLOURS = _split(
    "black|white|navy blue|dark grey|red|olive green|rose gold|silver|beige|light pink",
    "|",
)
ANIMALS = [
    "Erithacus rubecula",
    "Quercus robur",
    "Vulpes vulpes",
    "Papilio machaon",
    "Amanita muscaria",
    "Felis silvestris",
]
MONTHS = ["January", "March", "May", "July", "August", "October", "December"]
SEASONS = _split(
    "winter|spring|summer|autumn|the rain|the snow|the evening|fog|September|1910|the 1920s",
    "|",
)
ENGLISH: dict[str, str] = {
    "plain": """
A brown dog is lying on the grass next to a red ball
two children build a sand castle at the beach
An old wooden boat on a calm lake at sunrise
Woman holding a cup of coffee in front of a window
a plate of pasta with tomatoes and basil
Close-up of a yellow flower with a bee on it
The street is empty after the rain
a man riding a bicycle down a narrow street
Several people are waiting at the bus stop
green hills under a cloudy sky
A cat looks out of the window
vintage car parked beside a stone wall
""",
    "flickr": """
Misty morning on the way to {place}
Our hotel room in {place}
me and {first} at the zoo
{first} blowing out the candles
Day 3: {place} to {place2}
View from our balcony, {place}
Street art, {place}
my new bike!
Lunch with {first} and {first2}
{place} {year} - the old harbour
{first}'s birthday cake
Waiting for the train at {place}
sunset over {place}
{first} & {first2} on the beach
Market day in {place}
Looking down on {place} from the castle
Cherry blossoms, {place}, {month} {year}
{first} and the dog
Rainy afternoon in {place}
the cathedral, {place}
Road trip {year}
Yet another picture of the cat
Backyard birds
{building} at night
""",
    "wikipedia": """
{first} {last} in {year}
{first} {last}, {year}
Portrait of {first} {last} by {first2} {last2}
{building}, {place}
{building} in {place}, built in {year}
Coat of arms of {place}
Statue of {first} {last} in {place}
The {building} in {year}
Map of the {place} region
{first} {last} (left) with {first2} {last2} in {place}, {year}
Logo of the {place} Football Club
Location of {place} within {place2}
{animal} in {place}
Illustration of {animal}
{first} {last} at the {year} {place} Film Festival
The façade of {building}
Memorial plaque to {first} {last} in {place}
Self-portrait, {year}
{last} in {month} {year}
Aerial view of {place}
{place} railway station
{place} City Hall
Grave of {first} {last}
The ruins of {building} near {place}
{first} {last} playing for {place} in {year}
Engraving of {place} by {first} {last}, c. {year}
Signature of {first} {last}
Interior of {building}
Flag of {place}
A {animal} specimen from {place}
{first} {last}, the founder of {brand}
Population pyramid of {place}
Distribution of {animal}
Sculpture by {first} {last}, {place}
Church of {building}
""",
    "products": """
{brand} {thing}, {colour}
{brand} {number} {thing}
{Thing} for Men and Women - {Colour}
{brand} {Thing} ({colour}, {number} pcs)
{Colour} {Thing} by {brand}
{brand} Women's {Thing} Size {number}
New {brand} {Thing} with Adjustable Strap
{brand} X{number} Pro {Thing} {Colour}
{number}-Pack {thing}, {colour}
{brand} {Thing} | {Colour} | {number} cm
Set of {number} {Thing}s
Handmade {thing} - {colour}
{brand} replacement {thing} for model {brand2} {number}
{Thing}, Waterproof, {Colour}
{brand} {number}ml {colour} {thing}
Vintage {brand} {Thing} {year}
{brand} - {Thing} - {Colour}
{brand} Kids {Thing} {Colour}/{Colour2}
{Thing} {brand} {number}W USB
{brand} {brand2} {Thing} {number}" {Colour}
""",
    "names": """
{first} {last} and {first2} {last2}
{first} {last}, {first2} {last2} and {first3} {last3}
{first} {last} with {first2} {last2}
{first} {last} & {first2} {last2} at {building}
{first} {last} of {place}
{first} {last}, mayor of {place}
{first} {last} and his wife {first2}
{last} and {last2}, {place}, {year}
from left: {first} {last}, {first2} {last2}, {first3} {last3}
{first} {last} and {first2} {last2} at the {place} Open
Sir {first} {last} and Lady {last}
{first} {last} vs. {first2} {last2}, {year}
President {first} {last} with {first2} {last2}
Dr. {first} {last} and Prof. {first2} {last2} in {place}
{first} {last} in {building}
{first} {last} by {first2} {last2}
{last}, {last2} and {last3} in {place}
King {first} and Queen {first2}
The {last} family
{first} {last}, {brand} and {first2} {last2}
Actress {first} {last} and director {first2} {last2}
{first} {last} for {brand}
{first} {last} on tour, {place}
Saint {first} and Saint {first2}
""",
    "places": """
{place} in {season}
Map of {place}
View of {place}
{place} at night
{place} and {place2}
A street in {place}
{place} from above
{place}, {place2}
Old town of {place}
Near {place}
{building} in {season}
The road to {place}
{place} from the west
Panorama of {place}
Downtown {place}
{place} at sunset
Harbour of {place}
Somewhere in {place}
Bridge in {place}
Welcome to {place}
On the way from {place} to {place2}
{place} before the war
Railway map of {place}
Beach near {place}
Mountains around {place}
{place} under snow
""",
}
FOREIGN = """
{place} im Winter
Blick auf {place}
{first} {last} und {first2} {last2}
{first} {last} mit {first2} {last2} in {place}
Karte von {place}
Bahnhof {place}
Denkmal für {first} {last} in {place}
Altstadt von {place}
{building} im Jahr {year}
Wappen der Stadt {place}
{brand} Laufschuhe für Damen, schwarz
Marktplatz in {place}
Porträt von {first} {last}
Ein Hund liegt auf der Wiese
Unser Urlaub am Meer {year}
{place} en hiver
Vue de {place}
{first} {last} et {first2} {last2}
Carte de {place}
Gare de {place}
{first} {last} au festival de {place}
Église de {place}
Une rue de {place}
Chaussures {brand} pour femme, noir
Le port de {place} au coucher du soleil
{place} en invierno
Vista de {place}
{first} {last} y {first2} {last2}
Mapa de {place}
Estación de {place}
{first} {last} con {first2} {last2} en {place}
Iglesia de {building}
Calle de {place}, {year}
Zapatos {brand} para hombre
Un perro en la playa
{place} d'inverno
Veduta di {place}
{first} {last} e {first2} {last2}
Mappa di {place}
Il duomo di {place}
{first} {last} con la moglie {first2}
Piazza di {place}
Tramonto sul lago
{place} no inverno
Vista aérea de {place}
Rua em {place}
Igreja de {place}, {year}
{first} {last} com {first2} {last2}
{place} in de winter
Gezicht op {place}
{first} {last} en {first2} {last2}
Kaart van {place}
Kerk in {place}
De haven van {place}
{place} om vinteren
Udsigt over {place}
{first} {last} og {first2} {last2}
Kart over {place}
Kyrkan i {place}
Utsikt över {place}
{first} {last} och {first2} {last2}
Karta över {place}
{place} zimą
Widok na {place}
{first} {last} i {first2} {last2}
Mapa {place}
Kościół w {place}
Pohled na {place}
{first} {last} a {first2} {last2}
Mapa obce {place}
Nádraží {place}
{place} télen
Kilátás {place} felé
{first} {last} és {first2} {last2}
Talvi {place}
Kartta: {place}
{first} {last} ja {first2} {last2}
{place} iarna
Vedere din {place}
{first} {last} și {first2} {last2}
Kışın {place}
{place} haritası
{first} {last} ve {first2} {last2}
Pemandangan {place}
Peta {place}
{first} {last} dan {first2} {last2}
Phong cảnh {place}
Eglwys {place}
Golygfa o {place}
{first} {last} agus {first2} {last2}
Léarscáil {place}
Vido al {place}
{first} {last} kaj {first2} {last2}
Mapa de {place} i {place2}
{first} {last} eta {first2} {last2}
Ramani ya {place}
{first} {last} na {first2} {last2}
Uitsig oor {place}
Pamje e {place}
Зима в {place}
Вид на {place}
{place}の冬
{place}地图
{place} зимой
Χάρτης: {place}
خريطة {place}
{place} wi the auld kirk ahint
The auld toun o {place} frae the brae
Twa bairns daein their wark doon bi the watter
A wee hoose in the glen whaur ma granny bade
{first} {last} an his guidwife {first2}
Ane o the maist bonnie kirks in {place}
Dis na di place wey {first} dey stay
Dem dey sell fish for {place} market
Pikin wey dey play for ground
Wetin una dey do for {place}
{first} don reach {place} yesterday sef
Ecclesia Sancti Petri in {place}
Imago urbis {place} anno {year}
Templum et forum {place}
Sigillum civitatis {place}
In memoriam {first} {last}
Homo sapiens et canis lupus
Vita et mors
"""


def made_captions() -> Iterator[Made]:
    """All captions, the same each time."""
    for kind, templates in ENGLISH.items():
        for template in templates.strip().splitlines():
            yield from _of_template(kind, template, True)
    for template in FOREIGN.strip().splitlines():
        yield from _of_template("foreign", template, False)


def _of_template(kind: str, template: str, is_english: bool) -> Iterator[Made]:
    number = CAPTIONS_PER_TEMPLATE if "{" in template else 1
    texts = (filled(template, random.Random(f"{template} {each}")) for each in range(number * 3))
    for text in list(dict.fromkeys(texts))[: number * 2]:
        yield Made(kind, text, is_english, is_held_out(template))


def is_held_out(template: str) -> bool:
    return hashlib.md5(template.encode(), usedforsecurity=False).digest()[0] % 2 == 1


def filled(template: str, dice: random.Random) -> str:
    """The template with made-up names in the place of its fields."""
    thing, colour = dice.choice(THINGS), dice.choice(COLOURS)
    fields = {
        "place": PLACES,
        "building": BUILDINGS,
        "first": FIRST,
        "last": LAST,
        "brand": BRANDS,
        "animal": ANIMALS,
        "month": MONTHS,
        "season": SEASONS,
        "thing": [thing],
        "Thing": [thing.title()],
        "colour": [colour],
        "Colour": [colour.title()],
        "year": [str(dice.randrange(1850, 2024))],
        "number": [str(dice.choice((2, 4, 6, 8, 12, 50, 120, 250, 500)))],
    }

    def field(match: re.Match[str]) -> str:
        choices = fields[match[1].rstrip("0123456789")]
        used.append(dice.choice([each for each in choices if each not in used] or choices))
        return used[-1]

    used: list[str] = []
    return re.sub(r"\{(\w+)\}", field, template)
