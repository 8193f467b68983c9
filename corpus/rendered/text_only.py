"""Questions without a picture: arithmetic, words, the calendar, small facts, and short texts to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corpus.rendered.facts import FACTS
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Question
from corpus.rendered.people import money
from corpus.rendered.reading import passage
from corpus.rendered.rows import Row, Said, instruct, rows, said
from corpus.rendered.texts import listed
from corpus.rendered.words import FIRST_NAMES, GOODS, JOBS, MONTHS, THINGS, WEEKDAYS, priced

VOWELS = "aeiou"


def make_text_only(split: str, count: int, seed: int) -> Iterator[Row]:
    """Conversations of one to three questions; one in four is about a short text."""
    return rows("text_only", split, count, seed, _row)


def _row(lot: Lot) -> Row:
    texts = passage(lot) if lot.chance(25) else _different(lot, lot.between(1, 3))
    return instruct(None, texts, "text_only")


def _different(lot: Lot, count: int) -> list[Said]:
    """Questions of different kinds."""
    return [said(lot, asked(lot, make)) for make in lot.some(MAKERS, count)]


def asked(lot: Lot, make: Callable[[Lot], Question]) -> Question:
    """A question of this split: its words belong to it."""
    return lot.draw(lambda: make(lot), identity=lambda question: question.text)


def _sum(lot: Lot) -> Question:
    one, two = lot.between(12, 989), lot.between(12, 989)
    text = lot.one(("What is {0} + {1}?", "Add {0} and {1}.", "How much is {0} plus {1}?")).format(one, two)
    return Question("sum", (str(one), str(two)), text, str(one + two))


def _difference(lot: Lot) -> Question:
    two = lot.between(12, 600)
    one = two + lot.between(1, 399)
    text = lot.one(("What is {0} - {1}?", "Take {1} away from {0}.", "How much is {0} minus {1}?")).format(one, two)
    return Question("difference", (str(one), str(two)), text, str(one - two))


def _product(lot: Lot) -> Question:
    """With the steps: tens first, then ones."""
    one, two = lot.between(12, 99), lot.between(3, 9)
    tens, ones = one // 10 * 10, one % 10
    text = lot.one(("What is {0} x {1}?", "Multiply {0} by {1}.", "How much is {0} times {1}?")).format(one, two)
    steps = f"{tens} x {two} = {tens * two}. {ones} x {two} = {ones * two}. {tens * two} + {ones * two} = {one * two}."
    return Question("product", (str(one), str(two)), text, str(one * two), steps)


def _division(lot: Lot) -> Question:
    by, times = lot.between(3, 19), lot.between(3, 39)
    rest = lot.between(0, by - 1)
    number = by * times + rest
    text = f"Divide {number} by {by}. What is the remainder?"
    steps = f"{by} x {times} = {by * times}. {number} - {by * times} = {rest}."
    return Question("remainder", (str(number), str(by)), text, str(rest), steps)


def _per_cent(lot: Lot) -> Question:
    rate, hundreds = 5 * lot.between(1, 15), 20 * lot.between(1, 60)
    part = rate * hundreds // 100
    text = f"What is {rate} % of {hundreds}?"
    steps = f"{rate} % of {hundreds} is {rate} x {hundreds} / 100 = {part}."
    return Question("per cent", (str(rate), str(hundreds)), text, str(part), steps)


def _more(lot: Lot) -> Question:
    amount = 10 * lot.between(3, 99)
    text = f"A number is {amount}. What is 10 % more?"
    steps = f"10 % of {amount} is {amount // 10}. {amount} + {amount // 10} = {amount + amount // 10}."
    return Question("tenth more", (str(amount),), text, str(amount + amount // 10), steps)


def _series(lot: Lot) -> Question:
    first, step = lot.between(1, 60), lot.between(2, 15)
    numbers = [first + step * place for place in range(4)]
    text = f"Which number comes next: {', '.join(map(str, numbers))}?"
    return Question("series", tuple(map(str, numbers)), text, str(numbers[-1] + step))


def _largest(lot: Lot) -> Question:
    numbers = lot.some(range(10, 999), lot.between(3, 5))
    word = lot.one(("largest", "smallest"))
    text = f"Which of these numbers is the {word}: {', '.join(map(str, numbers))}?"
    answer = max(numbers) if word == "largest" else min(numbers)
    return Question(word, tuple(map(str, numbers)), text, str(answer))


def _shopping(lot: Lot) -> Question:
    """Problem about the cost of several things, and the change."""
    (name, price), count = lot.one(priced(lot.one(sorted(GOODS)))), lot.between(2, 6)
    who, total = lot.one(FIRST_NAMES), count * price
    paid = (total // 1000 + 1) * 1000
    text = f"{who} buys {count} times {name} at ${money(price)} each and pays with ${money(paid)}. "
    text += f"How much change does {who} get?"
    steps = f"{count} x ${money(price)} = ${money(total)}. ${money(paid)} - ${money(total)} = ${money(paid - total)}."
    return Question("change", (str(count), money(price), money(paid)), text, f"${money(paid - total)}", steps)


def _clock(lot: Lot) -> Question:
    start, length = lot.between(6 * 60, 20 * 60), lot.between(5, 175)
    end = start + length
    text = f"A train leaves at {_time(start)} and travels for {length} minutes. When does it arrive?"
    hours = f"{length // 60} h {length % 60} min"
    steps = f"{length} minutes are {hours}. {_time(start)} and {hours} is {_time(end)}."
    return Question("clock", (_time(start), str(length)), text, _time(end), steps)


def _time(minute: int) -> str:
    return f"{minute // 60}:{minute % 60:02d}"


def _weekday(lot: Lot) -> Question:
    today, days = lot.between(0, 6), lot.between(1, 60)
    text = f"Today is {WEEKDAYS[today]}. Which day of the week is it in {days} {'day' if days == 1 else 'days'}?"
    return Question("weekday", (WEEKDAYS[today], str(days)), text, WEEKDAYS[(today + days) % 7])


def _month(lot: Lot) -> Question:
    month, months = lot.between(0, 11), lot.between(1, 30)
    text = f"It is {MONTHS[month]}. Which month is it in {months} {'month' if months == 1 else 'months'}?"
    return Question("month", (MONTHS[month], str(months)), text, MONTHS[(month + months) % 12])


def _word(lot: Lot) -> str:
    return lot.one(
        (*THINGS, *(job for job in JOBS if job.isalpha()), *map(str.lower, FIRST_NAMES), *map(str.lower, MONTHS))
    )


def _backwards(lot: Lot) -> Question:
    word = _word(lot)
    return Question("backwards", (word,), f'Spell "{word}" backwards.', "-".join(reversed(word)).upper())


def _letters(lot: Lot) -> Question:
    word = _word(lot)
    return Question("letters", (word,), f'How many letters does the word "{word}" have?', str(len(word)))


def _vowels(lot: Lot) -> Question:
    word = _word(lot)
    found = [letter for letter in word if letter in VOWELS]
    steps = (
        f"The vowels (a, e, i, o, u) of the word are {', '.join(found)}."
        if found
        else "The word has none of a, e, i, o and u."
    )
    text = f'How many of the letters of "{word}" are vowels (a, e, i, o, u)?'
    return Question("vowels", (word,), text, str(len(found)), steps)


def _sorted(lot: Lot) -> Question:
    words = lot.some(THINGS, lot.between(3, 5))
    text = f"Put these words in alphabetical order: {', '.join(words)}."
    return Question("sorted", tuple(words), text, ", ".join(sorted(words)).capitalize())


def _odd_one(lot: Lot) -> Question:
    groups = (THINGS, JOBS, MONTHS, WEEKDAYS, FIRST_NAMES)
    names = ("things", "jobs", "months", "days of the week", "first names")
    group, other = lot.some(range(len(groups)), 2)
    many, one = lot.some([word for word in groups[group] if word not in groups[other]], 3), lot.one(groups[other])
    words = lot.some([*many, one], 4)
    text = f"Which word does not belong with the others: {', '.join(words)}?"
    steps = f"{listed([word for word in words if word != one])} are {names[group]}; {one} is not one of them."
    return Question("odd one", tuple(words), text, one, steps[0].upper() + steps[1:])


def _fact(lot: Lot) -> Question:
    question, answer = lot.one(FACTS)
    return Question("fact", (), question, answer)


MAKERS: tuple[Callable[[Lot], Question], ...] = (
    _sum,
    _difference,
    _product,
    _division,
    _per_cent,
    _more,
    _series,
    _largest,
    _shopping,
    _clock,
    _weekday,
    _month,
    _backwards,
    _letters,
    _vowels,
    _sorted,
    _odd_one,
    _fact,
    _fact,
    _fact,
)
