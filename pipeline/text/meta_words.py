"""Captions made of nothing but words about a picture, its camera, its licence or its web page.

Phrases (`boilerplate.py`) know what people write by its form; here only the words count, in any order: "Taken through
the window with my old phone", "Pentax K-x with DA 50-200", "Start free trial". One word of another kind, and the
caption says something of the image. Each kind has its own words, and one or more of its anchors must be among them,
because words of several kinds together may well be a caption."""

from __future__ import annotations

import itertools
import re
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FUNCTION = _words(
    "do don't a an the this that these it its is was were are be been has have had and or as at by for from in into "
    "of on onto out over to up with without via per through using not no did does i me my mine our we us you your"
)
_NUMBERS = _words("one two three four five six seven eight nine ten single double multiple several few some many")
_IMAGE = _words(
    "snaps frame frames panorama panoramas photo photos photograph photographs photography picture pictures pic pics "
    "image images shot shots snapshot snap scan scans file files work original version versions"
)
_TAKEN = _words("taken took shot captured photographed pictured snapped photo'd uploaded scanned digitized digitised")
_MADE = _words(
    "blended merged toned cut sharpened straightened rotated resized adjusted tweaked enhanced corrected cleaned "
    "restored stitched combined assembled saved exported rendered desaturated lightened darkened brightened coloured "
    "colored colorized colourised downsized upscaled enlarged reduced compressed developed printed moved made created "
    "posted sent shared recorded filmed produced edited processed cropped retouched converted"
)
_TIME = _words(
    "course end start beginning middle close latter century's turn millennium fortnight quarter-past sunday's weekday "
    "bank-holiday hanukkah diwali ramadan eid carnival epiphany advent pentecost solstice equinox twilight nightfall "
    "daybreak midmorning mid-afternoon seconds since until till almost nearly exactly immediately soon long recent "
    "previous following next wedding retirement graduation school childhood youth stay good ash palm whit bonfire guy "
    "fawkes springs summers autumns falls winters boxing labor labour independence valentine's mother's father's "
    "decades centuries yesterday's half quarter midsummer midwinter sunrise sunset lunchtime daytime nighttime mid "
    "birthday anniversary honeymoon tour visit walk first second third fourth recently before after shortly again "
    "moment moments decade century season term o'clock approximately approx probably maybe possibly likely "
    "thanksgiving new year's today yesterday tonight last early late earlier later sometime around about circa ca "
    "between during while just ago back same past date dated unknown exact time sunny rainy cloudy cold hot warm "
    "windy morning mornings afternoon afternoons evening evenings night nights noon midday midnight dawn dusk day "
    "days week weeks weekend month months year years hour hours minutes spring summer autumn fall winter holiday "
    "holidays vacation trip christmas easter halloween eve monday tuesday wednesday thursday friday saturday sunday "
    "mon tue wed thu fri sat sun january february march april may june july august september october november "
    "december jan feb mar apr jun jul aug sep sept oct nov dec am pm"
)
_DEVICES = _words(
    "grandfather grandmother grandpa grandma granddad grandson granddaughter uncle aunt cousin nephew niece partner "
    "colleague neighbour neighbor boss girlfriend boyfriend fiancé fiancée sister-in-law brother-in-law father-in- "
    "law mother-in-law parents kid roommate flatmate teacher someone grandfather's grandmother's grandpa's grandma's "
    "granddad's grandson's granddaughter's uncle's aunt's cousin's nephew's niece's partner's colleague's neighbour's "
    "neighbor's boss's fiancé's fiancée's sister-in-law's brother-in-law's father-in-law's mother-in- law's parents's "
    "roommate's flatmate's teacher's expired medium format large small 35mm half-frame homemade home-made self-built "
    "far away distance polarizing polarising graduated neutral density uv warming cpl soft focus tilt shift "
    "tilt-shift anamorphic manual vintage legacy computer pc mac macbook software program programme server desktop "
    "tablet's smartwatch doorbell security surveillance helmet body dash periscope endoscope spotting scope scopes "
    "magnifying loupe reader enlarger contact sheet dpi husband wife daughter son brother sister mother father dad "
    "mum mom friend windscreen windshield plastic kids child's kid's twitter tweetdeck facebook messenger binoculars "
    "telescope microscope magnifier moving car train bus plane stretch range ring coolscan epson microsoft ice "
    "autostitch ptgui together mirror gorillapod beanbag watch dashcam action bodycam trail reversed stacked "
    "teleconverters glasses screen wife's husband's son's daughter's friend's mother's father's dad's mum's mom's "
    "brother's sister's girlfriend's boyfriend's someone's self timer self-timer remote flatbed capture topaz nik "
    "silver efex affinity darktable rawtherapee picnik paint aviary preset presets filter filters instax tintype dual "
    "facing underwater waterproof housing bellows extension tube tubes teleconverter adapter prime standard normal "
    "kit viewfinder mirrorless bridge pocket laptop borrowed cheapo toy phone's point-and-shoot simple hand held "
    "selfie stick polarizer polariser nd ir infrared phone phones mobile cellphone smartphone cell iphone ipad "
    "android blackberry tablet webcam camera cameras cam lens telephoto wide wide-angle fisheye zoom macro tripod "
    "monopod handheld flash drone gopro film disposable digital compact dslr slr pinhole scanner slide negative print "
    "instagram hipstamatic snapseed vsco photoshop lightroom gimp picasa photomatix inkscape hugin illustrator canva "
    "adobe elements old new own cheap little trusty favourite favorite first camera's black white b&w colour color "
    "app email e-mail web window glass"
)
_BRANDS = _words(
    "foma fomapan kentmere adox efke orwo svema tasma ferrania cinestill minox franka balda welta certo beirette "
    "werra altix kowa alpa robot rollop zenza hanimex prinz revue porst bauer nizo braun eumig bolex arri arriflex "
    "blackmagic aaton alcatel zte poco fairphone asus acer doogee ulefone blackview meizu infinix tecno itel wiko bq "
    "akaso xiaoyi yuneec autel skydio plustek canoscan coolscan irix yongnuo 7artisans ttartisan ttartisans kamlan "
    "mitakon sirui lensbaby kiron sun spiratone hoya cokin lee-filters manfrotto gitzo benro wratten nettar crown "
    "fomacolor lubitel smena zenith horizon sealife nikonos canonet xperia zenfone instax brownie reflecta novoflex "
    "steinheil rodenstock google pentacon galaxy meyer schneider voigtlaender chinon cosina petri topcon kyocera "
    "sinar linhof graflex argus bessa isolette ikon vivo oppo realme redmi honor lumia tcl insta360 garmin coolpix "
    "powershot laowa venus meike viltrox fujinon hexanon biotar flektogon jena ihagee miranda lg nikkormat exakta "
    "iphone canon nikon nikkor sony fuji fujifilm olympus panasonic lumix pentax leica kodak casio samsung konica "
    "minolta hasselblad rollei rolleiflex rolleicord ricoh sigma tamron tokina zeiss dji htc nokia huawei motorola "
    "xiaomi oneplus pixel zenit yashica mamiya polaroid ilford holga lomo lomography diana bronica contax voigtländer "
    "voigtlander agfa zorki fed kiev praktica epson vivitar soligor samyang rokinon"
)
_MODELS = _words(
    "b c d e g h j l m n o q r t u w pony signet tourist xperia tough brownie nettar contessa contaflex contarex ikon "
    "ikonta ikoflex icarex isola silette optima clack box theta speed graphic crown press vario vario-elmarit "
    "vario-elmar vario-sonnar apo apo-summicron noctilux hektor super-angulon xenar xenon xenotar symmar color-skopar "
    "nokton heliar ultron skopar apo-lanthar biogon hologon flektogon biometar mate fold flip a y p series ultramax "
    "kodacolor verichrome panatomic plus-x d-lux v-lux c-lux m-p m-e digilux minilux xa mju pen-f pen-ee espio mz mx "
    "lx program canonet ftb elan elph sure shot sureshot autoboy nikonos nikkormat em fm hi-matic himatic gsn mat "
    "lynx smena lubitel sl gr gx grd cx imagon session fusion action air spark inspire anafi evo nano standard "
    "edition xl plus+ f+ xr xs xt x-t gfx x-pro x-e x-h s-line g-master gm art sports otus batis loxia touit milvus "
    "classic super-takumar smc multi-coated asph aspherical macro-elmarit micro micro-nikkor nikkor-s pc-e reflex "
    "mirror catadioptric power-zoom pz oss lumix leica handycam pro-neg eterna hexar autoreflex at-x atx lc-a lc-w "
    "retinette instamatic iiic iiif elite chrome redmi lite neo pro+ fe sensia astia reala neopan acros pan across "
    "tmax t-max hp fp rf z i nova colorplus cinestill fd nf c/y m42 pancake x back dual wide tele exilim easyshare "
    "electro trip superia contemporary camedia moto me spotmatic retina se gold selphy dp edge note eos powershot "
    "ixus rebel kiss coolpix cyber-shot cybershot alpha finepix galaxy dimage dynax maxxum optio stylus pen om-d nex "
    "summilux summicron summarit elmarit elmar planar sonnar distagon tessar helios industar jupiter takumar rokkor "
    "zuiko super plus pro max mini ultra mark ii iii iv v s is usm stm vr ed af af-s ef ef-s dx fx dc dg ex os hsm "
    "k-x k-r k-m da fa di vc xf ois kit prime body mm tri-x portra ektar hp5 delta fp4 provia velvia ektachrome "
    "kodachrome iso hero mavic phantom lumia"
)
_EXPOSURE = _words(
    "umbrellas night dusk dawn centre center none key fill rim hair backlight back ring barn doors gobo polarizing "
    "polarising polarizer polariser graduated neutral density nd uv ir filter filters tripod monopod steady rest "
    "braced bounce ceiling wall metered half-stop ten six three two one under over expose exposing shooting shot "
    "modes creative portrait landscape sports macro night-mode shutter-priority aperture-priority bulb-mode interval "
    "intervalometer timelapse time-lapse file files bit 12-bit 14-bit adobe srgb rgb prophoto colour color space "
    "profile picture style vivid faithful standard lens corrected distortion vignetting uncropped cropped straight "
    "unedited untouched sooc jpegs cloudy high low brightness hue tint sync curtain rear front slow fast dual single "
    "s zoom sb strobes flashes speedlights speedlites alienbees godox yongnuo through bounced camera into daylight "
    "tungsten fluorescent incandescent shade preset kelvin compulsory did detected return red-eye digital ratio "
    "contrast saturation sharpness scene capture type sensing method custom rendered normal resolution orientation "
    "horizontal component configuration gain control source lights images umbrella snoot gel softboxes reflector "
    "beauty dish grid speedlight speedlite power left right above below behind full half x centre-weighted "
    "center-weighted partial evaluative multi available natural ambient artificial light lighting pro meter reading "
    "readings setting stack composite level noise reduction in-camera remote release cable trigger triggered "
    "underexposed overexposed compensation pushed pulled stop stops developer rodinal d-76 minutes hours distance "
    "subject aperture's value number rating sensitivity maximum minimum bulb minute balance metering spot matrix "
    "average flash used yes off crop equivalent frame frames raws hand held exposure exposures exposed hdr iso "
    "aperture shutter speed focal length ev bias sec secs second seconds bracketed bracket brackets tone mapped "
    "tonemapped mapping blended merged stacked stitched fire fired strobist strobe softbox photomatix raw jpeg jpg f "
    "mm info exif metadata data settings time manual mode white auto long program priority f-number f-stop"
)
_AGENTS = _words(
    "himself herself owner photographer family private author uploader myself self uploader's author's owner's user "
    "user's yours own"
)
_WIKI = _words(
    "derived adapted modified extracted add provide improve help higher lower resolution resolutions am quality "
    "better better-quality replace replaced superseded obsolete duplicate delete deleted rename renamed correct "
    "corrected reupload re-upload reuploaded re-uploaded uploading overwritten revert reverted tag tagged "
    "missing-source permission otrs vrt ticket metadata exif gallery globe contributor contributors editor wikipedian "
    "wikimedian wikidata wikivoyage mediawiki svg-version vectorised vectorized vectorization traced redrawn drawn "
    "hand-drawn scan own-work self- made self-drawn self-taken chart graph illustration selfmade copied personal "
    "details work taken page's available drawing diagram map graphic here was specified known stated originally based "
    "another other history derivative vector versions archive archives collection own released summary licensing "
    "categories category template no name date file's talk user description's english-language please crop cropped "
    "edited edit retouched translated translation png svg jpg information provided given unknown author "
    "machine-readable moved nl es it pt ru pl sv original commonswiki uploader commonist uploadwizard wikipedia "
    "en.wikipedia de.wikipedia fr.wikipedia wikimedia commons en de fr english german french upload uploads "
    "transferred transfer bot description missing unavailable source see page"
)
_LICENCE = _words(
    "unknown uncertain unclear unidentified doctrine managed when if crediting linking link back given mention "
    "mentioning name website url requirement obligatory mandatory contact-me licensee licensing licensor watermarks "
    "republish republished republication syndication embargo exclusive-use non-exclusive one-time print web "
    "editorially unlimited limited lawful infringement fair- use fair dealing trademarked patented enquiries "
    "inquiries gpl lgpl mit apache distribution distributed required requires require needed into by materials "
    "material permissions exclusively unauthorized unauthorised forbidden prohibited photographer artist holders "
    "source id number code stock-photo licence-free download downloads printable high resolution hi-res vector "
    "illustration image photo photos picture pictures logo may must cannot not be without strictly private "
    "noncommercially educational non-profit protected content contents work works images photographs owned property "
    "exclusive notice statement prior written consent express agreement trademark trademarks respective owners unless "
    "otherwise noted stated unrestricted ask using kind kindly freely mark zero by-sa by-nc share remix adapt "
    "distribute copy copyright copyrighted right rights reserved all some holder owner licence license licences "
    "licenses licensed attribution attribution-sharealike attribution-noncommercial share-alike sharealike alike "
    "noncommercial non-commercial noderivs noderivatives generic unported international creative commons cc public "
    "domain permission permitted granted used usage reuse royalty free royalty-free rights-managed stock credit "
    "credits courtesy editorial only personal commercial purposes please contact before reproduction reproduced "
    "reproduce allowed known restrictions under terms released gfdl gnu documentation agency press archive archives "
    "watermark watermarked sample preview"
)
_PAGE = _words(
    "look option how what why who where works work can will we touch online samples clicking involved inspired listed "
    "notified quotes estimate ready sure advice support forum community club circle panel portal dashboard inbox chat "
    "live agent expert experts advisor stockist stockists branch branches nearest stock sizes colours colors styles "
    "looks collections range ranges lookbook arrivals essentials bestsellers recipe recipes episode episodes podcast "
    "song songs lyrics track tracks playlist subtitles captions transcript translation dark mode theme menus tabs "
    "banner ads ad advert table services service mailing channel blog team room seat seats trip tour hotel job jobs "
    "careers consultation call-back callback later zip postcode number date friend feedback today's easy favourite "
    "checklist calendar invoice refund gift cards voucher payment method pickup collection less others everything "
    "preferences consent choices report reports guide ebook e-book whitepaper sample template form forms register "
    "login sign log free find near stores dealer retailer locations all only one two three first last left right "
    "arrow button icon key keys keyboard l f11 side bar sidebar map print prints shop store review reviews ticket "
    "event events course name password username address terms privacy policy cookies settings profile message "
    "question questions answer code coupon price prices availability directions location copy quote book booking "
    "appointment call rates class classes options ideas subscription membership waitlist alert alerts notifications "
    "language currency country rating seller wish save photo photos picture pictures image images video videos "
    "gallery galleries slideshow slide article articles post posts page pages story item items product products "
    "details detail description info information view views site website homepage home link links here more full size "
    "version resolution larger bigger large big high next previous back top bottom content menu close window tab new "
    "now today trial demo request account checkout continue proceed search result results comment comments reply "
    "newsletter email updates list cart bag basket wishlist favorites favourites compare deals offer offers discount "
    "shipping delivery returns order orders tickets app file files pdf download downloads brochure catalog catalogue "
    "facebook twitter instagram pinterest youtube linkedin google whatsapp tumblr reddit flickr friends us me it this "
    "the a an your our my to in on for with and or by from at up out you get started about please"
)
_COMMANDS = _words(
    "create make set change reset forgot remember keep stay ask answer message chat stream preview rename remove "
    "delete duplicate copy paste cut crop rotate export import sync connect disconnect block mute unmute flag enter "
    "accept allow agree manage sort filter track pay switch toggle remind invite rent unsubscribe confirm verify "
    "upgrade install enable disable turn refresh reload retry dismiss cancel finish redeem activate calculate "
    "customise customize personalise personalize hire click tap press hover touch swipe scroll zoom enlarge expand "
    "open close view see show hide load watch play listen read learn discover explore find browse search go return "
    "skip jump back continue proceed start try get request buy shop order book reserve add save pin share tweet "
    "follow like join subscribe register sign log login logout download upload print submit send contact call email "
    "visit apply donate vote rate review leave write post reply report check compare choose select insert edit update "
    "claim grab"
)
_ALT = _words(
    "headshot portrait photograph thumbnails placeholders icons logos banners mock mockup demo dummy lorem ipsum "
    "filler spacer transparent pixel tracking badge rating star stars arrow chevron close menu search cart flag "
    "sprite decorative illustration ornament divider separator bullet goes could be loaded failed error display "
    "displayed cannot can't listing listings month week day sidebar widget section block intro inline body tile hover "
    "active inactive left right next previous your my our wait please link links preview text-only responsive desktop "
    "mobile small medium large full size lead member members staff category team news event without person client "
    "customer sponsor partner seller store shop album channel group image images photo photos picture pictures pic "
    "thumbnail thumb placeholder default blank empty missing broken loading loads load unavailable available coming "
    "soon not found logo icon banner header footer hero cover main featured feature primary secondary background "
    "avatar profile user author company site website page blog post article product gallery slide slider slideshow "
    "carousel item alt text title caption description here no none n/a untitled unknown additional related of for is "
    "the a an this number"
)


