"""Resumes, and their facts as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Question, Sheet
from corpus.rendered.people import company, email, person, telephone, town
from corpus.rendered.rows import Row, Said, choose, instruct, picture, rows, said
from corpus.rendered.style import Style, style
from corpus.rendered.texts import DUTIES, different, listed
from corpus.rendered.words import DEGREES, JOBS, LANGUAGES, SKILLS, SUBJECTS

DARK = 50
"""Grey of a heading that is a band across the sheet."""
AS_JSON = (
    "Write the facts of this resume as JSON with the keys {names}.",
    "Read the resume and return JSON with the keys {names}.",
    "Turn this resume into JSON. Use the keys {names}.",
    "Extract {names} from the resume. Answer in JSON with these keys.",
)


@dataclass(frozen=True, slots=True)
class School:
    degree: str
    subject: str
    school: str
    year: int


@dataclass(frozen=True, slots=True)
class Post:
    """A job that somebody had; `until` is a year, or "today"."""

    job: str
    company: str
    since: int
    until: int | str


@dataclass(frozen=True, slots=True)
class Resume:
    """Content of a resume, the latest entries first."""

    name: str
    job: str
    email: str
    phone: str
    town: str
    experience: tuple[Post, ...]
    education: tuple[School, ...]
    languages: tuple[str, ...]
    skills: tuple[str, ...]


def make_resumes(split: str, count: int, seed: int) -> Iterator[Row]:
    """Resumes: some or all of it as JSON, and questions."""
    return rows("resumes", split, count, seed, _row)


def _row(lot: Lot) -> Row:
    sheet = resume(lot)
    texts = [as_json(lot, sheet.facts)]
    texts += [said(lot, question) for question in choose(lot, sheet.questions, lot.between(0, 2))]
    return instruct(picture(lot, sheet.paper), texts, "resumes")


def as_json(lot: Lot, facts: Resume) -> Said:
    """A request for JSON, of some keys or of all, and the JSON."""
    content: dict[str, Any] = asdict(facts)
    keys = list(content)
    if lot.chance(60):
        kept = lot.some(keys, lot.between(3, 5))
        keys = [key for key in keys if key in kept]
    answer = json.dumps({key: content[key] for key in keys}, ensure_ascii=False)
    return lot.one(AS_JSON).format(names=listed(keys)), answer


def resume(lot: Lot) -> Sheet:
    """A resume with its questions."""
    facts = _facts(lot)
    look = style(lot, 14, 16)
    paper = _written(lot, facts, look)
    return Sheet("resume", facts, paper, tuple(_questions(facts)), look.face)


def _facts(lot: Lot) -> Resume:
    name, job = person(lot), lot.one(JOBS).capitalize()
    year = lot.between(2012, 2023)
    posts, until = [], "today"
    for place in range(lot.between(1, 3)):
        since = year - lot.between(1, 5)
        held = job if place == 0 else lot.one(JOBS).capitalize()
        posts.append(Post(held, company(lot), since, until if place == 0 else year))
        year = since
    schools = []
    degrees = sorted(lot.some(DEGREES, lot.between(1, 2)), key=DEGREES.index, reverse=True)
    for degree, subject in zip(degrees, lot.some(SUBJECTS, len(degrees)), strict=True):
        schools.append(School(degree, subject, f"{town(lot)} {lot.one(('University', 'College'))}", year))
        year -= lot.between(2, 4)
    return Resume(
        name=name,
        job=job,
        email=email(lot, name),
        phone=telephone(lot),
        town=town(lot),
        experience=tuple(posts),
        education=tuple(schools),
        languages=tuple(lot.some(LANGUAGES, lot.between(1, 3))),
        skills=tuple(lot.some(SKILLS, lot.between(2, 5))),
    )


def _written(lot: Lot, facts: Resume, look: Style) -> Paper:
    width, margin = lot.between(500, 680), lot.between(32, 44)
    paper = look.paper(max(width, _needed(facts, look) + 2 * margin), margin=margin)
    capitals, ruled = lot.chance(50), lot.chance(50)
    duties = different(lot, DUTIES, len(facts.experience)) if lot.chance(60) else []

    def section(title: str) -> None:
        paper.skip(10)
        paper.line(title.upper() if capitals else title, look.bold)
        if ruled:
            paper.rule()

    def entry(text: str, when: str) -> None:
        paper.cells([(paper.margin, text, "left"), (paper.width - paper.margin, when, "right")], look.plain)

    _heading(lot, paper, facts, look)
    section("Experience")
    for place, post in enumerate(facts.experience):
        entry(f"{post.job}, {post.company}", f"{post.since} - {post.until}")
        if duties:
            paper.paragraph(duties[place], look.small, indent=16)
    section("Education")
    for school in facts.education:
        entry(f"{school.degree} in {school.subject}, {school.school}", str(school.year))
    section("Languages")
    paper.paragraph(", ".join(facts.languages), look.plain)
    section("Skills")
    paper.paragraph(", ".join(facts.skills), look.plain)
    paper.cut(least=lot.one((0, round(paper.width * 1.2))))
    return paper


def _needed(facts: Resume, look: Style) -> int:
    """Pixels that the longest line takes between the margins."""
    when, gap = look.plain.length("2000 - today"), 16
    entries = [f"{post.job}, {post.company}" for post in facts.experience]
    entries += [f"{school.degree} in {school.subject}, {school.school}" for school in facts.education]
    contact = look.small.length(f"{facts.email}, {facts.phone}, {facts.town}")
    return max(contact, look.large(1.7).length(facts.name), *(look.plain.length(text) + gap + when for text in entries))


def _heading(lot: Lot, paper: Paper, facts: Resume, look: Style) -> None:
    """Name and contact details; sometimes white on a dark band."""
    name, band = look.large(1.7), not look.sharp and lot.chance(35)
    if band:
        paper.pen.rectangle((0, 0, paper.width, paper.margin + round(name.size * 1.4 + look.size * 3.4)), fill=DARK)
        paper.ink = 255
    side = lot.one(("left", "middle"))
    paper.line(facts.name, name, side=side)  # type: ignore[arg-type]
    paper.line(facts.job, look.plain, side=side)  # type: ignore[arg-type]
    paper.line(f"{facts.email}, {facts.phone}, {facts.town}", look.small, side=side)  # type: ignore[arg-type]
    paper.ink = 0
    paper.skip(16)


def _questions(facts: Resume) -> list[Question]:
    last, school = facts.experience[0], facts.education[0]
    return [
        Question("name", (), "Whose resume is this?", facts.name),
        Question("email", (), "What is the e-mail address?", facts.email),
        Question("phone", (), "What is the telephone number?", facts.phone),
        Question("town", (), f"In which town does {facts.name} live?", facts.town),
        Question("company", (), f"Where does {facts.name} work today?", last.company),
        Question("since", (), f"Since which year has {facts.name} worked at {last.company}?", str(last.since)),
        Question("school", (), f"Where did {facts.name} study {school.subject}?", school.school),
        Question("year", (), f"In which year did {facts.name} finish at {school.school}?", str(school.year)),
        Question("languages", (), "How many languages are listed?", str(len(facts.languages))),
        Question("skills", (), "How many skills are listed?", str(len(facts.skills))),
    ]
