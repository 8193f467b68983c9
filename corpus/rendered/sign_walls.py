"""Words on walls and doors: notices, street names, opening hours, posters and door plates."""

from __future__ import annotations

from corpus.rendered.fonts import Print
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Question, Sheet
from corpus.rendered.people import day, money, person, shop, town
from corpus.rendered.people import street as street_of
from corpus.rendered.street import (
    DARK,
    FACES,
    PAIRS,
    WOOD,
    beside,
    framed,
    hang,
    plate,
    posts,
    street,
    wall,
)
from corpus.rendered.words import JOBS, THINGS, WEEKDAYS

RULES = (
    ("No {things}", "beyond this point"),
    ("Please return", "the {things}"),
    ("Do not touch", "the {things}"),
    ("Danger!", "Falling {things}"),
    ("Beware of", "the {things}"),
    ("Please leave", "{things} here"),
    ("Keep {things}", "off the {place}"),
    ("Free {things}", "for visitors"),
    ("{things}", "for sale"),
    ("Lost {things}?", "Ask at the {place}"),
    ("No entry", "to the {place}"),
    ("This way", "to the {place}"),
    ("{place} closed", "until {weekday}"),
    ("Quiet, please", "{place} in use"),
)
PLACES = (
    "gate",
    "garden",
    "harbour",
    "hall",
    "kitchen",
    "library",
    "office",
    "bridge",
    "stairs",
    "station",
    "tower",
    "yard",
)
EVENTS = (
    "Concert",
    "Lecture",
    "Flea Market",
    "Puppet Show",
    "Dance",
    "Quiz Night",
    "Film Night",
    "Plant Sale",
    "Choir Evening",
)
SEASONS = ("Spring", "Summer", "Autumn", "Winter", "Open Air", "Family", "Grand", "Midnight", "Village")
ROOMS = ("Town Hall", "School Hall", "Library", "Old Mill", "Station", "Boat House", "Market Hall")


def notice(lot: Lot) -> Sheet:
    """A rule or a hint on a post."""
    lines = lot.draw(lambda: _rule(lot), identity=" ".join)
    face, size = lot.one(FACES), lot.between(22, 32)
    sign = plate([(line, Print(face, size, bold=True)) for line in lines], *lot.one(PAIRS), pad=20)
    width, height, box = beside(lot, sign)
    paper = street(lot, width, height)
    posts(paper, box, lot.between(1, 2))
    hang(paper, sign, box, lot.between(-5, 5))
    return Sheet("notice", {"notice": " ".join(lines)}, paper)


def _rule(lot: Lot) -> tuple[str, ...]:
    words = {"things": lot.one(THINGS), "place": lot.one(PLACES), "weekday": lot.one(WEEKDAYS)}
    lines = tuple(line.format(**words) for line in lot.one(RULES))
    lines = tuple(line[0].upper() + line[1:] if place == 0 else line for place, line in enumerate(lines))
    return tuple(line.upper() for line in lines) if lot.chance(50) else lines


def street_name(lot: Lot) -> Sheet:
    """The name of a street at a corner, with the numbers of its houses."""
    low = lot.between(1, 90)
    facts = {"street": street_of(lot), "numbers": f"{low}-{low + lot.between(4, 60)}"}
    face = lot.one(("roboto", "poster", "sans", "serif"))
    lines = [(facts["street"], Print(face, lot.between(22, 30), bold=True)), (facts["numbers"], Print(face, 18))]
    sign = plate(lines, *lot.one(PAIRS[:4]))
    width, height, box = beside(lot, sign)
    paper = street(lot, width, height) if lot.chance(50) else wall(lot, width, height)
    if paper.height - 14 > box[3] and lot.chance(60):
        posts(paper, box, 1)
    hang(paper, sign, box, lot.between(-4, 4))
    asked = (
        Question("street", (), "Which street is this?", facts["street"]),
        Question("numbers", (), "Which house numbers are on the sign?", facts["numbers"]),
    )
    return Sheet("street name", facts, paper, asked)


