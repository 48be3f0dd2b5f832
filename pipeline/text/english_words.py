"""Words by which a short text shows that it is English.

`ENGLISH_ONLY`: common words that other languages written in Latin letters do not have (the frequent ones at least):
function words, and what captions name. `SHARED`: function words of English that are words elsewhere too ("in", "on",
"is")."""

from __future__ import annotations

_SURE = """
the and with this that these those from which what when where while who whose why how their there they them then than
his she him your you our ours its being were would could should might shall does did doing done having had into onto
upon about above across after again against along already also although always among another any anything around away
back because become before behind below beneath beside besides between beyond both but cannot despite down during each
either else enough even ever every everything everyone few following here however including inside instead itself just
least less like likely many maybe more much near nearly neither never next nothing now off often once only other others
otherwise outside own perhaps quite rather really several since some something sometimes soon such themselves though
through throughout thus together too toward towards under unless until up upper using very whether whole within without
yet out won't don't doesn't isn't can't it's that's there's let's

one two three four five seven eight nine eleven twelve twenty thirty forty fifty hundred thousand first second third
fourth fifth twice double single pair dozen black white blue green yellow brown grey gray purple pink golden silver dark
bright light colour colours colored coloured colorful big small little large huge tiny tall short wide narrow high low
deep thick thin heavy round sharp soft wet dry cold cool old young new ancient early late good better worse worst great
nice beautiful pretty lovely cute ugly happy angry tired hungry funny strange easy difficult quick slow quiet loud clean
dirty full empty open closed broken free rich strong weak wooden frozen fresh raw cooked sweet sour right left wrong
true false ready available different similar various common foreign british english french german dutch spanish italian
russian chinese japanese african asian european northern southern eastern western

people person child children boy boys girl girls woman women lady gentleman baby babies kid kids mother father daughter
brother sister family friend friends wife husband king queen prince princess knight soldier soldiers sailor worker
workers farmer teacher players player singer writer painter driver rider hunter fisherman crowd everybody someone
somebody anyone nobody head faces eye eyes ear ears nose mouth tooth teeth hair beard neck shoulder shoulders fingers
foot feet knee bones heart blood body wing wings claw feather feathers horns dog dogs puppy cat cats kitten horse horses
donkey cow cows sheep goat goats pig pigs chicken rooster duck ducks goose geese swan bird birds eagle hawk owl crow
sparrow pigeon seagull parrot penguin fish shark whale dolphin turtle frog toad snake lizard spider butterfly
butterflies bee bees wasp beetle snail worm mice rabbit squirrel fox bear bears deer moose elephant elephants monkey
lion lions leopard camel giraffe

tree trees leaf leaves branch branches flower flowers blossom grass bush forest woods wood garden gardens field fields
meadow farm fence mountain mountains hill hills valley cliff rocks stone stones soil earth ground desert island islands
beach shore sea ocean lake lakes river rivers stream creek waterfall pond waves ice snow snowy rain rainy storm stormy
cloud clouds cloudy sky fog mist sunny sunset sunrise sunlight moon stars night day days morning afternoon evening dawn
dusk week weeks month months year years today yesterday tomorrow spring summer autumn monday tuesday wednesday thursday
friday saturday sunday january february march may june july august october

house houses room rooms kitchen bathroom bedroom doors window windows walls roof floor ceiling stairs building buildings
tower bridge road roads street streets path pathway town towns city cities church churches cathedral temple castle
palace school university library hospital shop shops market office factory airport harbour harbor lighthouse railway
track tracks truck trucks cars bicycle bike wheel wheels boat boats ship ships sailing sailboat airplane aircraft flight
bench chair chairs shelf drawer candle mirror clock watch box boxes bag bags basket bottle cups glasses plate plates
dish bowl knife fork spoon key keys lock rope chain nail hammer saw drill tool tools brush paint painting painted
drawing drawn image images photograph photo photos view views statue sculpture poster sign signs flags map maps book
books newspaper words paper pencil scissors shirt trousers dress skirt jacket sweater shoe shoes hats glove gloves scarf
belt jewelry necklace crown sword shield armor armour arrow arrows weapon weapons food bread cheese egg eggs meat beef
soup cake cookie cookies apple apples pear pears grape strawberry cherry potato potatoes carrot carrots onion cabbage
bean beans pepper mushroom mushrooms milk coffee juice sugar game games toy toys music song songs dancing flute

goes going gone went comes coming came get gets getting got gives giving given gave make makes making made take takes
taking taken took sees seeing seen look looks looking looked watching show shows showing shown says saying said tell
tells told know known think thought want wants wanted needs needed find finds finding found keep keeps keeping kept
holds holding bring brings brought carry carries carrying carried leave leaving put puts putting setting stands standing
stood sits sitting lie lies lying walk walks walking walked runs running jump jumps jumping fly flies flying flew swim
swims swimming ride rides riding drive drives driving play plays playing played eat eats eating eaten drink drinks
drinking sleep sleeping wear wears wearing worn read reads reading write writes writing written draw draws build builds
built create creates creating created work works working worked use uses used help helps change changes changed changing
moves moving moved turns turned turning starts started stops stopped begins grow grows growing grown falls falling
fallen cuts cutting catch catches throw throws fight fighting killed died dead lives living born buy sold pay paid send
sends wait waiting call called calls ask asked answer choose chosen click press select remove adds added allow allows
allowed based related required provided provides providing contains containing shared supported followed covered located
surrounded decorated

names named parts sides bottom middle center centre end edge corner row square shape shapes size numbers amount ways
thing things kinds piece pieces world country countries states battle history century story life death love peace law
power speed weight height width length time times hour hours answers example examples files folder software hardware
computer computers network keyboard screen button settings user users toolkit framework development documentation
headers bindings language languages support tests testing parser viewer editor browser command commands lightweight
powerful implementation interface wrapper handling management tutorial learning dictionary spelling fonts background

libraries packages utilities utility runtime display displays binding logging parsing processing components functions
managing oriented graphical storage filesystem output learn monitoring directory directories convert implementing
devices systems converting accessing remote safe automatic connect manage defined compatibility lists capture
authentication applying distributed loading matching networking easily definitions coverage rounded numerical
functionality connectivity generate generates generated generating feature features layer layers knowledge safety
security privacy quality reliable efficient advanced virtual hidden movable unused missing searching search drawings
scene scenery landscape foreground smiling laughing crying parked waving carved stained handmade homemade vintage
antique wedding birthday christmas easter halloween guests outdoor outdoors indoor indoors downtown neighborhood
neighbourhood stainless steel leather wool cotton wicker brick concrete marble wire thread strings scratched striped
spotted healthy delicious tasty breakfast lunch dinner supper meal cooking baking pumpkin cucumber spinach strawberries
blueberries raspberries cherries walnut clothing clothes pocket sleeve buttons wallpaper curtain carpet pillow blanket
towel toothbrush soap bathtub shower toilet sink teaching studying research science scientist engineer doctor nurse
police officer firefighter lawyer priest bishop wizard witch unicorn dwarf ghost skeleton skull warrior archer
blacksmith peasant shepherd cowboy pirate thief team football soccer basketball baseball skating skiing surfing fishing
hiking climbing racing cycling coin coins pence money purse wallet addition subtraction owned ruled founded rebuilt
destroyed restored abandoned crowded filled lined dressed shaped pointed curved folded hanging leaning floating burning
shining glowing
"""
_SHARED = """
a all an are as at be been by can do for had has have he her i if in is it man me most must my no not of on or out over
same so to us via was we will
"""

ENGLISH_ONLY = frozenset(_SURE.split())
SHARED = frozenset(_SHARED.split())
