"""Words on goods: jars, books, price boards and shirts."""

from __future__ import annotations

from corpus.rendered.fonts import Print
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Question, Sheet
from corpus.rendered.people import day, money, person, surname, town
from corpus.rendered.street import DARK, FACES, PAIRS, WALLS, WOOD, beside, framed, hang, plate, wall
from corpus.rendered.texts import ADJECTIVES
from corpus.rendered.words import THINGS, priced

FRUITS = (
    "Plum",
    "Cherry",
    "Apricot",
    "Quince",
    "Orange",
    "Apple",
    "Pear",
    "Blackberry",
    "Tomato",
    "Onion",
    "Pepper",
    "Fig",
)
MADE = ("Jam", "Chutney", "Jelly", "Relish", "Syrup", "Butter")
FILLINGS: tuple[tuple[int, int, int], ...] = (
    (150, 30, 50),
    (200, 120, 40),
    (120, 60, 110),
    (90, 120, 50),
    (180, 60, 30),
)
TOPS: tuple[tuple[int, int, int], ...] = ((178, 148, 120), (150, 160, 150), (196, 184, 160))


def jar(lot: Lot) -> Sheet:
    """A jar with a label."""
    facts = {
        "what": lot.one(FRUITS) + " " + lot.one(MADE),
        "maker": f"{surname(lot)} & {lot.one(('Sons', 'Daughters', 'Partners'))}",
        "weight": f"{50 * lot.between(3, 19)} g",
        "until": str(day(lot, 2022, 2029)),
    }
    face = lot.one(("slab", "serif", "garamond", "poster"))
    small = Print("roboto", 14)
    lines = [
        (facts["maker"], small),
        (facts["what"], Print(face, lot.between(22, 27), bold=True)),
        (facts["weight"], small),
    ]
    label = plate([*lines, (f"Best before {facts['until']}", small)], *lot.one(PAIRS), pad=16)
    wide, tall = label.width + 36, label.height + 100
    width, height = wide + lot.between(60, 140), tall + 96
    paper = Paper(width, height, ground=lot.one(WALLS))
    paper.pen.rectangle((0, height - 46, width, height), fill=lot.one(TOPS))
    left, top = (width - wide) // 2, 52
    paper.pen.rounded_rectangle((left, top, left + wide, top + tall), 26, fill=lot.one(FILLINGS), outline=DARK, width=2)
    paper.pen.rectangle((left + 16, top - 26, left + wide - 16, top + 8), fill=(210, 180, 90), outline=DARK, width=2)
    hang(paper, label, (left, top + 40, left + wide, top + 40 + label.height))
    asked = (
        Question("what", (), "What is in the jar?", facts["what"]),
        Question("maker", (), "Who made what is in the jar?", facts["maker"]),
        Question("weight", (), "How much does the jar hold?", facts["weight"]),
        Question("until", (), "Until which date is it best?", facts["until"]),
    )
    return Sheet("jar", facts, paper, asked)


def book(lot: Lot) -> Sheet:
    """A book on a table."""
    title = lot.draw(lambda: _title(lot))
    facts = {"title": title, "author": person(lot), "house": f"{town(lot)} Press"}
    face = lot.one((*FACES, "garamond"))
    writing, plain = Print(face, lot.between(26, 32), bold=True), Print(face, 18)
    words = title.split()
    lines = [(" ".join(words[:2]), writing), (" ".join(words[2:]), writing)]
    ground, ink = lot.one(PAIRS)
    wide = max(plain.length(facts["author"]), *(writing.length(text) for text, _ in lines)) + 70
    cover = Paper(wide, 900, margin=30, ground=ground)
    cover.ink = ink
    cover.line(facts["author"], plain, side="middle")
    cover.skip(lot.between(16, 40))
    for text, style in lines:
        cover.line(text, style, side="middle")
    cover.skip(lot.between(60, 110))
    cover.line(facts["house"], Print(face, 15), side="middle")
    cover.cut()
    width, height, box = beside(lot, framed(cover), below=40)
    paper = Paper(width + 20, height + 10, ground=lot.one(TOPS))
    hang(paper, cover, (box[0] + 8, box[1] + 8, box[2] + 8, box[3] + 8), lot.between(-8, 8))
    asked = (
        Question("title", (), "What is the title of the book?", title),
        Question("author", (), "Who wrote the book?", facts["author"]),
        Question("house", (), "Who published the book?", facts["house"]),
    )
    return Sheet("book cover", facts, paper, asked)


