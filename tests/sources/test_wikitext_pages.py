"""Pages of a wiki in snippets of every kind: nearly all image names are found, and hardly a caption is harmed."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.sources.wikitext import links

MIN_FOUND, MAX_HARMED = 0.97, 0.005


class Snippet(NamedTuple):
    text: str
    images: tuple[tuple[str, str], ...]  # name and caption; a caption that can't be rendered is ""


def _of(text: str, *images: tuple[str, str]) -> Snippet:
    return Snippet(text, images)


SNIPPETS = [
    # file links
    _of("[[File:Weir.jpg|thumb|A weir on the river]]", ("Weir.jpg", "A weir on the river")),
    _of("[[file:weir.jpg|thumbnail|left|The weir]]", ("weir.jpg", "The weir")),
    _of("[[Image:Old mill 2.JPG|right|250px|The old mill]]", ("Old mill 2.JPG", "The old mill")),
    _of("[[File:Old_mill.png|frame|center|The [[water mill|mill]] in 1900]]", ("Old_mill.png", "The mill in 1900")),
    _of("[[File:A.jpg|thumb|upright=0.8|alt=A barn|A red barn]]", ("A.jpg", "A red barn")),
    _of("[[File:A.jpg|thumb|alt=A barn with a horse]]", ("A.jpg", "A barn with a horse")),
    _of("[[File:A.jpg|upright|link=Barn|class=notpageimage|A barn]]", ("A.jpg", "A barn")),
    _of("[[File:A.jpg|border|x100px]]", ("A.jpg", "")),
    _of("[[File:Scan.pdf|thumb|page=3|The third page]]", ("Scan.pdf", "The third page")),
    _of("[[File:Book.djvu|page=12|thumb|A woodcut]]", ("Book.djvu", "A woodcut")),
    _of("[[File:Map.svg|thumb|lang=en|Roads of the county]]", ("Map.svg", "Roads of the county")),
    _of("[[File:A.jpg|thumb|First line<br />second line]]", ("A.jpg", "First line second line")),
    _of("[[File:A.jpg|thumb|The ''Argo'' at '''sea''']]", ("A.jpg", "The Argo at sea")),
    _of("[[File:A.jpg|thumb|A tower<ref>Smith, ''Towers'', p. 4</ref> by night]]", ("A.jpg", "A tower by night")),
    _of("[[File:A.jpg|thumb|A tower<ref name=x/> and a gate]]", ("A.jpg", "A tower and a gate")),
    _of("[[File:A.jpg|thumb|Left: a cat. Right: a dog | thumb]]", ("A.jpg", "Left: a cat. Right: a dog")),
    _of("[[File:A.jpg|thumb|Fish &amp; chips&nbsp;shop]]", ("A.jpg", "Fish & chips shop")),
    _of("[[File:A.jpg|thumb|The area is 3 km<sup>2</sup>]]", ("A.jpg", "The area is 3 km2")),
    _of("[[File:A.jpg|thumb|Seen from [https://x.example the tower]]]", ("A.jpg", "Seen from the tower")),
    _of("[[File:A.jpg|thumb|A <!-- not my dog --> dog]]", ("A.jpg", "A dog")),
    _of("[[File:A (1).jpg|thumb|{{small|A house}} in {{circa|1850}}]]", ("A (1).jpg", "A house in c. 1850")),
    _of("[[File:A.jpg|thumb|{{convert|3|km|mi}} of beach]]", ("A.jpg", "3 km of beach")),
    _of("[[File:A.jpg|thumb|{{HMS|Hood}} in {{nowrap|dry dock}}]]", ("A.jpg", "HMS Hood in dry dock")),
    _of("[[File:A.jpg|thumb|{{lang|fr|Le Pont}} at dusk]]", ("A.jpg", "Le Pont at dusk")),
    _of("[[File:A.jpg|thumb|{{some odd template|x}} at dusk]]", ("A.jpg", "")),
    _of("[[File:A.jpg|thumb|The curve <math>y=x^2</math>]]", ("A.jpg", "")),
    _of("[[File:A.jpg|thumb|A dog [[File:Icon.png|15px]] here]]", ("A.jpg", "A dog here"), ("Icon.png", "")),
    _of("[[Datei:Turm.jpg|mini|hochkant|Der Turm]]", ("Turm.jpg", "Der Turm")),
    _of("[[Fichier:Tour.jpg|vignette|droite|La tour]]", ("Tour.jpg", "La tour")),
    _of("[[Archivo:Torre.jpg|miniaturadeimagen|izquierda|La torre]]", ("Torre.jpg", "La torre")),
    _of("[[Bestand:Toren.jpg|miniatuur|links|De toren]]", ("Toren.jpg", "De toren")),
    _of("[[Plik:Most.jpg|mały|lewo|Most nad rzeką]]", ("Most.jpg", "Most nad rzeką")),
    _of("[[:File:Linked.jpg|a link]] and [[Media:Sound.ogg]]"),
    _of("<nowiki>[[File:No.jpg|no]]</nowiki> [[File:Yes.jpg|yes it is]]", ("Yes.jpg", "yes it is")),
    # galleries
    _of("<gallery>\nFile:One.jpg|A [[red]] car\nTwo.png|''A'' blue car\n</gallery>",
        ("One.jpg", "A red car"), ("Two.png", "A blue car")),
    _of('<gallery mode="packed" heights=150>\nImage:A b.jpg|alt=An alt|The stage\n\nC.jpg\n</gallery>',
        ("A b.jpg", "The stage"), ("C.jpg", "")),
    _of("<gallery caption=Views>File:A.jpg|From the north<ref>x</ref>\nFile:B.jpg|From the south</gallery>",
        ("A.jpg", "From the north"), ("B.jpg", "From the south")),
    _of("{{Gallery|width=120|File:A.jpg|A canoe|File:B.jpg|Two canoes}}",
        ("A.jpg", "A canoe"), ("B.jpg", "Two canoes")),
    # infoboxes
    _of("{{Infobox building\n| name = Hall\n| image = Hall.jpg\n| caption = The hall in 2010\n| map_type = UK\n}}",
        ("Hall.jpg", "The hall in 2010")),
    _of("{{Infobox settlement|image_skyline=Sky.jpg|image_caption=The centre|image_flag=Flag.svg|image_map=Map.png|"
        "map_caption=Where it is}}",
        ("Sky.jpg", "The centre"), ("Flag.svg", ""), ("Map.png", "Where it is")),
    _of("{{Infobox person\n|image=Jo Doe.jpg\n|image_size=200px\n|alt=A man\n|caption=Doe in 1999}}",
        ("Jo Doe.jpg", "Doe in 1999")),
    _of("{{Infobox person|image=[[File:Jo.jpg|220px|Jo at home]]}}", ("Jo.jpg", "Jo at home")),
    _of("{{Infobox ship image\n|Ship image=Argo.jpg\n|Ship caption=''Argo'' under way}}",
        ("Argo.jpg", "Argo under way")),
    _of("{{Infobox album|cover=Cover.jpg|alt=A blue cover}}", ("Cover.jpg", "A blue cover")),
    _of("{{Infobox station|image=Hall.jpg|image_caption=Platform|image2=Bridge.jpg|image_caption2=Footbridge}}",
        ("Hall.jpg", "Platform"), ("Bridge.jpg", "Footbridge")),
    _of("{{Taxobox|image=Fox.jpg|image_caption=A young fox|range_map=Range.png|range_map_caption=Where foxes live}}",
        ("Fox.jpg", "A young fox"), ("Range.png", "Where foxes live")),
    _of("{{Infobox mountain|photo=Peak.jpg|photo_caption=The peak from the east}}",
        ("Peak.jpg", "The peak from the east")),
    _of("{{Infobox museum|logo=Logo.svg|image=Door.jpg|caption=The door}}", ("Logo.svg", ""), ("Door.jpg", "The door")),
    _of("{{Infobox park|image=File:Park.jpg<!-- new -->|caption=The lake}}", ("Park.jpg", "The lake")),
    _of("{{Infobox protected area|static_image_name=Hill.jpg|static_image_caption=A hill}}", ("Hill.jpg", "A hill")),
    _of("{{Infobox bridge|image=Bridge.jpg|caption=The bridge,<br>{{convert|90|m|ft}} long}}",
        ("Bridge.jpg", "The bridge, 90 m long")),
    # groups of images
    _of("{{multiple image|image1=A.jpg|caption1=Before|image2=B.jpg|caption2=After}}",
        ("A.jpg", "Before"), ("B.jpg", "After")),
    _of("{{Multiple image\n|direction=vertical\n|image1=A.jpg\n|image2=B.jpg\n|footer=Both sides of the coin}}",
        ("A.jpg", "Both sides of the coin"), ("B.jpg", "Both sides of the coin")),
    _of("{{Double image|left|A.jpg|150|B.jpg|150|The first|The second}}",
        ("A.jpg", "The first"), ("B.jpg", "The second")),
    _of("{{Wide image|Wide.jpg|1200px|The whole bay}}", ("Wide.jpg", "The whole bay")),
    _of("{{Panorama|image=File:Pano.jpg|height=200|caption=The valley in May}}", ("Pano.jpg", "The valley in May")),
    _of("{{Tall image|Spire.jpg|200|400|The spire}}", ("Spire.jpg", "The spire")),
    _of("{{CSS image crop|Image=Crop.jpg|bSize=300|Description=The face}}", ("Crop.jpg", "The face")),
    _of("{{Annotated image|image=Cell.png|caption=Parts of a cell}}", ("Cell.png", "Parts of a cell")),
    _of("{{Location map image|image=Spot.jpg|caption=The spot}}", ("Spot.jpg", "The spot")),
    # in tables and lists
    _of('{| class="wikitable"\n|-\n| [[File:A.jpg|100px]] || A row\n|}', ("A.jpg", "")),
    _of("* [[File:A.jpg|thumb|An item of a list]]\n# [[File:B.jpg|thumb|Another item]]",
        ("A.jpg", "An item of a list"), ("B.jpg", "Another item")),
    _of("{{Side box|image=[[File:Box.jpg|60px]]|text=x}}", ("Box.jpg", "")),
    # what is no image of the page
    _of("{{cite web|url=https://x.example/a.jpg|title=A photo.jpg}}<ref>{{cite book|title=B.png}}</ref>"),
    _of("<!-- [[File:Hidden.jpg|thumb|hidden]] -->"),
]  # fmt: skip


def test_the_shares_of_images_found_and_of_captions_harmed():
    """A caption is harmed if it has other words than a reader sees; one that is left out with its template's name is
    rejected, and not harmed."""
    assert len(SNIPPETS) >= 60
    total, found, harmed = 0, 0, []
    for snippet in SNIPPETS:
        captions = {link.name: link.caption for link in links(snippet.text)}
        total += len(snippet.images)
        found += sum(name in captions for name, _ in snippet.images)
        harmed += [link for link in snippet.images if captions.get(link[0], link[1]) != link[1]]
    assert found >= MIN_FOUND * total
    assert len(harmed) <= MAX_HARMED * total, harmed


def test_nothing_else_is_taken_for_an_image():
    for snippet in SNIPPETS:
        assert {link.name for link in links(snippet.text)} <= {name for name, _ in snippet.images}, snippet.text