def hours(lot: Lot) -> Sheet:
    """Opening hours of a shop."""
    name, _ = shop(lot)
    first = lot.between(0, 3)
    days = WEEKDAYS[first : first + lot.between(3, 4)]
    closed = lot.one(days[1:])
    facts = {
        day: "closed" if day == closed else f"{lot.between(7, 11)}:00 - {lot.between(14, 20)}:{lot.one(('00', '30'))}"
        for day in days
    }
    face, size = lot.one(("roboto", "sans", "slab", "times")), lot.between(16, 20)
    plain, bold = Print(face, size), Print(face, round(size * 1.25), bold=True)
    times = max(map(plain.length, facts.values()))
    wide = max(bold.length(name), max(map(plain.length, days)) + times + 30) + 40
    sign = Paper(wide, 400, margin=20, ground=(ground_ink := lot.one(PAIRS))[0])
    sign.ink = ground_ink[1]
    sign.line(name, bold, side="middle")
    sign.line("Opening hours", plain, side="middle")
    sign.skip(6)
    for day_name, time in facts.items():
        sign.cells([(20, day_name, "left"), (wide - 20, time, "right")], plain)
    sign.cut()
    width, height, box = beside(lot, framed(sign), below=50)
    paper = wall(lot, width, height)
    hang(paper, sign, box, lot.between(-3, 3))
    asked = [
        Question("shop", (), "Whose opening hours are these?", name),
        Question("closed", (), "On which day is the shop closed?", closed),
    ]
    for day_name, time in facts.items():
        if time != "closed":
            opens, closes = time.split(" - ")
            asked.append(Question("opens", (day_name,), f"At what time does the shop open on {day_name}?", opens))
            asked.append(Question("closes", (day_name,), f"Until when is the shop open on {day_name}?", closes))
    return Sheet("hours", {"shop": name, **facts}, paper, tuple(asked))


def poster(lot: Lot) -> Sheet:
    """A poster of something that takes place."""
    facts = {
        "event": f"{lot.one(SEASONS)} {lot.one(EVENTS)}",
        "place": f"{lot.one(ROOMS)}, {town(lot)}",
        "day": f"{day(lot, 2012, 2024)}",
        "time": f"{lot.between(10, 20)}:{lot.one(('00', '15', '30'))}",
        "price": "free" if lot.chance(25) else f"${money(50 * lot.between(4, 40))}",
    }
    face = lot.one((*FACES, "marker"))
    small = Print("roboto" if face in ("marker", "poster") else face, 18)
    lines = [(word, Print(face, lot.between(30, 36), bold=True)) for word in facts["event"].rsplit(" ", 1)]
    lines += [(facts["place"], small), (facts["day"], small), (f"Starts at {facts['time']}", small)]
    entry = "Entry is free" if facts["price"] == "free" else f"Tickets {facts['price']}"
    sign = plate([*lines, (entry, small)], *lot.one(PAIRS), pad=26)
    width, height, box = beside(lot, sign, below=40)
    paper = wall(lot, width, height)
    hang(paper, sign, box, lot.between(-4, 4))
    asked = (
        Question("event", (), "What does the poster announce?", facts["event"]),
        Question("place", (), "Where does it take place?", facts["place"]),
        Question("day", (), "On which date does it take place?", facts["day"]),
        Question("time", (), "At what time does it start?", facts["time"]),
        Question(
            "price", (), "What does it cost to get in?", "It is free" if facts["price"] == "free" else facts["price"]
        ),
    )
    return Sheet("poster", facts, paper, asked)


def door(lot: Lot) -> Sheet:
    """A plate beside a door."""
    facts = {"name": person(lot), "job": lot.one(JOBS).capitalize(), "room": str(lot.between(1, 399))}
    face, size = lot.one(("serif", "times", "garamond", "roboto")), lot.between(20, 26)
    lines = [
        (facts["name"], Print(face, size, bold=True)),
        (facts["job"], Print(face, size - 3)),
        (f"Room {facts['room']}", Print(face, size - 4)),
    ]
    sign = plate(lines, *lot.one(PAIRS))
    width, height, box = beside(lot, sign, below=110)
    paper = wall(lot, width + 150, height)
    paper.pen.rectangle((width + 10, 30, width + 130, height), fill=WOOD, outline=DARK, width=3)
    paper.pen.ellipse((width + 22, height // 2, width + 36, height // 2 + 14), fill=(220, 190, 90))
    hang(paper, sign, box)
    asked = (
        Question("name", (), "Whose name is beside the door?", facts["name"]),
        Question("job", (), f"What is the profession of {facts['name']}?", facts["job"]),
        Question("room", (), "What is the number of the room?", facts["room"], also=(f"Room {facts['room']}",)),
    )
    return Sheet("door", facts, paper, asked)
