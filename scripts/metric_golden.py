"""Make tests/eval/golden/published_metrics.jsonl: generated answers with the scores that published code gives them.

    pip download --no-deps -d ORACLES lmms-eval==0.7.3 pycocoevalcap==1.2
    (cd ORACLES && for wheel in *.whl; do unzip -qo $wheel; done)
    python scripts/metric_golden.py ORACLES

Needs Java for the tokenizer of captions. Nothing is installed: the functions are taken out of the published files.
"""

from __future__ import annotations

import ast
import json
import math
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

OUT = Path(__file__).parent.parent / "tests" / "eval" / "golden" / "published_metrics.jsonl"
PAIRS = 1200
TASKS = "lmms_eval/tasks"
JAR = "pycocoevalcap/tokenizer/stanford-corenlp-3.4.1.jar"
PUNCTUATION = "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split()
"""Tokens that pycocoevalcap's `ptbtokenizer.py` leaves out; they are in lower case by then, so that brackets stay."""

SHORT = (
    "two 2 Two yes Yes no none zero cat the cat a cat A Riyadh New York left/right t-shirt ice-cream 1,000 "
    "1000 3.5 5. U.S.A. dont don't isnt somebody'd couldnt've dog's red, white|red "
    "(dark)|10:30|$5|50%|x/y|what?|C++|@home|a|an|the|it's|o'clock|ten people|Black.|black|BLACK|a b "
    "c|1.5.2|hot-dog|hot dog|\u00e9t\u00e9|caf\u00e9|on the left|left"
)
TEXTS = [text for part in SHORT.split("|") for text in ([part] if "|" in part else part.split(" "))]
TEXTS += ["the cat", "New York", "red, white", "ten people", "hot dog", "on the left", " dog ", "a\nb", "two\tdogs", ""]
OPTIONS = ("a man", "a boy", "A girl", "a dog", "Cat", "42", "3.5", "none of these", "Vitamin D", "both A and B", "red")
SAID = (
    "{x}|({x})|{x}.|{x}. {t}|({x}) {t}|Answer: {x}|Answer:{x}|The answer is {x}.|**{x}**|{t}|"
    "It is {t}, I think so|{x} {t}|Option {x} is wrong, so {y}|({x}) and not ({y})|{x} or {y}|"
    "{x} because of {t} and not {u}|\u9009\u9879{x}|{l}|({l})|"
    "The correct answer is {x}. Here's why option {y} is wrong|A {t} can be seen|"
    "I think that it is {t} or {u} here|{x},{y}|So, the final answer would be {x} !|{x}: {t}|"
    "nothing of that at all, sorry for that|{x}{y}|{t} is what I see there|"
).split("|")
WORDS = (
    "a the man woman dog cat two people riding sitting on of in next to with red blue bus street sign that "
    "reads t-shirt black-and-white children's isn't can't p.m. 10:30 12 1st 50% $5 u.s. St. Mr. b&w R&B at&t "
    "Q&A c++ @home #tag wow!Great s'mores rock'n'roll o'clock d'oeuvres l'orange \u2122 \u00ae 5\u20ac \u20ac "
    "\u00a33 \u00bd caf\u00e9 x-ray w/ and/or www.flickr.com (left) [sic] 'quoted' \"double\" \u201ccurly\u201d "
    "\u2014 \u2026 ... !! ; : - * & + = < 1,000 1.5 '90s y'all ma'am gonna cannot no\u00a0break "
    "e.g. i.e. wii-mote mid-air man/woman his/her PB&J F-16 9/11 1990s"
).split(" ")


def functions(path: Path, *names: str, **known: Any) -> SimpleNamespace:
    """Some definitions of a published file, without its imports and decorators."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = [node for node in tree.body if getattr(node, "name", "") in names]
    for node in kept:
        node.decorator_list = []  # type: ignore[attr-defined]
    scope: dict[str, Any] = {"re": re, "np": np, "math": math, "statistics": statistics, **known}
    exec(compile(ast.Module(kept, []), str(path), "exec"), scope)
    return SimpleNamespace(**{name: scope[name] for name in names})


def vqa(root: Path, rng: random.Random) -> Iterator[list[Any]]:
    """Answer, ten references, accuracy by lmms-eval's vqav2 and by its textvqa (which is its ok_vqa too)."""
    shared = functions(root / TASKS / "_task_utils/vqa_eval_metric.py", "EvalAIAnswerProcessor")
    known = {"EvalAIAnswerProcessor": shared.EvalAIAnswerProcessor}
    v2 = functions(root / TASKS / "vqav2/utils.py", "vqav2_process_results", **known).vqav2_process_results
    text = functions(root / TASKS / "textvqa/utils.py", "textvqa_process_results", **known).textvqa_process_results
    for _ in range(PAIRS):
        pool = rng.sample(TEXTS, rng.choice((1, 1, 2, 3)))
        references = [rng.choice(pool) for _ in range(10)]
        answer = rng.choice([*pool, rng.choice(pool).upper(), rng.choice(pool) + ".", rng.choice(TEXTS)])
        people = [{"answer": one, "answer_id": number} for number, one in enumerate(references)]
        found = v2({"answers": people, "question_id": 0}, [answer])["exact_match"]
        other = text({"answers": list(references), "question_id": 0}, [answer])["exact_match"]
        yield ["vqa", answer, references, found, other]


def anls(root: Path, rng: random.Random) -> Iterator[list[Any]]:
    """Answer, references, ANLS by lmms-eval, which has the code of the benchmark's server."""
    score = functions(root / "lmms_eval/api/metrics.py", "levenshtein_distance", "anls").anls
    for _ in range(PAIRS):
        references = [
            _mangled(rng.choice(TEXTS) + rng.choice(("", " street", "  x ")), rng) for _ in range(rng.randint(1, 3))
        ]
        answer = _mangled(rng.choice(references), rng)
        yield ["anls", answer, references, float(score(references, [answer])["anls"])]