def _title(lot: Lot) -> str:
    """Four words, such as "The Quiet Ladders of ..." without an end."""
    thing, other = lot.some(THINGS, 2)
    adjective = lot.one(ADJECTIVES).capitalize()
    pattern = lot.one(
        ("The {0} {1} Return", "My {0} {1} Today", "Seven {0} {1} Waiting", "No {0} {1} Here", "{1} and {0} {2}")
    )
    return pattern.format(adjective, thing.capitalize(), other.capitalize())


def prices(lot: Lot) -> Sheet:
    """A board with prices, in chalk or in print."""
    kind = lot.one(("bakery", "cafe", "garden", "grocery"))
    chosen = lot.some(priced(kind), lot.between(3, 5))
    owner = surname(lot)
    facts = {name: f"${money(10 * (price * lot.between(80, 130) // 1000) + 10)}" for name, price in chosen}
    writing = Print(lot.one(("marker", "slab", "poster", "roboto")), lot.between(19, 23))
    ground, ink = lot.one((*PAIRS[:3], ((40, 44, 48), (240, 240, 230)), ((40, 44, 48), (240, 240, 230))))
    heading = f"{owner}'s stall"
    wide = (
        max(writing.length(heading), max(writing.length(name) for name in facts) + writing.length("$00.00") + 30) + 44
    )
    board = Paper(wide, 500, margin=22, ground=ground)
    board.ink = ink
    board.line(heading, writing, side="middle", leading=1.8)
    for name, price in facts.items():
        board.cells([(22, name, "left"), (wide - 22, price, "right")], writing, leading=1.6)
    board.cut()
    framed(board)
    width, height, box = beside(lot, board, below=50)
    paper = wall(lot, width, height)
    paper.pen.rectangle((box[0] - 7, box[1] - 7, box[2] + 7, box[3] + 7), fill=WOOD)
    hang(paper, board, box)
    asked = [Question("owner", (), "Whose stall is this?", f"{owner}'s", also=(owner,))]
    asked += [Question("price", (name,), f'What does "{name}" cost?', price) for name, price in facts.items()]
    amounts = sorted(facts.values(), key=_cents)
    for form, word, price in (("cheapest", "cheapest", amounts[0]), ("dearest", "most expensive", amounts[-1])):
        names = [name for name in facts if facts[name] == price]
        if len(names) == 1:
            asked.append(Question(form, (), f"What is the {word} thing on the board?", names[0]))
    return Sheet("prices", {"owner": owner, **facts}, paper, tuple(asked))


def _cents(price: str) -> int:
    return int(price.lstrip("$").replace(".", ""))


def shirt(lot: Lot) -> Sheet:
    """A shirt of a player, from behind."""
    facts = {"player": surname(lot), "number": str(lot.between(1, 99))}
    ground, ink = lot.one(PAIRS)
    writing, large = Print(lot.one(("poster", "roboto", "slab")), 24, bold=True), Print("poster", lot.between(80, 104))
    name = facts["player"].upper()
    half = max(writing.length(name) // 2 + 22, 92)
    middle = half + lot.between(80, 110)
    paper = wall(lot, 2 * middle, 350)
    neck, hem = 40, 316
    sleeve = [(middle - half, neck + 16), (middle - half - 62, neck + 92), (middle - half - 22, neck + 118)]
    left = [(middle - 34, neck), *sleeve, (middle - half, neck + 92), (middle - half, hem)]
    right = [(2 * middle - x, y) for x, y in reversed(left)]
    paper.pen.polygon([*left, *right], fill=ground, outline=DARK)
    paper.put(middle, neck + 62, name, writing, side="middle", ink=ink)
    paper.put(middle, neck + 200, facts["number"], large, side="middle", ink=ink)
    paper.note(name)
    paper.note(facts["number"])
    asked = (
        Question("player", (), "Which name is on the shirt?", name),
        Question("number", (), "Which number is on the shirt?", facts["number"]),
    )
    return Sheet("shirt", facts, paper, asked)
