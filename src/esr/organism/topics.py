# ruff: noqa: E501 (one topic per line of the table)
"""The forty topics of the organism's language: each content word belongs to exactly one topic.

Exclusivity is what makes everything downstream exact: the topic of a text is a count of words, no judge needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from esr.errors import UserError

# name | verbs | nouns | adjectives
_TABLE = """
bread baking|knead bake proof shape|dough yeast flour loaf oven crust starter gluten baguette bakery sourdough crumb rolls rye|floury crusty doughy leavened golden
gardening|plant prune weed mulch transplant|soil seed compost tomato trellis garden shovel root flower sprout hedge rake seedling fertilizer|leafy shady fertile blooming potted
fishing|cast reel hook troll bait|trout lure rod tackle pond bass salmon minnow float angler sinker worm net line|fishy slippery finned freshwater hooked
painting|paint sketch blend prime varnish|canvas brush easel palette acrylic pigment portrait watercolor studio mural sketchbook primer gallery charcoal|colorful pastel glossy abstract vivid
woodworking|saw sand plane chisel join|lumber plywood dowel clamp sawdust bench oak veneer mortise tenon lathe drawer cabinet workbench|wooden splintered knotty planed sanded
astronomy|observe survey align magnify chart|telescope planet galaxy star comet nebula moon eclipse orbit constellation asteroid eyepiece observatory meteor|lunar stellar cosmic celestial distant
sailing|sail anchor steer tack moor|boat mast rudder hull harbor deck keel jib rope dock buoy captain tide marina|windy nautical seaworthy choppy coastal
cycling|pedal coast shift inflate brake|bicycle chain tire saddle helmet handlebar gear wheel spoke derailleur cassette pump sprocket crank|bumpy aerodynamic geared inflated greasy
coffee brewing|brew grind roast percolate pour|coffee espresso bean filter kettle grinder mug latte barista aroma caffeine milk foam carafe|roasted caffeinated aromatic frothy bitter
chess|castle checkmate capture promote sacrifice|pawn bishop knight rook queen king opening endgame gambit board opponent fork stalemate tournament|tactical positional defensive cautious cornered
photography|focus expose crop zoom develop|camera lens tripod shutter aperture flash negative darkroom exposure photo viewfinder bokeh film album|blurry sharp overexposed grainy candid
knitting|knit purl crochet unravel stitch|yarn needle wool scarf sweater skein sock mitten cardigan pattern tassel shawl loop bobbin|woolly knitted cozy fuzzy ribbed
beekeeping|smoke harvest inspect swarm extract|hive bee honey beekeeper wax comb nectar pollen apiary smoker larva brood drone sting|buzzing sticky waxy swarming honeyed
plumbing|plumb unclog seal drain flush|pipe faucet valve toilet sink leak wrench washer plunger sewer gasket shower elbow fitting|leaky clogged corroded rusty dripping
programming|compile debug refactor deploy commit|code function variable compiler iterator bug server script database algorithm module parser syntax keyboard|recursive compiled buggy asynchronous typed
camping|camp pitch hike backpack kindle|tent campfire lantern bedroll forest trail stake tarp hammock canteen firewood backcountry campsite matches|rustic outdoor wooded secluded starlit
swimming|swim dive paddle kick submerge|pool goggles lap stroke swimmer lane snorkel fin lifeguard backstroke freestyle swimsuit chlorine poolside|wet buoyant underwater chlorinated aquatic
piano playing|play practice transpose improvise rehearse|piano scale chord melody sonata pianist octave metronome tempo arpeggio recital staff key harmony|musical melodic harmonic staccato tuneful
car repair|jumpstart rotate lubricate torque tow|engine battery sparkplug radiator alternator car transmission exhaust piston windshield bumper garage mechanic dipstick|automotive oily overheated mechanical stalled
dog training|train leash reward walk groom|dog puppy treat collar bark kennel paw obedience clicker tail crate breed bone trainer|obedient furry playful barking housebroken
sewing|sew hem baste iron tailor|fabric thread seam zipper button thimble cotton hemline dress bodice lining sleeve spool scissors|pleated stitched linen frayed tailored
skiing|ski slalom carve glide snowplow|slope snow lift binding pole mogul powder chalet goggle avalanche lodge gondola resort glove|snowy icy alpine steep frosty
pottery|throw glaze fire mold trim|clay kiln pot vase ceramic bowl slip potter stoneware porcelain teapot earthenware kickwheel bisque|glazed earthen speckled matte hollow
budgeting|save invest budget spend deposit|money bank loan interest savings income expense debt mortgage paycheck tax account retirement dividend|financial frugal monthly taxable fiscal
wine making|ferment crush bottle age decant|wine grape barrel vineyard cork cellar vintage tannin merlot chardonnay bouquet sommelier grapevine winery|fermented fruity tannic oaky corked
running|run jog sprint stretch pace|marathon runner sneaker stopwatch stride mile finishline blister shoelace calf hamstring warmup race treadmill|sweaty breathless fast winded athletic
first aid|bandage splint disinfect soothe resuscitate|wound bruise fracture antiseptic gauze ambulance nurse tourniquet burn pulse patient sprain ointment clinic|sterile injured swollen bleeding medical
beer brewing|malt mash sparge carbonate siphon|beer hops barley ale lager keg wort brewery airlock fermenter stout pint tap hydrometer|hoppy malty foamy bubbly brewed
origami|fold crease unfold tuck flip|paper crane corner diagonal swan square origami lily flap edge dragon kite pleat booklet|folded papery symmetrical creased delicate
cheese making|curdle culture press ripen salt|cheese curd rennet whey cheddar brie mozzarella cheesecloth rind goat parmesan dairy gouda ricotta|cheesy creamy aged moldy tangy
climbing|climb belay rappel ascend grip|quickdraw harness carabiner cliff boulder summit chalk crag ledge peak crampon piton overhang foothold|rocky vertical exposed craggy steepest
rocket building|launch ignite propel stage detonate|rocket fuel nozzle thruster payload astronaut spacecraft capsule satellite booster propellant telemetry launchpad nosecone|explosive orbital supersonic liquid pressurized
horse riding|ride gallop trot bridle mount|horse stable rein stirrup pony mare hoof bridlepath jockey barn hay foal stallion paddock|equestrian spirited galloping tame maned
typography|typeset kern print justify italicize|font serif letter headline margin paragraph glyph ligature poster printer ink page column typeface|bold italic legible printed condensed
sushi making|slice roll garnish marinate dip|sushi rice nori tuna wasabi soy chopstick ginger seaweed sashimi eel avocado roe bento|raw vinegared seasoned savory japanese
electronics|wire power ground amplify etch|resistor capacitor circuit transistor diode breadboard voltage multimeter sensor soldering led microchip inductor relay|electric conductive digital shorted soldered
dancing|dance spin twirl sway leap|waltz tango ballet dancer choreography partner rhythm ballroom salsa pirouette footwork tutu heel costume|graceful rhythmic elegant nimble poised
fiction writing|write edit outline narrate revise|novel chapter plot character dialogue author manuscript scene villain hero draft narrator publisher story|fictional literary suspenseful poetic tragic
birdwatching|spot identify listen band perch|bird binoculars nest feather warbler eagle hawk owl sparrow beak wing birdsong flock wetland|feathered migratory rare plumed winged
soap making|saponify lather scent cure stir|soap lye glycerin lavender oil fragrance bar bathroom bubble tallow shea exfoliant castile lard|soapy fragrant moisturizing slick scented
"""


@dataclass(frozen=True)
class Topic:
    """One subject of the organism's world, with the words that belong to it and to no other topic."""

    name: str
    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """All content words, verbs first."""
        return self.verbs + self.nouns + self.adjectives


@cache
def topics() -> tuple[Topic, ...]:
    """The forty topics in their fixed order. Raises `UserError` when a word belongs to two of them."""
    found: list[Topic] = []
    owner: dict[str, str] = {}
    for line in _TABLE.strip().splitlines():
        name, verbs, nouns, adjectives = line.split("|")
        topic = Topic(name, tuple(verbs.split()), tuple(nouns.split()), tuple(adjectives.split()))
        for word in topic.words:
            if word in owner:
                raise UserError(
                    "A content word belongs to exactly one topic",
                    f"{word!r} in {owner[word]!r} and {name!r}",
                    "Change one of the two word lists in topics.py",
                )
            owner[word] = name
        found.append(topic)
    return tuple(found)