class _Kind(NamedTuple):
    words: frozenset[str]
    anchors: tuple[frozenset[str], ...]  # a caption has a word of each


_APPS = _words(
    "photoshop lightroom gimp picasa snapseed photomatix inkscape hugin illustrator canva vsco instagram app ice "
    "microsoft ptgui autostitch darktable affinity luminar picsart topaz nik"
)
_CHANGED = _words("published released recorded filmed posted edited updated modified changed added uploaded submitted")
_EDITED = _words("edited processed retouched cropped converted resized adjusted enhanced stitched merged cleaned")
_SENT = _words("sent posted shared uploaded submitted")
_EXPOSED = _words(
    "exposure exposures hdr iso aperture shutter focal strobist ev tonemapped bracketed f-number metering meter "
    "softbox underexposed overexposed"
)
_UPLOADING = _words("uploader uploader's uploaded commonist uploadwizard upload uploads")
_WIKIS = _words("wikipedia en.wikipedia de.wikipedia fr.wikipedia wikimedia commons")
_RIGHTS = _words(
    "copyright copyrighted rights licence license licensed attribution attribution-sharealike sharealike royalty "
    "royalty-free gfdl permission restrictions courtesy credit watermark watermarked"
)
_TAKING = _FUNCTION | _NUMBERS | _IMAGE | _TAKEN | _MADE | _TIME | _DEVICES | _BRANDS | _AGENTS | _EXPOSURE
_ABOUT_FILE = _FUNCTION | _IMAGE | _TAKEN | _MADE | _AGENTS | _WIKI | _DEVICES
_ABOUT_RIGHTS = _FUNCTION | _IMAGE | _AGENTS | _LICENCE
_KINDS = (
    # when, by whom and with what it was taken
    _Kind(_TAKING, (_TAKEN,)),
    _Kind(_TAKING, (_MADE | _words("date dated"), _IMAGE | _APPS)),
    _Kind(_TAKING, (_EDITED, _words("phone ipad tablet mobile computer laptop mac pc app software smartphone"))),
    _Kind(_TAKING | _MODELS, (_SENT, _DEVICES | _BRANDS)),
    _Kind(_TAKING, (_words("film negative"), _words("developed"))),
    _Kind(_FUNCTION | _NUMBERS | _IMAGE | _TIME, (_IMAGE, _TIME - _words("past last day days time"))),
    _Kind(_FUNCTION | _NUMBERS | _MADE | _CHANGED | _TIME, (_CHANGED, _TIME)),
    _Kind(_BRANDS | _MODELS | _DEVICES | _EXPOSURE | _words("with and on a an the my + &"), (_BRANDS,)),
    # how it was exposed
    _Kind(_TAKING - _TIME | _EXPOSURE, (_EXPOSED,)),
    _Kind(
        _EXPOSURE | _FUNCTION,
        (_words("flash bulb"), _words("no used fire fired off sec secs second seconds s mode bounce bounced")),
    ),
    _Kind(_EXPOSURE | _words("set to"), (_words("white"), _words("balance"))),
    _Kind(
        _EXPOSURE | _FUNCTION | _BRANDS, (_words("flash power umbrella softbox snoot gel"), _words("power fire mode"))
    ),
    _Kind(_EXPOSURE | _FUNCTION, (_words("stack stacked"), _words("frame frames exposures images shots"))),
    _Kind(_EXPOSURE, (_words("contrast saturation sharpness"), _words("normal high low"))),
    _Kind(_EXPOSURE | _FUNCTION, (_words("flashes strobes speedlights"), _words("power umbrella camera"))),
    _Kind(_EXPOSURE | _FUNCTION, (_words("light lighting"), _words("natural available ambient artificial"))),
    _Kind(
        _EXPOSURE | _FUNCTION | _DEVICES,
        (_words("filter filters"), _words("polarizing polarising nd uv neutral tripod")),
    ),
    _Kind(_EXPOSURE, (_words("zoom scene sensing rendered gain"), _words("ratio type method custom control"))),
    # a file on Commons
    _Kind(_ABOUT_FILE, (_UPLOADING, _UPLOADING | _AGENTS | _words("wikimedia commons wikipedia en.wikipedia"))),
    _Kind(_ABOUT_FILE, (_words("transferred moved"), _words("wikimedia commons wikipedia en.wikipedia"))),
    _Kind(_ABOUT_FILE, (_words("author author's"), _words("information provided unknown file uploader see own"))),
    _Kind(_ABOUT_FILE, (_words("author author's uploader myself"), _TAKEN | _MADE | _words("released own drawn"))),
    _Kind(_ABOUT_FILE, (_words("source author description information date"), _words("no not unknown none missing"))),
    _Kind(
        _ABOUT_FILE,
        (
            _words("file image work page"),
            _words("version history derivative derived adapted extracted based details author"),
        ),
    ),
    _Kind(_ABOUT_FILE, (_words("see"), _words("source details description page history"))),
    _Kind(
        _ABOUT_FILE, (_words("please"), _words("add provide improve help"), _words("description source information"))
    ),
    _Kind(_ABOUT_FILE, (_words("own private personal family"), _words("archive archives collection"))),
    _Kind(
        _ABOUT_FILE, (_WIKIS, _words("see from upload uploaded originally file source description user user's derived"))
    ),
    # whose it is
    _Kind(_ABOUT_RIGHTS, (_RIGHTS,)),
    _Kind(_ABOUT_RIGHTS, (_words("personal commercial editorial educational private"), _words("use"))),
    _Kind(_ABOUT_RIGHTS, (_words("fair"), _words("use dealing"))),
    _Kind(_ABOUT_RIGHTS, (_words("free"), _words("use used usage share reuse remix"))),
    _Kind(_ABOUT_RIGHTS, (_words("use used distribute reproduced"), _words("requires require required without not"))),
    _Kind(_ABOUT_RIGHTS, (_words("licensed released"), _words("gnu gpl mit apache domain author"))),
    _Kind(_ABOUT_RIGHTS, (_words("rights-managed managed"), _words("image photo picture rights"))),
    _Kind(_ABOUT_RIGHTS, (_words("reproduction copying use distribution"), _words("prohibited forbidden restricted"))),
    _Kind(_ABOUT_RIGHTS, (_words("stock"), _words("photo image picture vector illustration"))),
    _Kind(_ABOUT_RIGHTS, (_words("please ask"), _words("use using copy reuse reproduce"))),
    # what stands for an image
    _Kind(_ALT, (_words("placeholder thumbnail loading unavailable avatar untitled alt banner"),)),
)
_ALL = frozenset[str]().union(*(kind.words for kind in _KINDS))
_ANY = _ALL | _COMMANDS | _PAGE | _ALT
_TOKEN = re.compile(r"[^\s,;:|()\[\]!?…\"“”]+")
_HOLDER = re.compile(  # whose rights they are
    r"\b(?i:reserved\s+by|holder:?|owner:?|courtesy\s+of|(?:attribution|credits?|copyright):)"
    r"(?:\s+[^\W\d_a-z][\w'.-]*){1,4}$"
)
_HOLDER_HINTS = ("reserved", "holder", "owner", "courtesy", "attribution", "credit", "copyright")
"""What a caption holds, in lower case, where `_HOLDER` matches."""
_DIGIT = re.compile(r"\d")
_CODE = re.compile(r"[a-z]|[b-df-hj-np-tv-z]{2,4}")  # of a model, beside a number: RF, MTL, L
MAX_CHARACTERS = 120


