"""The rows that are not like the others: what is odd about each, and what should become of it.

`KEPT` rows are odd and still good. Every other row names the reason it should be rejected for; it is at fault in that
one respect only. Where a row's fault is in its text, its URL leads to a live picture, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping

from sample.formats import KEPT, Image, Row

STATUS = "odd-routes/status"
MAIN, ALT = "caption_reference_description", "caption_alt_text_description"
ATTRIBUTION = "caption_attribution_description"


class Table:
    """Rows of one source, collected in the order in which they are written down here."""

    def __init__(self, source: str, images: Mapping[str, Image]):
        self.source, self._images = source, images
        self.rows: list[Row] = []

    def kept(self, note: str, file: str, url: str = "", caption: str = "", **fields: str) -> None:
        """A picture of the sample, at `url` if not at its own, with `caption` if not with its own."""
        image = self._images[file]
        row = Row(self.source, KEPT, note, url or f"images/{file}", caption or image.caption, image, fields)
        self.rows.append(row)

    def again(self, reason: str, note: str, file: str, caption: str = "", url: str = "", **fields: str) -> None:
        """A picture that another row has too."""
        self.kept(note, file, url, caption, **fields)
        self.rows[-1] = self.rows[-1]._replace(expected=reason)

    def rejected(self, reason: str, note: str, caption: str, url: str | None = None, **fields: str) -> None:
        """No picture of the sample; without a URL, one that leads to a live picture and is nobody else's."""
        live = f"odd-routes/mirror/{self.source}-{len(self.rows)}/hedgehog.jpg"
        self.rows.append(Row(self.source, reason, note, live if url is None else url, caption, fields=fields))

    def broken(self, note: str, raw: str) -> None:
        """A line that no parser can take apart."""
        self.rows.append(Row(self.source, "malformed_row", note, raw=raw))


def tricky_rows(images: Mapping[str, Image]) -> list[Row]:
    """All of them; `pictures` by file name."""
    tables = [Table(source, images) for source in ("cc3m", "cc12m", "yfcc100m", "wit")]
    for table, fill in zip(tables, (_cc3m, _cc12m, _yfcc100m, _wit), strict=True):
        fill(table)
    return [row for table in tables for row in table.rows]


def _cc3m(t: Table) -> None:
    t.kept("a redirect (301) to the picture", "forklift.png", "odd-routes/redirect/301/images/forklift.png")
    t.kept(
        "a caption that begins with a quote character",
        "round_red_house.png",
        caption='"Home" says the small sign on a round red house with an orange cone roof.',
    )
    t.kept("a picture of ratio exactly 1/2", "leaningtowerofpisa.webp", "odd/half.jpg")
    t.kept("a picture of ratio exactly 2", "green_dinosaur.png")
    t.kept("a picture of exactly 64 x 64 px", "slippery_road_sign.png")
    t.kept("a PNG with a palette, one colour of it transparent", "tulips.png", "odd/palette.png")
    t.kept("the URL of two other rows as well", "beagle.png")
    t.again(
        "duplicate_url",
        "the URL of another row, another caption",
        "beagle.png",
        "A sleepy dog with brown ears stands on white legs.",
    )
    t.again("duplicate_url", "a row that is repeated as it is", "beagle.png")
    t.broken("no tab", "a lighthouse on a rocky shore at dusk .")
    t.rejected("no_url", "an empty URL", "Two rowing boats pulled up on a pebble beach.", "")
    t.rejected("bad_url", "an ftp:// URL", "Sailing boats moored in a small harbour.", "ftp://127.0.0.1/harbour.jpg")
    t.rejected("bad_url", "a URL without a host", "A narrow street with old houses in the rain.", "http:///street.jpg")
    t.rejected("no_caption", "an empty caption", "")
    t.rejected("caption_too_short", "one character", "a")
    t.rejected("caption_too_short", "two words and a full stop", "Red barn.")
    t.rejected("boilerplate", "photographed on a date in words", "Photographed on March 12, 2009.")
    t.rejected("boilerplate", "photographed on a date in numbers", "photographed on 12/03/2009")
    t.rejected("boilerplate", "photographed on a week day", "Photographed on Saturday, 14th August 2010.")
    t.rejected("boilerplate", "click to enlarge", "Click to enlarge.")
    t.rejected("http_404", "a dead link", "A wooden bridge across a mountain stream.", f"{STATUS}/404/bridge.jpg")
    t.rejected("http_410", "a link that is gone for good", "A snowy owl on a fence post.", f"{STATUS}/410/owl.jpg")
    t.rejected("http_5xx", "a server that fails (500)", "A bowl of ripe red cherries.", f"{STATUS}/500/fruit.jpg")
    t.rejected(
        "dns",
        "a host that does not exist",
        "Sunflowers in a field under a blue sky.",
        "http://pictures.pairmill.invalid/sunflowers.jpg",
    )
    t.rejected(
        "connection", "a port where nobody listens", "A red kite flying above the sea.", "http://127.0.0.1:9/kite.jpg"
    )
    t.rejected("too_small", "a picture of 40 x 40 px", "A yellow lemon with a green leaf.", "odd/tiny.png")
    t.rejected(
        "aspect_ratio", "a picture one pixel too wide", "A palace with a long lit facade at night.", "odd/wide.jpg"
    )
    t.rejected("corrupt_image", "a JPEG that is cut off", "A big brown bison on a green prairie.", "odd/truncated.jpg")
    t.rejected("not_an_image", "an HTML page served as image/jpeg", "A market stall full of oranges.", "odd/page.jpg")
    t.rejected(
        "too_many_pixels",
        "a PNG of some bytes that announces 60,000 x 60,000 px",
        "A patchwork of fields seen from a plane.",
        "odd/bomb.png",
    )
    t.rejected(
        "too_large",
        "a body without end and without a length",
        "A waterfall in a dense green forest.",
        "odd-routes/endless/waterfall.jpg",
    )
    t.rejected(
        "opted_out", "X-Robots-Tag: noai", "A hand-painted vase on a wooden shelf.", "odd-routes/noai/hedgehog.jpg"
    )


