"""Words in the street: shop fronts, road signs, vans, and the board of a station."""

from __future__ import annotations

from corpus.rendered.fonts import Print
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Question, Sheet
from corpus.rendered.people import company, shop, telephone, town
from corpus.rendered.street import (
    DARK,
    FACES,
    PAIRS,
    WALLS,
    arrow,
    beside,
    framed,
    hang,
    plate,
    posts,
    street,
)

WAYS = {"left": "Left", "right": "Right", "up": "Straight on"}
AMBER = (250, 190, 70)


def shop_front(lot: Lot) -> Sheet:
    """A shop: its name over the window, and what hangs at its door."""
    name, _ = shop(lot)
    facts = {"shop": name, "state": lot.one(("Open", "Closed")), "house": str(lot.between(1, 240))}
    face, (ground, ink) = lot.one(FACES), lot.one(PAIRS)
    board = plate([(name, Print(face, lot.between(22, 30), bold=True))], ground, ink)
    width, top = max(340, board.width + lot.between(40, 90)), lot.between(30, 60)
    paper = Paper(width, top + board.height + lot.between(190, 230), ground=lot.one(WALLS))
    bottom = paper.height - 24
    paper.pen.rectangle((0, bottom, width, paper.height), fill=(150, 146, 140))
    under = top + board.height + 16
    door = width - lot.between(110, 130)
    paper.pen.rectangle((24, under, door - 24, bottom - 34), fill=(206, 226, 234), outline=DARK, width=3)
    paper.pen.line((door // 2, under, door // 2, bottom - 34), fill=DARK, width=2)
    paper.pen.rectangle((door, under, width - 28, bottom), fill=ground, outline=DARK, width=3)
    hang(paper, board, (0, top, width, top + board.height))
    small = plate([(facts["state"], Print("roboto", 15, bold=True))], (255, 255, 255), (20, 20, 20), pad=8)
    hang(paper, small, (door, under + 24, width - 28, under + 24 + small.height), lot.between(-8, 8))
    number = plate([(facts["house"], Print("serif", 17))], (20, 40, 110), (255, 255, 255), pad=7)
    hang(paper, number, (width - 78, top - 26 if top > 40 else 2, width - 10, top - 2))
    asked = (
        Question("shop", (), "What is the name of the shop?", name),
        Question("state", (), "What does the sign at the door say?", facts["state"]),
        Question("open", (), "Is the shop open?", "Yes" if facts["state"] == "Open" else "No"),
        Question("house", (), "What is the number of the house?", facts["house"]),
    )
    return Sheet("shop front", facts, paper, asked)


def road(lot: Lot) -> Sheet:
    """A road sign with towns, distances and arrows."""
    count = lot.between(2, 3)
    towns = lot.apart([lambda: town(lot)] * count)
    far = lot.some(range(2, 180), count)
    ways = [lot.one(tuple(WAYS)) for _ in towns]
    facts = {name: (way, length) for name, way, length in zip(towns, ways, far, strict=True)}
    writing = Print(lot.one(("roboto", "sans")), lot.between(19, 24), bold=lot.chance(60))
    ground, ink = lot.one(PAIRS[:4])
    wide = 60 + max(map(writing.length, towns)) + 28 + max(writing.length(f"{length} km") for length in far) + 18
    sign = Paper(wide, 60 + 50 * count, margin=14, ground=ground)
    sign.ink = ink
    for name, (way, length) in facts.items():
        base = sign.y + writing.size + 6
        arrow(sign.pen, (32, base - writing.size // 3), writing.size + 4, way, ink)
        sign.put(60, base, name, writing)
        sign.put(wide - 18, base, f"{length} km", writing, side="right")
        sign.note(f"{name} {length} km")
        sign.y += writing.size + 20
    sign.cut()
    width, height, box = beside(lot, framed(sign))
    paper = street(lot, width, height)
    posts(paper, box, 2)
    hang(paper, sign, box, lot.between(-2, 2))
    asked = []
    for name, (way, length) in facts.items():
        asked.append(Question("way", (name,), f"Which way is it to {name}?", WAYS[way], also=(f"to the {way}",)))
        asked.append(Question("far", (name,), f"How far is it to {name}?", f"{length} km", also=(str(length),)))
    nearest = min(facts, key=lambda name: facts[name][1])
    asked.append(Question("nearest", (), "Which town on the sign is nearest?", nearest))
    asked.append(
        Question(
            "farthest", (), "Which town on the sign is farthest away?", max(facts, key=lambda name: facts[name][1])
        )
    )
    return Sheet("road sign", facts, paper, tuple(asked))


def van(lot: Lot) -> Sheet:
    """A van of a firm."""
    number = lot.draw(
        lambda: "".join(lot.one("ABCDEFGHKLMNPRSTUVWXYZ") for _ in range(3)) + f" {lot.between(100, 999)}"
    )
    facts = {"company": company(lot), "phone": telephone(lot), "plate": number}
    writing = Print(lot.one(FACES), lot.between(21, 27), bold=True)
    small, tag = Print("roboto", 18), Print("sans", 14, bold=True)
    length = max(writing.length(facts["company"]), 200) + 60
    paper = street(lot, length + 150, 330)
    ground, ink = lot.one(PAIRS)
    left, top, bottom = lot.between(20, 40), lot.between(90, 120), 258
    right, nose = left + length, left + length + 78
    cab = [(right, top + 20), (right + 42, top + 20), (nose, top + 80), (nose, bottom), (right, bottom)]
    paper.pen.polygon(cab, fill=ground, outline=DARK)
    paper.pen.polygon(
        [(right + 10, top + 30), (right + 38, top + 30), (nose - 12, top + 76), (right + 10, top + 76)],
        fill=(206, 226, 234),
    )
    paper.pen.rectangle((left, top, right, bottom), fill=ground, outline=DARK, width=2)
    for x in (left + 60, right + 10):
        paper.pen.ellipse((x - 28, bottom - 26, x + 28, bottom + 30), fill=DARK)
        paper.pen.ellipse((x - 12, bottom - 10, x + 12, bottom + 14), fill=(190, 190, 190))
    paper.put((left + right) // 2, top + 52, facts["company"], writing, side="middle", ink=ink)
    paper.put((left + right) // 2, top + 84, f"Tel. {facts['phone']}", small, side="middle", ink=ink)
    paper.note(facts["company"])
    paper.note(f"Tel. {facts['phone']}")
    registration = plate([(number, tag)], (255, 255, 255), (20, 20, 20), pad=6)
    place = (left + right) // 2 + 20
    hang(paper, registration, (place, bottom - 42, place + registration.width, bottom - 42 + registration.height))
    asked = (
        Question("company", (), "Whose van is this?", facts["company"]),
        Question("phone", (), "Which telephone number is on the van?", facts["phone"]),
        Question("plate", (), "What is the registration number of the van?", number),
    )
    return Sheet("van", facts, paper, asked)


def departures(lot: Lot) -> Sheet:
    """The board of a station."""
    count = lot.between(3, 4)
    towns = lot.apart([lambda: town(lot)] * count)
    minutes = sorted(lot.some(range(6 * 60, 22 * 60), count))
    tracks = lot.some(range(1, 13), count)
    facts = {
        name: (f"{minute // 60:02d}:{minute % 60:02d}", str(track))
        for name, minute, track in zip(towns, minutes, tracks, strict=True)
    }
    writing = Print(lot.one(("till", "mono", "roboto")), lot.between(18, 22))
    wide = max(map(writing.length, towns)) + 240
    board = Paper(wide, 400, margin=20, ground=(24, 26, 32))
    board.ink = AMBER
    right = wide - 20
    board.cells([(20, "Time", "left"), (110, "To", "left"), (right, "Platform", "right")], Print("roboto", 15))
    board.skip(6)
    for name, (time, track) in facts.items():
        board.cells([(20, time, "left"), (110, name, "left"), (right, track, "right")], writing, leading=1.6)
    board.cut()
    width, height, box = beside(lot, board, below=50)
    paper = Paper(width, height, ground=lot.one(WALLS))
    hang(paper, board, box)
    asked = [
        Question("first", (), "Where does the first train on the board go?", towns[0]),
        Question("trains", (), "How many trains are on the board?", str(count)),
    ]
    for name, (time, track) in facts.items():
        asked.append(Question("time", (name,), f"At what time does the train to {name} leave?", time))
        asked.append(
            Question(
                "track",
                (name,),
                f"From which platform does the train to {name} leave?",
                track,
                also=(f"Platform {track}",),
            )
        )
    return Sheet("departures", facts, paper, tuple(asked))
