"""Sentences and paragraphs made of our own patterns. A sentence, as it stands, belongs to one split."""

from __future__ import annotations

import re
from itertools import islice

from corpus.rendered.lot import Lot
from corpus.rendered.people import surname, town
from corpus.rendered.words import JOBS, MONTHS, THINGS, WEEKDAYS

BUSINESS = """
We thank you for your letter of {day} {month}.
Your order of {number} {things} left our store on {weekday}.
The parcel weighs {number} kilograms and needs two people to carry it.
Please check the {things} and tell us about any damage within {few} days.
The next delivery to {town} is planned for {day} {month}.
We can offer you {number} more {things} at the same price.
Mr {surname} will visit your office on {weekday} at {hour} o'clock.
Ms {surname} has taken over the work of our {job}.
The price of {things} will rise by {few} per cent in {month}.
Our shop in {town} will be closed from {day} to 28 {month}.
The invoice must be paid before the end of {month}.
We regret that {few} of the {things} were broken on the way.
The {things} that you returned have been repaired at no cost.
Your new card will be ready at the desk after {day} {month}.
A copy of the contract is kept at our office in {town}.
The meeting about the {things} has been moved to {weekday}.
We have found the {things} that you left in room {number}.
Please send us the signed form by {day} {month}.
The repair of the roof will take about {few} weeks.
The {job} whom you asked for is free on {weekday}.
All {things} are sold with a guarantee of {few} years.
There is still {word} room for {number} guests in the hall.
The water will be turned off on {weekday} from {hour} to 12 o'clock.
Our {job} will explain the plan to the people of {town}.
The old {things} may be left at the gate before {weekday}.
You will find {number} {things} in the blue box.
We would be glad to hear from you before {month}.
The report of the {job} is {number} pages long.
Half of the {things} went to the school in {town}.
Please bring {few} copies of this letter with you.
""".strip().splitlines()

STORY = """
The {job} of {town} had never seen so many {things}.
In {month} the road to {town} was covered with snow.
{few} {adjective} {things} lay on the floor of the kitchen.
A {cold} wind came up from the river of {town} at night.
Old {surname} kept {number} {things} in the attic.
The train was late, and nobody in {town} knew why.
She counted the {things} twice and wrote the number down.
On {weekday} the market was full of {adjective} {things}.
The {job} opened the door and looked at the {cold} sky over {town}.
They walked for {few} hours before they saw the lights of {town}.
Nobody spoke while the {job} mended the {things}.
The house at the corner had {few} {adjective} windows.
His brother had been a {job} in {town} for {few} years.
There was a smell of bread and new {things} in the house of {surname}.
The children of {town} painted the {things} green.
By {month} the garden of {surname} was green again.
A letter lay under the {things}, and it was not signed.
The {cold} dog of the {job} slept beside the {things}.
It rained in {town} for {few} days without a break.
Someone had left {number} {things} at the station.
The {job} and the {other} shared one {adjective} table.
Every {weekday} the bell of {town} rang {few} times.
Mrs {surname} sold {adjective} {things} at the bridge for {few} years.
The map showed {number} houses, but only {few} were left.
He put the {adjective} {things} into his bag and went home.
""".strip().splitlines()

NOTES = """
buy {few} {things}
call {surname} on {weekday}
return the {adjective} {things}
ask the {job} about the {things}
meet {surname} at {hour} o'clock
write to {town}
paint the {things} in the hall of {town}
count the {things} again
book {few} seats for {weekday}
water the plants
mend the {adjective} {things}
take {few} {things} to {surname}
find the key of room {number}
pay the {job} before {weekday}
clean the {things} in the hall
pick up {number} {things} in {town}
send the {things} back
visit {surname} in {month}
""".strip().splitlines()

DUTIES = """
Looked after {number} {things} and the people who use them
Planned the work of {few} colleagues
Wrote a guide to {adjective} {things}
Taught {number} trainees in {few} years
Kept the accounts of the branch in {town}
Bought {things} for {few} workshops
Led the move of the office to {town}
Repaired and tested {number} {things} a year
Answered letters about {adjective} {things}
Drew up the plans for {number} {adjective} {things}
Sorted and listed {number} {things}
Met suppliers of {things} in {town}
""".strip().splitlines()

ADJECTIVES = """
blue brown clean cold dark dry dusty empty full green grey heavy high hot large light little long low narrow new old
open painted plain quiet red round sharp short silver slow small smooth soft square strong tall thin warm wet white wide
wooden yellow young
""".split()
FEW = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SOME = ("some", "enough", "only a little", "not much")


def filled(lot: Lot, pattern: str) -> str:
    """A pattern with its places filled."""
    job, other = lot.some(JOBS, 2)
    words = {
        "day": str(lot.between(1, 27)),
        "month": lot.one(MONTHS),
        "weekday": lot.one(WEEKDAYS),
        "number": str(lot.between(11, 99)),
        "few": lot.one(FEW),
        "word": lot.one(SOME),
        "hour": lot.one(("eight", "nine", "ten", "eleven")),
        "things": lot.one(THINGS),
        "adjective": lot.one(ADJECTIVES),
        "cold": lot.one(
            ("cold", "dark", "grey", "quiet", "slow", "white", "wet", "young", "old", "strange", "wild", "tired")
        ),
        "job": job,
        "other": other,
    }
    if "{town}" in pattern:
        words["town"] = town(lot)
    if "{surname}" in pattern:
        words["surname"] = surname(lot)
    text = re.sub(r"\{(\w+)\}", lambda match: words[match[1]], pattern)
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return text[0].upper() + text[1:]


def sentence(lot: Lot, patterns: list[str]) -> str:
    return lot.draw(lambda: filled(lot, lot.one(patterns)))


def paragraph(lot: Lot, patterns: list[str], sentences: int) -> str:
    """Sentences of different patterns."""
    return " ".join(different(lot, patterns, sentences))


def paragraphs(lot: Lot, patterns: list[str], lengths: list[int]) -> tuple[str, ...]:
    """Paragraphs of so many sentences each, no two sentences of one pattern."""
    waiting = iter(different(lot, patterns, sum(lengths)))
    return tuple(" ".join(islice(waiting, length)) for length in lengths)


def different(lot: Lot, patterns: list[str], count: int) -> list[str]:
    """`count` sentences, no two of one pattern."""
    left, made = list(patterns), []
    for _ in range(count):
        text, pattern = lot.draw(lambda: _with_pattern(lot, left), identity=lambda pair: pair[0])
        left.remove(pattern)
        made.append(text)
    return made


def _with_pattern(lot: Lot, patterns: list[str]) -> tuple[str, str]:
    pattern = lot.one(patterns)
    return filled(lot, pattern), pattern


def listed(words: list[str] | tuple[str, ...]) -> str:
    """Words as a sentence lists them: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