def _cc12m(t: Table) -> None:
    t.kept(
        "two redirects (302, 308) to the picture",
        "umbrella.png",
        "odd-routes/redirect/302/odd-routes/redirect/308/images/umbrella.png",
    )
    t.kept("an answer that takes half a second", "lantern.png", "odd-routes/slow/lantern.png")
    t.kept(
        "a server that fails (503) at every first try and not at the second",
        "cupcake.png",
        "odd-routes/flaky/cupcake.png",
    )
    t.kept("a URL with a query", "hammer1.webp", "images/hammer1.webp?width=640&session=1")
    t.kept(
        "HTML entities and a wrongly decoded letter",
        "cafe_terrace_at_night.webp",
        caption="The yellow-lit cafÃ© terrace &quot;at night&quot; on a cobbled street &amp; under a starry sky.",
    )
    t.kept("a picture of ratio exactly 2", "hash_browns.png")
    t.kept("a JPEG that its EXIF data turn upright", "windmill13.webp", "odd/rotated.jpg")
    t.kept("a PNG with transparency", "coffee.jpg", "odd/transparent.png")
    t.kept("a JPEG in CMYK", "scarlet_macaw.jpg", "odd/cmyk.jpg")
    t.kept("a grey PNG of 16 bits", "castleclinton.jpg", "odd/grey16.png")
    t.kept("an animated GIF, of which the first frame counts", "cartoon_biplane.png", "odd/animated.gif")
    t.kept("the picture of two other rows as well", "vinyl_records.png")
    t.again(
        "duplicate_pair",
        "the same bytes and caption at another URL",
        "vinyl_records.png",
        url="odd-routes/mirror/copy/vinyl_records.png",
    )
    t.again(
        "kept",
        "the same bytes at another URL, another caption",
        "vinyl_records.png",
        "Some old music records lie on top of each other.",
        "odd-routes/mirror/other/vinyl_records.png",
    )
    t.again(
        "duplicate_url",
        "a URL that CC3M has too",
        "forklift.png",
        "A forklift truck in yellow and black.",
        "odd-routes/redirect/301/images/forklift.png",
    )
    t.broken("no tab", "http://www.example.org/without-a-caption.jpg")
    t.rejected("no_url", "an empty URL", "A tabby kitten asleep on a red cushion", "")
    t.rejected("bad_url", "a javascript: URL", "A stone fountain in a park", "javascript:openPicture(42)")
    t.rejected("no_caption", "nothing but white space", "  ")
    t.rejected("no_caption", "an HTML tag without any text", "<br />")
    t.rejected("caption_too_short", "two words", "Red apple")
    t.rejected("boilerplate", "photographed on a date with the day first", "Photographed on 14 August 2010")
    t.rejected("boilerplate", "photographed on an ISO date", "photographed on 2009-03-12")
    t.rejected("boilerplate", "photographed on a date and time from a camera", "Photographed on 2009:03:12 14:05:22")
    t.rejected("boilerplate", "click to enlarge", "Click here to enlarge this image")
    t.rejected("boilerplate", "stock photo", "Royalty free stock photo")
    t.rejected(
        "boilerplate", "nothing but a licence", "Creative Commons Attribution-ShareAlike 4.0 International License"
    )
    t.rejected("boilerplate", "nothing but a link", "https://www.example.org/albums/summer/0042.html")
    t.rejected("file_name", "a camera's file name", "IMG_0520.JPG")
    t.rejected("file_name", "a path", "/uploads/2012/08/DSC01234-1024x768.jpg")
    t.rejected("not_english", "Portuguese", "Barcos de pesca coloridos descansam na areia molhada da praia")
    t.rejected("not_english", "Turkish", "Yeşil çimenlerin üzerinde duran beyaz koyun doğrudan kameraya bakıyor")
    t.rejected("not_english", "Korean", "푸른 풀밭 위에 서 있는 하얀 양 한 마리가 앞을 바라보고 있다")
    t.rejected("not_english", "Swedish", "En brun uggla sitter på en krokig gren i skogen och tittar rakt fram")
    t.rejected(
        "http_403", "a link that is forbidden", "Colourful tiles on the wall of an old house", f"{STATUS}/403/tiles.jpg"
    )
    t.rejected("http_429", "too many requests", "A child's drawing of a house and a sun", f"{STATUS}/429/drawing.jpg")
    t.rejected(
        "http_5xx",
        "a server that is unavailable (503)",
        "A bicycle leaning on a brick wall",
        f"{STATUS}/503/bicycle.jpg",
    )
    t.rejected(
        "http_other",
        "unavailable for legal reasons (451)",
        "A page of an old illustrated book",
        f"{STATUS}/451/page.jpg",
    )
    t.rejected("http_other", "redirects in a circle", "A steam train crossing a viaduct", "odd-routes/circle/train.jpg")
    t.rejected("timeout", "a server that never answers", "A fox asleep in the morning sun", "odd-routes/stall/fox.jpg")
    t.rejected(
        "too_large",
        "half a gigabyte, as its header says",
        "A panorama of a city at night",
        "odd-routes/huge/panorama.jpg",
    )
    t.rejected(
        "refused_address", "a private address", "A garden gnome behind a flower pot", "http://10.0.0.1/gnome.jpg"
    )
    t.rejected(
        "refused_address",
        "the address of a cloud's metadata service",
        "A rusty key in an old door",
        "http://169.254.169.254/latest/meta-data/key.jpg",
    )
    t.rejected(
        "refused_address",
        "a redirect to a private address",
        "A striped deck chair on the lawn",
        "odd-routes/inward/chair.jpg",
    )
    t.rejected("not_an_image", "an answer of no bytes", "A paper lantern above a doorway", "odd/empty.jpg")
    t.rejected("corrupt_image", "a PNG with damaged pixels", "A comb with fine pale teeth", "odd/garbled.png")
    t.rejected(
        "opted_out",
        "X-Robots-Tag: noimageai",
        "An oil painting of a harbour in fog",
        "odd-routes/noimageai/hedgehog.jpg",
    )