def is_meta(caption: str) -> bool:
    """Whether a clean caption has no word about what the image shows."""
    if len(caption) > MAX_CHARACTERS or _has_other_words(caption):
        return False
    tokens = (token.strip(".-–'/") for token in _TOKEN.findall(_HOLDER.sub(" courtesy", caption).lower()))
    tokens = ("wikipedia" if token.endswith(".wikipedia") else token for token in tokens)
    known = [part for token in tokens for part in ([token] if token in _ALL else token.split("-"))]
    words = [part for part in known if part and not _DIGIT.search(part)]
    if len(words) < len(known) and not _BRANDS.isdisjoint(words):
        words = [word for word in words if word in _ALL or not _CODE.fullmatch(word)]
    return _is_of_a_kind(words) or _is_command(words) or _stands_for_an_image(words)


def _has_other_words(caption: str) -> bool:
    """Whether a word of nothing but letters is of no kind. That settles most captions in a fraction of the time that
    reading all of their tokens takes."""
    low = caption.lower()
    if any(map(low.__contains__, _HOLDER_HINTS)):
        return False  # names may stand there
    others = set(low.split()) - _ANY
    return any(word.isalpha() and not _CODE.fullmatch(word) for word in others)


def _is_of_a_kind(words: list[str]) -> bool:
    if not words or not _ALL.issuperset(words) or _has_a_subject(words):
        return False
    return any(
        kind.words.issuperset(words) and not any(anchors.isdisjoint(words) for anchors in kind.anchors)
        for kind in _KINDS
    )


