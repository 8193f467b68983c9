"""One clean sentence about one drawing, made from its name (or a keyword that names a thing), category and colour."""

from __future__ import annotations

import random

from lorgnette.data.builtin.drawings import Drawing


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WITHOUT_ARTICLE = {
    "food",
    "stationery",
    "people",
    "men",
    "women",
    "children",
    "feet",
    "furniture",
    "money",
    "jewelry",
    "kids",
}
OPENINGS = ("A drawing of {thing}", "A picture of {thing}", "This is {thing}", "This drawing shows {thing}")
COLOUR_WORDS = _words(
    """
    red orange yellow green blue purple pink brown black grey gray white gold golden silver
    """
)
THINGS = _words(
    """
    airplane amphibian apple arrow baby ball balloon banana bat battery bear bee beverage bike bird boat book
    bottle box bread building bulb bus butterfly button cake camera candle candy car castle cat chair cheese
    chicken chipmunk church clock cloud coffee coin compass cow crab crown cup deer dessert dice dinosaur dog
    dolphin donkey dragon drink drum duck eagle egg elephant envelope face feline fish flag flower folder football
    frog fruit furniture game garden gift girl glass globe guitar gun hammer hat heart helmet horse house insect
    instrument island jewelry key keyboard kitten knife lamp laptop leaf lemon lightbulb lighthouse lion lizard
    lock man map meat milk monitor monkey moon mountain mouse mushroom necklace note orange owl padlock paper pear
    pen pencil penguin phone piano pie pig pizza planet potato printer puzzle rabbit radio reptile rhinoceros ring
    rocket rose sandwich saw scarecrow scissors screwdriver server shark sheep shield ship shoe skeleton skull
    snail snake snowman spider spiral square squirrel stamp star sun sunflower sword table tank tea telephone
    television tent tiger tomato train tree triangle truck trumpet turkey turtle umbrella vegetable violin wasp
    watch watermelon weapon whale wheel window wolf woman
    """
)
"""Keywords that name what is to be seen: used where a drawing has no name of its own."""


def caption(row: Drawing, rng: random.Random) -> str:
    """A sentence such as "A drawing of a red apple, a kind of food." """
    name = row.name or next((word for word in row.keywords if word in THINGS), None) or row.category
    if name is None:
        return f"{with_article(_coloured('drawing', row.colour), 'drawing').capitalize()}."
    thing = with_article(_coloured(name, row.colour), name)
    sentence = rng.choice(OPENINGS).format(thing=thing)
    if row.category and row.category not in name.split():
        sentence += f", {kind_of(row.category)}"
    return sentence + "."


def kind_of(category: str) -> str:
    """Phrase by which a caption mentions the category: "a kind of food", "a person"."""
    return "a person" if category == "person" else f"a kind of {category}"


def _coloured(name: str, colour: str | None) -> str:
    return name if colour is None or COLOUR_WORDS & set(name.split()) else f"{colour} {name}"


def with_article(phrase: str, name: str) -> str:
    """ "a red apple", "an orange boat", "red apples", "food". `name` is the phrase without its colour."""
    head = name.split(" of ")[0].split(" with ")[0].split()[-1]
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is"))
    if plural or head in WITHOUT_ARTICLE:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