def _yfcc100m(t: Table) -> None:
    t.kept(
        "a title that is a file name, a useful description",
        "hammer2.webp",
        title="IMG_0520",
        description="Small ball-peen hammer with a scuffed reddish handle on a white background.",
    )
    t.kept(
        "a plus sign and other signs that form encoding changes",
        "magnifying_glass_plus.png",
        title="DSC01234.JPG",
        description="Magnifying glass icon with a + in its lens: zoom in, 100% & more.",
    )
    t.kept(
        "HTML, a line break and a tab in the description",
        "windmill.webp",
        title="P1010023",
        description="Old <b>stone windmill</b> standing\non open arches,\twith white lattice sails "
        'and a <a href="https://en.wikipedia.org/wiki/Cap" rel="nofollow">domed cap</a>.',
    )
    t.kept(
        "an emoji and accents",
        "daffodils.png",
        title="Jonquilles 🌼",
        description="Impressionist painting of yellow daffodils massed in a white bowl, or jardinière.",
    )
    t.kept("a picture of ratio exactly 1/2", "nut_ice_cream_outline.png")
    t.kept("the date is the word null", "windmill8.webp", datetaken="null")
    t.broken("20 fields", "\t".join(["4567890123", "10000001@N99", "somebody", "null"] + [""] * 16))
    t.broken("a line of prose", "This line has nothing to do with photographs.")
    t.rejected("video", "a video", "Waves breaking on a sandy beach", "odd-routes/status/404/waves.mp4", marker="1")
    t.rejected(
        "video",
        "a video with a description",
        "VID_2041",
        "odd-routes/status/404/train.mp4",
        marker="1",
        description="A steam train leaves the station in winter.",
    )
    t.rejected("no_url", "an empty download URL", "A wet dog shaking itself at the river", "")
    t.rejected("bad_url", "a download URL without a scheme", "A stack of old suitcases", "//suitcases.jpg/x")
    t.rejected("no_caption", "neither title nor description", "")
    t.rejected("caption_too_short", "a title of two words", "Sunny day")
    t.rejected("caption_too_short", "a title of one character", "x")
    t.rejected("file_name", "a title that is a file name, no description", "IMG_0520")
    t.rejected("file_name", "a phone's file name", "20160716_113957.JPG")
    t.rejected("file_name", "file names in title and description", "DSC01234", description="DSC01234.JPG")
    t.rejected(
        "boilerplate",
        "photographed on a date, as a description",
        "IMG_2077",
        description="Photographed on 14.08.2010 at 16:20",
    )
    t.rejected("not_english", "Finnish", "Pieni punainen talo seisoo lumisen metsän reunassa kirkkaana talviaamuna")
    t.rejected(
        "not_english", "Czech", "IMG_3000", description="Starý kamenný most přes řeku za mlhavého podzimního rána."
    )
    t.rejected("not_english", "Ukrainian", "Стара дерев'яна хата стоїть на краю села біля високої тополі")
    t.rejected(
        "placeholder",
        "a photo that was taken down",
        "A wooden jetty on a calm lake at dawn",
        "odd-routes/removed/6985418911_df7747990d.jpg",
    )
    t.rejected(
        "placeholder",
        "a large photo that was taken down",
        "Two horses in a snowy paddock by the road",
        "odd-routes/removed/6985418912_df7747990e_l.jpg",
    )