def _has_a_subject(words: list[str]) -> bool:
    """Photograph of the author."""
    is_of_file = words[-1] == "uploader" or not {"slide", "negative", "print", "file"}.isdisjoint(words[2:4])
    return words[0] in _IMAGE and words[1:2] == ["of"] and not is_of_file


def _is_command(words: list[str]) -> bool:
    """Words of a button: a verb, then what a page holds."""
    words = words[1:] if words[:1] == ["please"] else words
    if len(words) < 2 or words[0] not in _COMMANDS or not _PAGE.issuperset(words[1:]):
        return False
    if any(first in _WHERE and second in _ARTICLES for first, second in itertools.pairwise(words[1:])):
        return False  # Sign in the window, Open book on a table
    if words[0] in _SIGNING:
        return words[1] in _SIGNING[words[0]]
    return not _WHERE.issuperset(words[1:])  # Pin up


_ARTICLES = _words("the a an")
_SIGNING = {"sign": _words("in up on out here me us"), "log": _words("in on out into here")}
"""Verbs that are nouns as well, with the words that make them verbs."""
_WHERE = _words("in from at on by with up")


def _stands_for_an_image(words: list[str]) -> bool:
    """An alternative text: "Team member photo", "Image without description"."""
    if not words or not _ALT.issuperset(words):
        return False
    if words[0] in _IMAGE and words[1:2] in (["of"], ["for"]):
        return words[-1] in _SLOTS
    if "of" in words:
        return words[0] == "logo"
    return words[-1] in _IMAGE or (words[0] in _IMAGE and not _FAILURES.isdisjoint(words))


_SLOTS = _words("article post page site blog item product listing gallery slide website section month week day user")
_FAILURES = _words("without loaded load failed error displayed display goes here")
