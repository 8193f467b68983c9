"""Food webs by habitat, of which diagrams show parts. Written by us; what is not named as an eater is a
plant or something else that nothing here needs to feed."""

from __future__ import annotations


def _parsed(lines: str) -> dict[str, tuple[str, ...]]:
    """Eater -> what it eats, from lines such as "fox: rabbit, vole"."""
    pairs = (line.split(":") for line in lines.strip().splitlines())
    return {eater.strip(): tuple(food.strip() for food in foods.split(",")) for eater, foods in pairs}


HABITATS = {
    "meadow": _parsed("""
        grasshopper: grass, clover
        rabbit: grass, clover, dandelion
        vole: grass, clover
        caterpillar: clover, dandelion
        field mouse: grass, grasshopper
        shrew: grasshopper, caterpillar
        frog: grasshopper, caterpillar
        skylark: caterpillar, grasshopper
        weasel: vole, rabbit, field mouse
        fox: rabbit, vole, field mouse
        grass snake: frog
        kestrel: vole, field mouse, shrew
        buzzard: rabbit, vole, grass snake
    """),
    "pond": _parsed("""
        water flea: algae
        tadpole: algae
        pond snail: algae, pondweed
        mosquito larva: algae
        mallard: pondweed, pond snail
        dragonfly larva: tadpole, mosquito larva, water flea
        stickleback: water flea, mosquito larva
        newt: tadpole, water flea
        diving beetle: tadpole, stickleback
        perch: stickleback, dragonfly larva
        kingfisher: stickleback
        heron: perch, newt
        pike: perch, stickleback
        otter: perch, pike
    """),
    "sea": _parsed("""
        krill: plankton
        limpet: kelp
        sea urchin: kelp
        herring: krill
        squid: krill, herring
        penguin: krill, squid
        cod: herring
        crab: limpet
        octopus: crab
        sea otter: sea urchin, crab
        seal: herring, squid, cod
        gull: herring
        blue whale: krill
        orca: seal, penguin, sea otter
    """),
    "forest": _parsed("""
        caterpillar: oak leaves
        beetle: oak leaves
        squirrel: acorns
        wood mouse: acorns, berries
        deer: oak leaves, berries
        wild boar: acorns, beetle
        blue tit: caterpillar
        thrush: beetle, berries
        owl: wood mouse, thrush
        sparrowhawk: blue tit, thrush
        marten: squirrel, wood mouse
        lynx: deer
        wolf: deer, wild boar
    """),
    "savanna": _parsed("""
        zebra: grass
        antelope: grass
        termite: grass
        giraffe: acacia
        elephant: grass, acacia
        aardvark: termite
        mongoose: termite
        lion: zebra, antelope, giraffe
        cheetah: antelope
        hyena: zebra, antelope
        eagle: mongoose
        leopard: antelope, aardvark
    """),
    "tundra": _parsed("""
        reindeer: lichen, dwarf willow
        lemming: dwarf willow, sedge
        arctic hare: dwarf willow
        musk ox: sedge, dwarf willow
        ptarmigan: dwarf willow
        snowy owl: lemming
        ermine: lemming
        arctic fox: lemming, ptarmigan, arctic hare
        wolf: reindeer, arctic hare, musk ox
        gyrfalcon: ptarmigan
    """),
    "desert": _parsed("""
        kangaroo rat: seeds
        locust: desert shrub
        jackrabbit: desert shrub, cactus
        tortoise: cactus
        harvester ant: seeds
        horned lizard: harvester ant
        scorpion: locust
        rattlesnake: kangaroo rat, horned lizard
        roadrunner: horned lizard, scorpion
        coyote: jackrabbit, kangaroo rat
        hawk: rattlesnake, jackrabbit
    """),
    "garden": _parsed("""
        slug: lettuce
        snail: lettuce
        aphid: rose
        caterpillar: lettuce
        ladybird: aphid
        spider: aphid
        hedgehog: slug, caterpillar
        song thrush: snail
        blackbird: slug, caterpillar
        robin: spider, caterpillar
        toad: slug, spider
        cat: blackbird, song thrush, robin
    """),
}
"""Place -> eater -> what it eats there."""
