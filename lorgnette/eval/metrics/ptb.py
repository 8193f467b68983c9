"""Words of a caption, as the COCO captioning evaluation takes them: Penn Treebank tokens without punctuation.

The published scores use a tokenizer in Java with thousands of rules. This is the part that captions need; it is tested
to give the same words on a file of golden captions. Its quirks are kept: brackets become words such as `-lrb-`.
"""

from __future__ import annotations

import re

_ASCII = str.maketrans("\u2018\u2019\u201b\u0092", "''''", "\u00ad")
_BRACKETS = str.maketrans({"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"})
_SPELLED = {"£": "#", "¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_SPELLED |= dict.fromkeys("¤€₠\x80", "$")
_ENTITIES = (("&quot;", '"'), ("&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&nbsp;", " "), ("&amp;", "&"))
_REMOVED = re.compile(r"''|'|``|`|[.?!,:;\"«»-]|--{1,3}|\.\.\.")

_ABBREVIATIONS = """
    mr mrs ms dr drs prof rev hon gen col capt lt sgt sen rep gov pres st ste ave blvd rd mt ft
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri
    inc corp co ltd bros dept univ assn vs etc al vol ed eds
    jr sr esq ph.d m.d b.a m.a d.d.s u.s u.k u.n
    ala ariz calif colo conn dak del fla ga ind kan kans ky md mich minn mo mont neb nev okla penn tenn va vt
    wis wisc wyo
"""
_LETTERS = r"(?:(?!n't(?!\w))[^\W_²³¹¼½¾⅐-ↂↅ-↉〇〡-〩〸-〺][\u0300-\u036f]*)+"
"""Letters and digits, with their accents, up to a following `n't`."""
_SYMBOLS = (
    r"!-~¡-ÿ\x80†-‣‰-‸‖‗‚„‟※‾-⁂⁄⁺-⁾₊-₎₠₤€⅓⅔℀℁℃-℆℈℉℔№-℘℞-℣℥℧℩℮℺℻⅀-⅄⅊-⅍⅏"
    r"←-\u245f⒜-ⓩ─-❵➔-\u2bff、。〒・！-／：-＠［-｀｛-･￠￡￥￦"
)
"""Characters that are words by themselves; any other is left out."""

_TOKEN = re.compile(
    rf"""
      (?:https?://|www\.)[^\s"<>()]*[^\s"<>().,;:!?']           # addresses
    | [a-z0-9][\w.+@-]{{0,63}}@[\w-]+(?:\.[\w-]+)* | @[a-z_]\w* | \#[a-z]+
    | </?[a-z][\w:.-]*\ ?/?> | c\+\+ | [cf]\# | (?-i:[A-Z]+(?:[+&][A-Z]+)+|[A-Z]+\$)
    | (?:{"|".join(map(re.escape, _ABBREVIATIONS.split()))})\.(?![^\W_])
    | (?-i:Ark|Az|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash)\.(?![^\W_])
    | (?:nos?|pp|figs?)\.(?=\s*\d)
    | [a-z]\.(?:[a-z]\.)*(?![^\W\d_])                          # initials and acronyms: j., a.m., u.s.a.
    | [a-z][a-z0-9]*(?:[.!?][a-z][a-z0-9]*)+                   # wow!great, openclipart.org
    | [a-z0-9]+(?:-[a-z0-9]+)*(?:/[a-z0-9]+(?:-[a-z0-9]+)*)+    # and/or
    | [<>]?[:;=][-o*']?[()dp@\[\]](?![a-z])                     # smileys
    | can(?=not\b) | (?:gon|wan)(?=na\b) | got(?=ta\b) | (?:gim|lem)(?=me\b) | 't(?=is\b|was\b)
    | (?:s'mores|ne'er|[eo]'er|li'l|c'est)\b | qu'{_LETTERS}
    | (?:dunkin|somethin|ol)'(?!\w) | [dlno]'(?!\d){_LETTERS} | [dlj]'
    | 'n' | 'n\b | o'clock | ma'am | y'(?=[a-z]) | 'em\b | 'cause\b | 'til+\b | '\d0s\b
    | n't(?!\w) | '(?:s|m|d|ll|re|ve)(?!\w)                     # clitics
    # numbers, times, dates, scores, and what they measure
    | \d+:\d\d(?=[ap]m\b) | \d+\.\d+(?:-{_LETTERS})+
    | [-+]?[.,]?\d+(?:[.,:/]\d+){{0,9}}(?:-\d+(?:[.,:/]\d+){{0,9}}){{0,9}}(?:st|nd|rd|th|s)?(?![^\W_]|[-_][^\W_])
    | {_LETTERS}(?:[-_]{_LETTERS})+
    | {_LETTERS}
    | \.\.\. | --+ | [!?]{{2,}} | '' | `` | \*+ | _+ | @{{2,}} | \#{{2,}} | << | >> | [{_SYMBOLS}]
    """,
    re.VERBOSE | re.IGNORECASE,
)


def caption_words(text: str) -> list[str]:
    """Lower-case words of a caption, without punctuation."""
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = text.replace("\n", " ").translate(_ASCII)
    words = (_SPELLED.get(token, token).lower().translate(_BRACKETS) for token in _TOKEN.findall(text))
    return [word for word in words if not _REMOVED.fullmatch(word)]