def _mangled(text: str, rng: random.Random) -> str:
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice("xyz \u00e9SS") + text[place + rng.randint(0, 1) :]
    return text.upper() if rng.random() < 0.1 else text


def relaxed(root: Path, rng: random.Random) -> Iterator[list[Any]]:
    """Answer, reference, relaxed correctness by lmms-eval, which has that of pix2struct."""
    score = functions(root / TASKS / "chartqa/utils.py", "relaxed_correctness").relaxed_correctness
    for _ in range(PAIRS):
        value = rng.choice((0.0, 1.0, 100.0, -4.5, 0.31, 1995.0, rng.uniform(-200, 200)))
        reference = rng.choice(
            (f"{value:g}", f"{value:.2f}", f"{value:g}%", "Yes", "no", "Blue", "1,200", f"{value:g}.")
        )
        near = value * rng.choice((1, 1.03, 0.96, 1.06, 1.05, -1))
        answer = rng.choice(
            (f"{near:g}", f"{near:.3f}", f"{near:g}%", f" {near:g} ", reference, reference.upper(), "45%%", "yes.")
        )
        yield ["relaxed", answer, reference, float(score(answer, reference))]


def mmmu(root: Path, rng: random.Random) -> Iterator[list[Any]]:
    """Answer, options, letter by lmms-eval; null where it draws lots."""
    nothing = SimpleNamespace(choice=lambda options: None)
    path = root / TASKS / "_task_utils/mmmu_mcq_utils.py"
    parse = functions(path, "parse_mmmu_multi_choice_response", random=nothing).parse_mmmu_multi_choice_response
    for _ in range(PAIRS):
        options = rng.sample(OPTIONS, rng.randint(2, 6))
        letters = "ABCDEFG"[: len(options)]
        x, y = rng.choice(letters), rng.choice(letters)
        said = rng.choice(SAID).format(x=x, y=y, l=x.lower(), t=rng.choice(options), u=rng.choice(options))
        yield ["mmmu_choice", said, options, parse(said, list(letters), dict(zip(letters, options, strict=True)))]


def mmmu_open(root: Path, rng: random.Random) -> Iterator[list[Any]]:
    """Answer, references, whether lmms-eval's parser of open answers, MMMU's own, finds one of them."""
    names = ("extract_numbers", "check_is_number", "normalize_str", "parse_open_response", "eval_open")
    code = functions(root / TASKS / "mmmu/utils.py", *names)
    forms = ("{}", "The answer is {}.", "x = {}", "so it is {}\ntherefore {}", "Therefore the answer is {}", "{} or {}")
    values = ("5", "0.5", "3,000.004", "-2e3", "1.45", "big cat", "x", "A", "12 apples", "yes", "50%", "3/4")
    for _ in range(PAIRS):
        answer = rng.choice(forms).replace("{}", "{a}", 1).replace("{}", "{b}", 1)
        answer = answer.format(a=rng.choice(values), b=rng.choice(values))
        references = rng.sample(values, rng.randint(1, 2))
        gold: Any = references if len(references) > 1 else references[0]
        yield ["mmmu_open", answer, references, float(code.eval_open(gold, code.parse_open_response(answer)))]


def captions(root: Path, rng: random.Random) -> Iterator[list[Any]]:
    """Text and its words; then, of a corpus, answer, references and CIDEr-D."""
    texts = [
        " ".join(rng.choice(WORDS) + rng.choice(("", "", "", "", ",", ".")) for _ in range(rng.randint(3, 9)))
        for _ in range(PAIRS)
    ]
    for text, words in zip(texts, _words(root, texts), strict=True):
        yield ["words", text, words]
    plain = WORDS[:24]
    corpus = []
    for _ in range(PAIRS):
        references = [" ".join(rng.choice(plain) for _ in range(rng.randint(4, 10))) for _ in range(rng.randint(1, 3))]
        near = rng.choice(references).split()
        near[rng.randrange(len(near))] = rng.choice(plain)
        corpus.append((" ".join(rng.choice((near, near[:5], [rng.choice(plain) for _ in range(6)]))), references))
    names = ("precook", "cook_refs", "cook_test", "CiderScorer")
    code = functions(root / "pycocoevalcap/cider/cider_scorer.py", *names, defaultdict=defaultdict, copy=None)
    scorer = code.CiderScorer(n=4, sigma=6.0)
    for answer, references in corpus:
        scorer += (answer, references)
    for (answer, references), score in zip(corpus, scorer.compute_score()[1], strict=True):
        yield ["cider", answer, references, float(score)]


def _words(root: Path, texts: list[str]) -> list[list[str]]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write("\n".join(texts))
        file.flush()
        tokenizer = ["java", "-Dfile.encoding=UTF-8", "-cp", str(root / JAR), "edu.stanford.nlp.process.PTBTokenizer"]
        command = [*tokenizer, "-preserveLines", "-lowerCase", file.name]
        said = subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8")
    lines = said.split("\n")[: len(texts)]
    return [[word for word in line.split() if word not in PUNCTUATION] for line in lines]


def main(root: Path) -> None:
    rng = random.Random(20240503)
    made = "scripts/metric_golden.py from lmms-eval 0.7.3 and pycocoevalcap 1.2 (Stanford PTB tokenizer 3.4.1)"
    rows: list[Any] = [{"made_by": made, "pairs": PAIRS}]
    for make in (vqa, anls, relaxed, mmmu, mmmu_open, captions):
        rows += make(root, rng)
    OUT.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
