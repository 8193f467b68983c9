"""Small files with the columns of the public benchmarks, odd rows among them: made here, nobody's data.

Each benchmark has rows for its asked split and, if it has one, its training split. `ODD` says which rows of the asked
split cannot be asked, and why.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.data.sources.reading.schemas import IMAGE
from lorgnette.eval.tasks import BENCHMARKS

Row = dict[str, Any]
TEXT, TEXTS, NUMBER = pa.string(), pa.list_(pa.string()), pa.int64()
BROKEN = b"\x89PNG\r\n\x1a\nnot a picture"
COLOURS = ("red", "green", "blue", "black", "white", "orange", "purple", "yellow")


def png(number: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture that differs for each number: its colour, and a pixel that counts."""
    image = PIL.Image.new("RGB", size, COLOURS[number % len(COLOURS)])
    image.putpixel((0, 0), (number % 256, number // 256, 7))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def stored(number: int) -> dict[str, Any]:
    return {"bytes": png(number), "path": f"{number}.png"}


def people(*answers: str) -> list[str]:
    """Ten people's answers, the last one given by the rest of them."""
    return [*answers, *[answers[-1]] * (10 - len(answers))]


QUESTIONS = ("What colour is it?", "Which colour, übrigens?", "What is this <image> of?", "Is {this} a colour?")


def vqav2(train: bool) -> list[Row]:
    rows = [
        {
            "question_type": "what color is",
            "multiple_choice_answer": COLOURS[n],
            "answers": [
                {"answer": text, "answer_confidence": "yes", "answer_id": place}
                for place, text in enumerate(people("something", COLOURS[n]), 1)
            ],
            "image_id": n,
            "answer_type": "other",
            "question_id": 1000 * train + n,
            "question": QUESTIONS[n % 4],
            "image": stored(20 * train + n),
        }
        for n in range(8)
    ]
    empty = [{"answer": "", "answer_confidence": "no", "answer_id": place} for place in range(1, 11)]
    rows[5] |= {"answers": empty, "multiple_choice_answer": ""}
    return (
        rows
        if train
        else [*rows, rows[0] | {"image": None}, rows[1] | {"question_id": 9, "image": {"bytes": BROKEN, "path": None}}]
    )


def textvqa(train: bool) -> list[Row]:
    rows = [
        {
            "image_id": f"{n:016x}",
            "question_id": 1000 * train + n,
            "question": QUESTIONS[n % 4],
            "question_tokens": ["what"],
            "image": stored(20 * train + n),
            "image_width": 40,
            "image_height": 30,
            "flickr_original_url": "",
            "flickr_300k_url": "",
            "answers": people("answering does not require reading text in the image", COLOURS[n]),
            "image_classes": ["Paint"],
            "set_name": "train" if train else "val",
            "ocr_tokens": [COLOURS[n].upper()],
        }
        for n in range(8)
    ]
    rows[5]["answers"] = people("")
    return rows if train else [*rows, rows[0] | {"question": "  "}, rows[1] | {"image": {"bytes": b"", "path": None}}]


def okvqa(train: bool) -> list[Row]:
    rows = [
        {
            "question_id": str(1000 * train + n),
            "image": stored(20 * train + n),
            "question": QUESTIONS[n % 4],
            "answers": people("ünïcode", COLOURS[n]),
            "question_type": "four",
            "answer_type": "other",
        }
        for n in range(8)
    ]
    return rows if train else [*rows, rows[0] | {"image": None}]


def coco(train: bool) -> list[Row]:
    rows = [
        {
            "question_id": f"COCO_val2014_{1000 * train + n:012d}.jpg",
            "image": stored(20 * train + n),
            "question": "Please carefully observe the image and come up with a caption for the image.",
            "answer": [
                f"A {COLOURS[n]} wall with number {n} on it.",
                f"Somebody painted everything {COLOURS[n]}.",
                f"there is nothing here but {COLOURS[n]}",
            ],
            "id": n,
            "license": 1,
            "file_name": "",
            "coco_url": "",
            "height": 30,
            "width": 40,
            "date_captured": "",
        }
        for n in range(8)
    ]
    return rows if train else [*rows, rows[0] | {"image": None}]


def docvqa(train: bool) -> list[Row]:
    rows = [
        {
            "questionId": str(1000 * train + n),
            "question": QUESTIONS[n % 4],
            "question_types": ["layout", "table/list"] if n % 2 else ["handwritten"],
            "image": stored(20 * train + n),
            "docId": n,
            "ucsf_document_id": "abcd0001",
            "ucsf_document_page_no": "1",
            "answers": [COLOURS[n], COLOURS[n].upper()],
            "data_split": "train" if train else "val",
        }
        for n in range(8)
    ]
    return rows if train else [*rows, rows[0] | {"image": None}, rows[1] | {"question": None}]


def chartqa(train: bool) -> list[Row]:
    values = ["12", "-4.5", "Yes", "50%", "Éire", "1,200", "0", "3.14"]
    rows = [
        {
            "image": stored(20 * train + n),
            "query": f"What is value {n}?",
            "label": [values[n]],
            "human_or_machine": n % 2,
        }
        for n in range(8)
    ]
    return rows if train else [*rows, rows[0] | {"image": None}]


def ai2d(train: bool) -> list[Row]:
    rows = [
        {
            "question": f"Which organism is number {n}?",
            "options": ["fox", "hare", "grass", "the sun", "owl", "none of the above"][: 4 + n % 3],
            "answer": str(n % (4 + n % 3)),
            "image": stored(20 * train + n),
        }
        for n in range(8)
    ]
    rows[2]["options"] = ["B", "A", "D", "C", "E", "F"]
    odd = [rows[0] | {"image": None}, rows[1] | {"answer": "9"}, rows[2] | {"options": ["x"] * 27, "answer": "1"}]
    return rows if train else [*rows, *odd]


def mmbench(train: bool) -> list[Row]:
    base = {"comment": "nan", "split": "dev", "source": "drawn", "category": "colour", "L2-category": "perception"}
    options = ["red", "a green one", "blau", "it is black"]
    rows = []
    for n in range(4):
        size = 4 if n % 2 else 2
        for turn in range(size):
            turned = options[turn:size] + options[:turn]
            letters = dict(zip("ABCD", [*turned, *["nan"] * (4 - size)], strict=True))
            rows.append(
                base
                | letters
                | {
                    "index": n + 1_000_000 * turn,
                    "question": f"Which colour is number {n}?",
                    "hint": "Look closely: ünïcode." if n == 1 else "nan",
                    "answer": "ABCD"[turned.index(options[n % size])],
                    "image": stored(n),
                }
            )
    rows.append(rows[0] | {"index": 77, "image": None})
    rows.append(rows[1] | {"index": 78, "A": "nan", "B": "nan"})
    return rows


def mmmu(train: bool) -> list[Row]:
    nothing = {f"image_{number}": None for number in range(1, 8)}
    subjects = ("Accounting", "Art", "Computer_Science", "Art_Theory", "Math", "History", "Music", "Pharmacy")
    split = "dev" if train else "validation"
    rows = [
        {
            "id": f"{split}_{subjects[n]}_{n}",
            "question": f"<image 1> Which colour has number {n}?",
            "options": "['red', 'green', 'blue', \"l'ocre\"]",
            "explanation": "",
            **nothing,
            "image_1": stored(20 * train + n),
            "img_type": "['Paintings']",
            "answer": "ABCD"[n % 4],
            "topic_difficulty": "Easy",
            "question_type": "multiple-choice",
            "subfield": "colours",
        }
        for n in range(8)
    ]
    rows[1] |= {"question": "Compare <image 1> with <image 2>, then <image 1> again.", "image_2": stored(101)}
    rows[2] |= {"options": "['a', 'b', 'c', 'd', 'e', 'f', 'g']", "answer": "G"}
    rows[3] |= {"options": "['<image 2>', '<image 3>']", "image_2": stored(102), "image_3": stored(103), "answer": "B"}
    open_ended = {"options": "[]", "question_type": "open"}
    rows[4] |= open_ended | {"question": "How many? <image 1>", "answer": "12"}
    rows[5] |= open_ended | {"question": "Wie viele é?", "answer": "['7', 'seven']"}
    if train:
        return rows
    lost = rows[0] | {"id": "validation_Art_90", "question": "<image 3> what?"}
    return [*rows, lost, rows[0] | {"id": "validation_Art_91", "options": "not a list"}]


def mathvista(train: bool) -> list[Row]:
    kinds = [("integer", None, "12"), ("float", 1.0, "0.6"), ("float", 2.0, "1.45"), ("list", None, "[1, 2]")]
    rows = []
    for n in range(8):
        form, precision, answer = kinds[n % 4] if n < 6 else ("text", None, "blau")
        choices = ["red", "blau", "7", "none"] if n >= 6 else None
        hint = "Hint: Please answer the question and provide the final value at the end."
        listed = "\nChoices:\n(A) red\n(B) blau\n(C) 7\n(D) none" if choices else ""
        rows.append(
            {
                "pid": str(n),
                "question": f"Which number has {n}?",
                "image": f"images/{n}.jpg",
                "decoded_image": stored(n),
                "choices": choices,
                "unit": "$" if n == 2 else None,
                "precision": precision,
                "answer": answer,
                "question_type": "multi_choice" if choices else "free_form",
                "answer_type": form,
                "metadata": {"task": "figure question answering" if n % 2 else "math word problem", "grade": "daily"},
                "query": f"{hint}\nQuestion: Which number has {n}?{listed}",
            }
        )
    return [*rows, rows[0] | {"decoded_image": None}]


def built_in_questions(train: bool) -> list[Row]:
    rows = [
        {
            "question_id": 1000 * train + n,
            "image_id": f"picture {n}",
            "image": stored(20 * train + n),
            "question": QUESTIONS[n % 4],
            "answers": people("grau", COLOURS[n]),
            "question_type": "colour" if n % 2 else "count",
            "origin": [f"{n}"],
        }
        for n in range(8)
    ]
    return rows if train else [*rows, rows[0] | {"image": None}]


def built_in_captions(train: bool) -> list[Row]:
    keys = ("image", "origin")
    return [
        {key: row[key] for key in keys}
        | {
            "image_id": f"{train} {n}",
            "captions": [f"a {COLOURS[n % 8]} wall number {n}", f"nothing but {COLOURS[n % 8]} is in picture {n}"],
        }
        for n, row in enumerate(built_in_questions(train))
    ]


def base64_rows(rows: list[Row]) -> list[Row]:
    """MMBench as HuggingFaceM4 keeps it: pictures written as base64."""
    return [
        row | {"image": base64.b64encode(row["image"]["bytes"] + bytes(900)).decode() if row["image"] else None}
        for row in rows
    ]


MAKERS: dict[str, Callable[[bool], list[Row]]] = {
    "vqav2": vqav2,
    "textvqa": textvqa,
    "okvqa": okvqa,
    "coco": coco,
    "docvqa": docvqa,
    "mmmu": mmmu,
    "mathvista": mathvista,
    "mmbench": mmbench,
    "chartqa": chartqa,
    "ai2d": ai2d,
    "scene_vqa": built_in_questions,
    "text_vqa": built_in_questions,
    "knowledge_vqa": built_in_questions,
    "scene_captions": built_in_captions,
    "doc_vqa": built_in_questions,
}
ODD: dict[str, dict[int, str]] = {
    "vqav2": {8: "'image' is null", 9: "not an image"},
    "textvqa": {8: "'question' is blank", 9: "no image"},
    "okvqa": {8: "no image"},
    "coco": {8: "no image"},
    "docvqa": {8: "no image", 9: "'question' is null"},
    "mmmu": {8: "shows image 3, and there are 1", 9: "'options' is not a list"},
    "mathvista": {8: "no image"},
    "mmbench": {12: "no image", 13: "no options"},
    "chartqa": {8: "no image"},
    "ai2d": {8: "no image", 9: "none of the 5 options", 10: "27, more than there are letters"},
    **{key: {8: "no image"} for key in ("scene_vqa", "text_vqa", "knowledge_vqa", "scene_captions", "doc_vqa")},
}


def write_rows(path: Path, rows: list[Row]) -> None:
    """Rows as parquet, pictures as the hub keeps them, in row groups of three."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    images = [name for name in columns if name.startswith(("image_", "decoded_image")) or name == "image"]
    pictures = {name for name in images if any(isinstance(value, dict) for value in columns[name])}
    fields = {
        name: pa.array(values, IMAGE) if name in pictures or name in EMPTY else pa.array(values)
        for name, values in columns.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(fields), path, row_group_size=3)


EMPTY = frozenset(f"image_{number}" for number in range(1, 8))
"""Columns of pictures that may be null in all rows."""


def write_benchmark(root: Path, name: str) -> dict[str, str]:
    """A benchmark's files below `root`; what `Asking.data` says of them."""
    benchmark = BENCHMARKS[name]
    for split in {benchmark.split, benchmark.train} - {None}:
        assert split is not None
        files = benchmark.splits[split].files.replace("-*", "-00000-of-00001.parquet")
        write_rows(root / name / files, MAKERS[name](split == benchmark.train))
    return {name: str(root / name)}
