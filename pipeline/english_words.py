"""Words by which a short text shows that it is English.

`SURE`: common words that other languages written in Latin letters do not have (the frequent ones at least): function
words, and what captions name. `SHARED`: function words of English that are words elsewhere too ("in", "on", "is")."""

from __future__ import annotations

SURE = frozenset("""
the and with this that these those from which what when where while who whose why how their there they them then than his
she him her your you our ours its been being were would could should might shall does did doing done having has had
into onto upon about above across after again against along already also although always among another any anything are
around away back because become before behind below beneath beside besides between beyond both but cannot despite down
during each either else enough even ever every everything everyone few following here however including inside instead
itself just least less like likely many maybe more most much must near nearly neither never next not nothing now off often
once only other others otherwise outside own perhaps quite rather really same several since some something sometimes soon
still such themselves though through throughout thus together too toward towards under unless until up upper using very via
whether whole within without yet out won't don't doesn't isn't can't it's that's there's let's

one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand first second third
fourth fifth half quarter twice double single pair dozen
black white red blue green yellow brown grey gray purple pink golden silver dark bright light colour color colours colors
colored coloured colorful
big small little large huge tiny tall short long wide narrow high low deep thick thin heavy round flat sharp soft hard wet
dry hot cold warm cool old young new ancient modern early late good better best bad worse worst great nice beautiful pretty
lovely cute ugly happy sad angry tired hungry funny strange simple easy difficult fast quick slow quiet loud clean dirty full
empty open closed broken free rich poor strong weak wild wooden frozen fresh raw cooked sweet sour right left wrong true
false ready available different similar various common rare popular famous local foreign british english french german dutch
spanish italian russian chinese japanese american african asian european indian northern southern eastern western

people person child children boy boys girl girls woman women men lady gentleman baby babies kid kids mother father parents
daughter son brother sister family friend friends wife husband king queen prince princess knight soldier soldiers sailor
worker workers farmer teacher student players player singer actor writer painter driver rider hunter fisherman crowd
everybody someone somebody anyone nobody
head face faces eye eyes ear ears nose mouth tooth teeth hair beard neck shoulder shoulders arms hands finger fingers leg
legs foot feet knee skin bone bones heart blood body wing wings tail claw feather feathers fur horn horns
dog dogs puppy cat cats kitten horse horses pony donkey cow cows bull sheep lamb goat goats pig pigs chicken hen rooster
duck ducks goose geese swan bird birds eagle hawk owl crow sparrow pigeon seagull parrot penguin fish shark whale dolphin
turtle frog toad snake lizard spider butterfly butterflies bee bees wasp beetle snail worm mouse mice rabbit squirrel fox
wolf bear bears deer moose elephant elephants monkey lion lions leopard camel giraffe

tree trees leaf leaves branch branches root flower flowers blossom rose grass bush forest woods wood garden gardens field
fields meadow farm barn fence mountain mountains hill hills valley cliff rock rocks stone stones sand mud soil earth ground
cave desert island islands beach shore coast sea ocean lake lakes river rivers stream creek waterfall pond water waves
ice snow snowy rain rainy storm stormy cloud clouds cloudy sky fog mist sun sunny sunset sunrise sunlight moon star stars
night day days morning afternoon evening dawn dusk week weeks month months year years today yesterday tomorrow spring summer
autumn winter monday tuesday wednesday thursday friday saturday sunday january february march april may june july august
september october november december

house houses home homes room rooms kitchen bathroom bedroom door doors window windows wall walls roof floor ceiling stairs
building buildings tower bridge road roads street streets path pathway town towns city cities village church churches
cathedral temple castle palace school university library hospital shop shops store market office factory station airport
harbour harbor dock pier lighthouse mill railway train trains track tracks truck trucks bus car cars bicycle bike wheel
wheels boat boats ship ships sailing sailboat plane planes airplane aircraft engine flight bench chair chairs table bed
desk shelf drawer lamp candle mirror clock watch bell box boxes bag bags basket bottle cup cups glass glasses plate plates
dish bowl knife fork spoon pan key keys lock rope chain nail hammer saw drill tool tools brush paint painting painted
drawing drawn picture pictures photograph photo photos image images view views statue sculpture portrait poster sign signs
flag flags map maps book books page pages newspaper letter letters word words text paper pencil pen scissors shirt pants
trousers dress skirt coat jacket sweater shoe shoes boot boots hat hats cap glove gloves scarf belt jewelry ring necklace
crown sword shield armor armour bow arrow arrows gun weapon weapons food bread cheese butter egg eggs meat beef ham salad
soup cake cookie cookies fruit fruits apple apples pear pears orange grape grapes strawberry cherry lemon banana potato
potatoes carrot carrots onion cabbage bean beans pepper mushroom mushrooms nut nuts milk tea coffee beer wine juice sugar
salt game games toy toys doll ball kite puzzle music song songs dance dancing dancer drum guitar trumpet flute piano

go goes going gone went come comes coming came get gets getting got give gives giving given gave make makes making made take
takes taking taken took see sees seeing seen saw look looks looking looked watching show shows showing shown say says saying
said tell tells told know known think thought want wants wanted need needs needed find finds finding found keep keeps
keeping kept hold holds holding held bring brings brought carry carries carrying carried leave leaving put puts putting
set sets setting stand stands standing stood sit sits sitting sat lie lies lying walk walks walking walked run runs running
ran jump jumps jumping fly flies flying flew swim swims swimming ride rides riding drive drives driving play plays playing
played eat eats eating eaten drink drinks drinking sleep sleeping wear wears wearing worn read reads reading write writes
writing written draw draws build builds built create creates creating created work works working worked use uses used help
helps change changes changed changing move moves moving moved turn turns turned turning start starts started stop stops
stopped begin begins grow grows growing grown fall falls falling fallen cut cuts cutting catch catches throw throws hit
fight fighting kill killed die dies died dead live lives living born buy sell sold pay paid send sends sent wait waiting
call called calls ask asked answer choose chosen click press select remove add adds added allow allows allowed based
related required provided provides providing contains containing shared supported written followed covered located
surrounded decorated

name names named part parts side sides top bottom front middle center centre end edge corner line lines row circle square
shape shapes size number numbers amount way ways thing things kind kinds piece pieces place places world country countries
state states war battle army history century age story life death love peace law power speed weight height width length
time times hour hours minute minutes question answers example examples file files folder software hardware computer computers
network keyboard screen button settings user users toolkit framework development documentation common headers bindings
language languages support tests testing parser viewer editor browser command commands simple fast lightweight powerful
implementation interface wrapper handling management tutorial learning dictionary spelling fonts background
""".split())
SHARED = frozenset("a an at as be by can do for he i if in is it me my no of on or over so to us was we will".split())
