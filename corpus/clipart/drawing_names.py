"""Short clean English names for drawings, from noisy titles and file names. None where there is no clean one."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SHARED = 13
"""A title on this many drawings or more names a collection, not a drawing."""
GLUE = _words(
    """
    of with and in on the a an for to from at by under no not
    """
)
DROPPED = _words(
    """
    cliparts clipart various part collection icon icons iconset theme themes symbol symbols image picture
    drawing drawn svg openclipart ocal gif png untitled unnamed unsorted misc hash bw md alt simple stylized
    special test submission sibmission action actions filesystem filesystems apps mime mimetypes gtk gnome kde
    fs stock dev b w aiga contour outline shaded maritime international signal repeat another yet version
    example sample nicu buculei wilfried huss element elem rpg silhouette cartoon color colour coloured r
    """
)
"""Words that are dropped from a name: they say how a drawing was made or catalogued, not what it shows."""
FOREIGN_AUTHORS = ("rollandin", "architetto", "guillou", "jacq", "balin", "fidi", "kuehne", "boitel", "olivo", "guziec")
"""Authors (parts of their names) who title their drawings in other languages than English."""
FOREIGN = _words(
    """
    di da del della con il la le lo gli una uno bianco nero cane gatto cavallo orso casa donna uomo verde festa
    montagna campeggio fiori foglie carta penna scala lente rana uccello elefante colombo architetto sulla
    papera mucca pecora pecorella acquila aquila lumaca formica mosca zanzara pesce sole luna nave aereo treno
    macchina libro chiave lucchetto rosso glace italienne galette pasteque recznik padella farfalla cigno gufo
    civetta utenti noi due insieme carte mapa coccinelle sapin peperoncino sorriso ciuccio
    """
)
SUITS = {"c": "clubs", "d": "diamonds", "h": "hearts", "s": "spades"}
RANKS = {"a": "ace", "j": "jack", "q": "queen", "k": "king"}
RANKS |= {
    "2": "two",
    "3": "three",
    "4": "four",
    "5": "five",
    "6": "six",
    "7": "seven",
    "8": "eight",
    "9": "nine",
    "10": "ten",
}


def vocabulary(keywords: Iterable[Sequence[str]]) -> set[str]:
    """Words that at least two drawings have as keywords: nearly all of them English."""
    counts: Counter[str] = Counter()
    for words in keywords:
        counts.update({part for word in words for part in words_of(word)})
    return {word for word, count in counts.items() if count >= 2 and len(word) > 2} - FOREIGN


def words_of(text: str) -> list[str]:
    """Lower-case words of a text or file name: camel case split, digits, punctuation and accents dropped."""
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = re.sub(r"\(.*?\)|&#?\w+;s?", " ", text)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return re.findall(r"[a-z]+", text.lower())


def clean_name(path: str, title: str, creators: Sequence[str], known: set[str], titles: Counter[str]) -> str | None:
    """A name of one to four words, from the title if it is the drawing's own, else from the file name.

    known: words that a name by an author of another language may be made of.
    titles: how many drawings share each title.
    """
    folder, _, stem = path.removesuffix(".svg").rpartition("/")
    if folder.startswith("recreation/games/cards/") and re.fullmatch(r"[a-z]+_[cdhs]_\w+", stem):
        _, suit, rank = stem.split("_")
        return f"{RANKS[rank]} of {SUITS[suit]}" if rank in RANKS else None
    if "/flags/" in path:
        return _flag_name(folder, stem)
    author = {part[:9] for name in creators for part in words_of(name)}
    own_title = titles[title] < SHARED and not title.startswith(
        "Clipart by"
    )  # those name another drawing of the author
    foreign = any(part in name.lower() for name in creators for part in FOREIGN_AUTHORS) or title == "Various Cliparts"
    foreign = foreign or path.startswith("computer/icons/")  # named after programs as often as after what they show
    candidates = [words_of(title)] if own_title else []
    candidates.append([word for word in words_of(stem) if not _by(word, author)])
    for words in candidates:
        words = _trimmed(
            [word for word in dict.fromkeys(words) if word not in DROPPED and (len(word) > 1 or word in GLUE)]
        )
        content = [word for word in words if word not in GLUE]
        allowed = all(word in known if foreign else 2 < len(word) < 14 and word not in FOREIGN for word in content)
        if 1 <= len(content) <= 4 and allowed:
            return " ".join(words)
    return None


def _trimmed(words: list[str]) -> list[str]:
    """Without the small words at both ends."""
    while words and words[0] in GLUE:
        words = words[1:]
    while words and words[-1] in GLUE:
        words = words[:-1]
    return words


def _by(word: str, author: set[str]) -> bool:
    """Return whether a (possibly truncated) word of a file name is the author's name."""
    return len(word) > 2 and any(part.startswith(word[:9]) for part in author)


def _flag_name(folder: str, stem: str) -> str | None:
    """`sweden` -> "flag of sweden". File names that carry an author or a remark are not country names."""
    place = stem.replace("_historic", "").replace("-", "_")
    if re.search(r"\d|flag|__|^_", place) or not re.fullmatch(r"[a-z_]+", place) or len(place) < 4:
        return None
    if folder.endswith(("semaphore", "pirates", "miscellany", "navy")):
        return None
    return "flag of " + " ".join(place.strip("_").split("_"))