def _wit(t: Table) -> None:
    t.kept(
        "a line break inside a quoted caption",
        "petra.jpg",
        caption="Columned temple facade carved into a sandstone cliff at Petra,\nwith a dark central doorway.",
    )
    t.kept(
        "quote characters in the caption",
        "gatewayofindia.jpg",
        caption='The "Gateway of India" glowing with yellow floodlights at dusk, framed by a dark palm tree.',
    )
    t.kept(
        "only an attribution, which names its language",
        "eiffeltower.jpg",
        **{MAIN: "", ATTRIBUTION: "English: The Eiffel Tower on a sunny day, seen along an avenue of clipped trees."},
    )
    t.kept(
        "an attribution in two languages",
        "reimscathedral.jpg",
        **{
            MAIN: "",
            ATTRIBUTION: "English: Gothic apse of Reims Cathedral with flying buttresses, in evening sun. "
            "Français : Chevet gothique de la cathédrale de Reims au soleil du soir.",
        },
    )
    t.kept(
        "only an alt-text",
        "koala.jpg",
        **{MAIN: "", ALT: "Fluffy grey koala sitting in the fork of a tree, holding the branches."},
    )
    t.kept("no size is given", "sheep.jpg", original_width="", original_height="")
    t.kept("ratio exactly 1/2, by its columns", "statueofliberty.jpg", original_height="3000", original_width="1500")
    t.kept("ratio exactly 2, by its columns", "lincolnmemorial.jpg", original_height="1500", original_width="3000")
    t.kept("the URL of rows in other languages as well", "berlincathedral.jpg")
    t.again(
        "duplicate_url",
        "a URL that another page has too",
        "berlincathedral.jpg",
        "A large church with green domes on a bright day.",
    )
    t.again(
        "not_english",
        "German, under the URL of an English row",
        "berlincathedral.jpg",
        "Der Berliner Dom mit seinen grünen Kupferkuppeln unter einem strahlend blauen Himmel.",
        language="de",
    )
    t.again(
        "not_english",
        "Russian, under the URL of an English row",
        "berlincathedral.jpg",
        "Берлинский собор с зелёными медными куполами под ярким синим небом.",
        language="ru",
    )
    for language, name, caption in _OTHER_LANGUAGES:
        t.rejected("not_english", name, caption, language=language)
    t.rejected(
        "not_english",
        "an attribution in Spanish",
        "",
        language="es",
        **{ATTRIBUTION: "Español: Dos jirafas caminan juntas entre los árboles de la sabana seca."},
    )
    t.broken("12 columns", "\t".join(["en", "https://en.wikipedia.org/wiki/Example"] + ["text"] * 10))
    t.rejected("no_url", "an empty image URL", "A row of poplars along a canal.", "")
    for kind, ending in (("svg+xml", "svg"), ("tiff", "tif"), ("gif", "gif"), ("vnd.djvu", "djvu")):
        t.rejected(
            "unsupported_type",
            f"image/{kind}",
            f"A plan of the old town, drawn in {len(kind)} colours.",
            f"odd-routes/status/404/plan.{ending}",
            mime_type=f"image/{kind}",
        )
    t.rejected(
        "unsupported_type",
        "application/pdf",
        "The first page of a letter about the weather.",
        "odd-routes/status/404/letter.pdf",
        mime_type="application/pdf",
    )
    t.rejected(
        "aspect_ratio",
        "too wide by its columns",
        "A panorama of the valley in spring.",
        original_height="1000",
        original_width="2001",
    )
    t.rejected(
        "aspect_ratio",
        "too tall by its columns",
        "A church tower seen from the square.",
        original_height="2001",
        original_width="1000",
    )
    t.rejected(
        "too_small",
        "too small by its columns",
        "A tiny emblem of a green tree.",
        original_height="40",
        original_width="50",
    )
    t.rejected("no_caption", "all three captions empty", "")
    t.rejected("caption_too_short", "two words", "Stone bridge")
    t.rejected(
        "boilerplate",
        "photographed on a date, as an attribution",
        "",
        **{ATTRIBUTION: "English: Photographed on 14 August 2010"},
    )
    t.rejected(
        "http_404", "a picture that was deleted", "A wooden church on a hill in Norway.", f"{STATUS}/404/church.jpg"
    )


_OTHER_LANGUAGES = (
    ("fr", "French", "Le château de Chenonceau enjambe une rivière tranquille, vu depuis un muret de pierre."),
    ("it", "Italian", "Una gallina rossa becca nell'erba accanto a un bordo di mattoni."),
    ("nl", "Dutch", "Een rij oude windmolens staat langs het water onder grote witte wolken."),
    ("pl", "Polish", "Czarno-biała krowa stoi na zielonym pastwisku obok dwóch innych krów."),
    ("el", "Greek", "Ο Παρθενώνας με τις μαρμάρινες κολόνες του κάτω από τον γαλάζιο ουρανό."),
    ("ja", "Japanese", "動物園の岩の上　うつむいて座っている　白と黒のジャイアントパンダ"),
    ("zh", "Chinese", "一只灰色的考拉 坐在高高的树杈上 双手抱着树枝"),
    ("ar", "Arabic", "الهرم الأكبر في الجيزة تحت سماء زرقاء صافية وأمامه الرمال."),
    ("hi", "Hindi", "गुलाबी बलुआ पत्थर से बना हवा महल और उसकी बहुत सी छोटी खिड़कियाँ।"),
)
