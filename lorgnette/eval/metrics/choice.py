"""Multiple choice: the option that a free answer names, and accuracy over the passes of a circular evaluation."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from string import ascii_uppercase

from lorgnette.eval.metrics.exact import normalise
from lorgnette.eval.metrics.metric import Reference

_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Scripts that put no space between words, or write particles on a word: a letter beside them stands alone."""
_WORD = rf"[^\W{_UNSPACED}]"
_BEFORE = rf"(?<!{_WORD})(?<!{_WORD}[-.&/'’])"
_AFTER = rf"(?!{_WORD}|[+#]|[-.&/'’]{_WORD})"
"""Not part of a word, of `B-cells`, `e.g.`, `C++`, `R&B`, `A's`; within quotes, as in `'B'`, a letter is by itself."""

_BARE = re.compile(
    r"(?:[^\w+#]|_)*(?:(?:the\s{1,3})?(?i:option|choice|letter)\s{1,3}[^\w\s]{0,4})?([A-Za-z])(?:[^\w+#]|_)*"
)
_ALONE = re.compile(rf"{_BEFORE}([A-Z]){_AFTER}")
_ARTICLE = re.compile(
    r"\s+(?!(?:is|was|because|since|as|and|or|but|seems|would|looks|matches|fits|best|not|by)\b)\w\w|\s+[b-z]\b"
)
"""Behind an `A` that is an article, or an `I` that is the speaker: a word, unless one that goes on after a letter."""
_PHRASE = (
    r"(?:(?:answer|ans|antwort|réponse|respuesta|resposta|risposta|ответ)"
    r"(?:\s{0,3}(?:is|was|would\s+be|should\s+be|must\s+be|ist|est|es|é|è))?"
    r"|(?:option|choice|letter)\s{0,3}(?:is\b|was\b|(?=[:=]))"
    r"|(?:答案|答え|正解|解答|回答|정답|답)\s{0,3}(?:应该是|應該是|应为|是|为|為|は|은|는)?|[选選][择擇]?)"
)
_OPTION = r"(?:(?:the\s{1,3})?(?:option|choice|letter)\b|选项|選項|選択肢)?"
_LEAD = rf"{_PHRASE}\s{{0,3}}[:：=]?\s{{0,3}}{_OPTION}[\s:：=]{{0,4}}"
_SAID = re.compile(rf"{_LEAD}[^\w\s,;.!?]{{0,4}}\s?([A-Za-z]){_AFTER}", re.IGNORECASE)
"""`Answer: B`, `the correct option is (B)`, `答案是B`."""
_RIGHT = re.compile(
    rf"{_BEFORE}([A-Z])[\s)\].:]*(?:is|seems)\s+(?:the\s+|clearly\s+)?(?:correct|right|true|best|answer)\b"
)
"""`B is correct`."""
_REST = re.compile(rf"{_LEAD}([^\n]+)", re.IGNORECASE)
_LABEL = re.compile(rf"^[^\w\n]*([A-Za-z])(?:[)\]}}）】、]|[.:：．](?=\s|[{_UNSPACED}]|$))", re.MULTILINE)
"""A letter that opens a line as in a list of options: `B. a boy`, `(c) 5`."""
_REASONED = re.compile(r"[^\w\n]*([A-Za-z])[^\w\n]{1,4}(?:because|since|as)\b", re.IGNORECASE)
"""A letter that opens the answer, with its reason behind it: `B, because A and C are birds`."""
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_TAG = re.compile("<answer>", re.IGNORECASE)
_MARKUP = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|rm|bf)\b\s*|[*`$]|(?<!\w)_{1,3}|_{1,3}(?!\w)")
_DENIED = re.compile(
    rf"\b(?i:not|isn't|n't|never|neither|nor)\s{{1,3}}(?:option\s{{1,3}})?[(]?[A-Za-z]{_AFTER}"
    rf"|{_BEFORE}[A-Z][)]?(?:(?:,\s?|\s)(?:(?:and|or)\s)?[(]?[A-Z]{_AFTER}[)]?){{0,9}}"
    r"\s{1,3}(?:is|are|was|were|would\s+be)\s+(?:(?:clearly|all|both)\s+)?(?:wrong|incorrect|false|not)\b"
)
"""`not B`, `C is wrong`, `A, C and D are wrong`."""


def choose(answer: str, options: Sequence[str]) -> str | None:
    r"""The letter of the option that an answer names, or None if it names none, or several.

    What stands in the last `\boxed{}` or `<answer>` is the answer. In this order: a letter by itself; the text of an
    option by itself, also behind words such as `the answer is`; the last letter behind such words; a letter that opens
    the answer as a label; the only letter that stands alone outside of the options' own texts; the only option whose
    text is in the answer (options that are part of another one found do not count).
    """
    options = options[: len(ascii_uppercase)]
    answer = unicodedata.normalize("NFKC", answer)
    tags = [tag.end() for tag in _TAG.finditer(answer)]
    tagged = [answer[tags[-1] :].partition("</")[0]] if tags else []
    for marked in (tagged, _BOXED.findall(answer)):
        found = _choose(marked[-1], options) if marked else None
        if found:
            return found
    return _choose(answer, options)


def _choose(answer: str, options: Sequence[str]) -> str | None:
    letters, exact = ascii_uppercase[: len(options)], [option.strip() for option in options]
    if len(answer.strip()) > 1 and exact.count(answer.strip()) == 1:  # `5'` is not `5"`, nor `$5` the same as `5`
        return ascii_uppercase[exact.index(answer.strip())]
    texts = [normalise(_MARKUP.sub("", option)) for option in options]
    answer = _MARKUP.sub("", answer).strip()
    bare = _BARE.fullmatch(answer)
    if bare and bare[1].upper() in letters:
        return bare[1].upper()
    given = normalise(answer)
    if given and given in texts:
        return ascii_uppercase[texts.index(given)] if texts.count(given) == 1 else None
    rests = [normalise(rest.strip(" \t\"'“”(){}[]")) for rest in _REST.findall(answer)]
    if rests and texts.count(rests[-1]) == 1 and len(rests[-1]) > 1:
        return ascii_uppercase[texts.index(rests[-1])]
    named = _said(answer, letters) or _labelled(answer, letters)
    if named:
        return named
    alone = _alone(_DENIED.sub(" \ufffd ", _without_texts(answer, options)), letters)
    if alone:
        return alone.pop() if len(alone) == 1 else None
    return _by_text(given, texts)


def _said(answer: str, letters: str) -> str | None:
    """The last letter that the answer calls its own."""
    said = [*_SAID.finditer(answer), *_RIGHT.finditer(answer)]
    said = [one for one in said if one[1].upper() in letters and not _is_article(answer, one.start(1))]
    return max(said, key=lambda one: one.start(1))[1].upper() if said else None


def _labelled(answer: str, letters: str) -> str | None:
    """The letter that is the last or the first line, or opens the answer as the only label of a line."""
    lines = answer.split("\n")
    for bare in (_BARE.fullmatch(lines[-1]), _BARE.fullmatch(lines[0])):
        if bare and bare[1].upper() in letters:
            return bare[1].upper()
    reasoned = _REASONED.match(answer)
    if reasoned and reasoned[1].upper() in letters:
        return reasoned[1].upper()
    labels = {label.upper() for label in _LABEL.findall(answer)} & set(letters)
    first = _LABEL.match(answer)
    return first[1].upper() if first and labels == {first[1].upper()} else None


def _is_article(text: str, place: int) -> bool:
    """Return whether the letter there belongs to the word behind it: the article `a` or `A`, or `I` of a speaker."""
    if text[place] == "a" and text[place + 1 : place + 2].isspace() and text[place + 1 :].strip()[:1].isalnum():
        return True
    return text[place] in "AI" and _ARTICLE.match(text, place + 1) is not None


def _alone(text: str, letters: str) -> set[str]:
    return {one[1] for one in _ALONE.finditer(text) if one[1] in letters and not _is_article(text, one.start(1))}


def _without_texts(answer: str, options: Sequence[str]) -> str:
    """The answer without the options' own texts: the D of `vitamin D` names no option."""
    for option in sorted({_MARKUP.sub("", option).strip() for option in options}, key=len, reverse=True):
        if len(option) > 1 and _ALONE.search(option.upper()):
            answer = re.sub(_whole(option), " \ufffd ", answer, flags=re.IGNORECASE)
    return answer


def _whole(text: str) -> str:
    """A pattern of a text that is no part of a longer word or number."""
    digits = (r"(?<!\d[.,])" if text[0].isdecimal() else "", r"(?![.,]\d)" if text[-1].isdecimal() else "")
    return rf"(?<!{_WORD}){digits[0]}{re.escape(text)}{digits[1]}(?!{_WORD})"


def _by_text(given: str, texts: Sequence[str]) -> str | None:
    found = {text for text in texts if text and re.search(_whole(text), given)}
    found = {text for text in found if not any(text != other and text in other for other in found)}
    only = found.pop() if len(found) == 1 else ""
    return ascii_uppercase[texts.index(only)] if only and texts.count(only) == 1 else None


def choice_accuracy(answer: str, references: Sequence[str], options: Sequence[str]) -> float:
    """1 if the answer names a reference's letter; without options, if it equals a reference (see `exact_match`)."""
    if not options:
        return float(normalise(answer) in map(normalise, references))
    return float(choose(answer, options) in references)


def circular_counts(answers: Sequence[str], truths: Sequence[Reference]) -> list[tuple[float, float]]:
    """Counts whose mean is the share of groups with all their passes right (MMBench, Liu et al. 2023, §4.3).

    A question that belongs to no group is one by itself. Each pass carries its part of the group, so that sums over
    some of the examples, as a bootstrap makes them, still weigh every group the same.
    """
    groups = [truth.group or number for number, truth in enumerate(truths)]
    right: dict[str | int, bool] = defaultdict(lambda: True)
    for answer, truth, group in zip(answers, truths, groups, strict=True):
        right[group] &= bool(choice_accuracy(answer, truth.answers, truth.options))
    passes = Counter(groups)
    return [(right[group] / passes[group], 1 / passes[group]) for group in groups]
