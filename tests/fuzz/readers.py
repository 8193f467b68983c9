"""Registry of the readers of untrusted input: for each, good inputs to mutate, and public entry points that read one.

An input is the content of one file, so that it can be kept and tried again. A reader may raise what `refusals` names
and nothing else.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

from lorgnette.errors import DataError, LorgnetteError
from tests.fuzz.mutators import encoded, mutate_bytes, mutate_json, mutate_text, mutate_value, mutate_yaml
from tests.fuzz.run_folders import PARTS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Reader:
    """One reader of untrusted input."""

    seeds: Callable[[], list[bytes]]
    """Good inputs, which are read once before memory is measured."""
    mutate: Callable[[Random], bytes]
    """One mutated input."""
    read: Callable[[bytes, Path], object]
    """Reads an input; the folder is empty and for it alone."""
    refusals: tuple[type[BaseException], ...] = (LorgnetteError,)


@cache
def _recipes() -> list[Any]:
    return [yaml.safe_load(file.read_text()) for file in sorted((ROOT / "recipes").rglob("*.yaml"))]


def _load_settings(content: bytes, folder: Path) -> None:
    from lorgnette.run import Run

    (folder / "run.yaml").write_bytes(content)
    Run.load(folder / "run.yaml")


@cache
def _micro() -> Any:
    from lorgnette.run import Run

    return Run.load(ROOT / "recipes" / "micro.yaml")


OVERRIDES = (
    *("seed=1", "stages.0.lr=1e-4", "stages.1.sources.0.path=x.jsonl", "stages.0.lora={rank: 2, targets: [query]}"),
    *("images.shortest=378", "model.language.layers=2", "init.model=x", "checkpoints={every: 3}", "stages.0.pack=null"),
    *(
        "stages=[]",
        "name=2024-01-01",
        "threads=1",
        "stages.0.betas=[0.9, 0.98]",
        "stages.0.sources=[{kind: chat, path: a}]",
    ),
)


def _override(content: bytes, folder: Path) -> None:
    _micro().override(content.decode("utf-8", "surrogatepass"))


@cache
def _png() -> bytes:
    from tests.data.sources.made import picture

    return picture(24, 20)


@cache
def _rows(kind: str) -> list[Any]:
    """Good rows of a kind, images as base64 or as files beside the table."""
    import base64

    encoded_png = base64.b64encode(_png()).decode()
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded_png}"}}
    bare, text = {"type": "image"}, {"type": "text", "text": "What?"}
    asked = [{"role": "user", "content": [url, text]}, {"role": "assistant", "content": "This."}]
    human = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A tile."}]
    path = {"type": "image", "path": "a.png"}
    rows: dict[str, list[Any]] = {
        "chat": [
            {"messages": asked},
            {"image": "a.png", "conversations": human},
            {"system": "Be kind.", "conversations": [{"from": "human", "value": "Hi"}, human[1]]},
            {"images": ["a.png"], "messages": [{"role": "user", "content": [bare, text]}, asked[1]]},
        ],
        "messages": [
            {"messages": asked},
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [path]}, asked[1]]},
            {"images": ["a.png"], "messages": [{"role": "user", "content": [bare, text]}, asked[1]]},
        ],
        "instruct": [{"images": ["a.png"], "texts": [{"user": "What?", "assistant": "This.", "source": "s"}]}],
        "pairs": [{"image": "a.png", "alt": "a tile", "caption": "A tile of many colours."}, {"file_name": "a.png"}],
        "interleaved": [{"images": ["a.png", None], "texts": [None, "after"]}, {"images": [None], "texts": ["alone"]}],
    }
    return rows[kind]


def _jsonl(kind: str, rng: Random) -> bytes:
    rows = [mutate_value(rng, _rows(kind)) if rng.random() < 0.3 else rng.choice(_rows(kind)) for _ in range(2)]
    lines = [mutate_json(rng, _rows(kind)), *(json.dumps(row) for row in rows)]
    rng.shuffle(lines)
    as_lines = kind == "messages" or rng.random() < 0.7
    return encoded("\n".join(lines) if as_lines else "[" + ",".join(lines) + "]")


def _sift(kind: str, name: str, content: bytes, folder: Path, **settings: Any) -> None:
    """All rows of a source as preparing reads them, then their pieces."""
    from tests.data.sources.sift import config, sift

    (folder / "source").mkdir()
    (folder / "source" / "a.png").write_bytes(_png())
    (folder / "source" / name).write_bytes(content)
    path = folder / "source" / name
    sifted = sift(config("chat" if kind == "messages" else kind, path, **settings), folder)
    for found in sifted.records:
        assert found.piece().segments
    if not sifted.records:
        raise DataError("every row is refused")


@cache
def _parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"images": [{"bytes": _png(), "path": None}], "texts": [{"user": "?", "assistant": "Yes."}]}] * 4
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@cache
def _page() -> str:
    from tests.data.sources.made import html

    return html("One", "<img src=a.png alt=x><table><tr><td>a<td>b</table><ul><li>c<pre> d </pre></ul>", paragraphs=3)


def _mutated_page(rng: Random) -> bytes:
    """A page with mutated text, bytes or addresses."""
    page = _page()
    if rng.random() < 0.4:
        address = rng.choice((*ADDRESSES, mutate_text(rng, ADDRESSES)))
        page = page.replace("a.png", address) if rng.random() < 0.7 else f"<base href='{address}'>{page}"
    draw = rng.random()
    if draw < 0.3:
        return encoded(page)
    return encoded(mutate_text(rng, [page])) if draw < 0.8 else mutate_bytes(rng, [encoded(page)])


ADDRESSES = (
    *(
        "http://[",
        "//[x",
        "http://[::1",
        "https://a.example:99999/a.png",
        "data:image/png;base64,@@",
        "data:,x",
        "a.png",
    ),
    *("//", "http://", "file:///dev/null", "../a.png", "%2e%2e/a.png", "a.png?x#y", "http://a b/", "\\x\\y", "?", "#"),
)


@cache
def _archives() -> list[bytes]:
    from tests.data.sources.made import record, warc

    records = [record(f"https://a.example/{n}", "text/html", _page().encode()) for n in range(2)]
    records.append(record("https://a.example/a.png", "image/png", _png()))
    return [warc(records, compress=False), warc(records)]


@cache
def _pdfs() -> list[bytes]:
    from tests.data.sources.made import pdf

    line = (72.0, 700.0, "There is enough text on this page (and more) to be kept.")
    return [pdf([[line]]), pdf([[line, (72.0, 680.0, "two")], [line]], extra="/Rotate 90", content="0 0 99 99 re f")]


FORMATS = (
    "PNG",
    "JPEG",
    "GIF",
    "WEBP",
    "TIFF",
    "BMP",
    "ICO",
    "PPM",
    "TGA",
    "PCX",
    "SGI",
    "JPEG2000",
    "AVIF",
    "ICNS",
    "DDS",
)


@cache
def _images() -> list[bytes]:
    import PIL.Image

    made = []
    for form in FORMATS:
        for mode in ("RGB", "L", "RGBA", "1", "P", "I;16"):
            file = io.BytesIO()
            try:
                PIL.Image.frombytes("RGB", (32, 32), bytes(range(256)) * 12).convert(mode).save(file, form)
            except (OSError, ValueError, KeyError):  # a format that has no such mode
                continue
            made.append(file.getvalue())
    return made


def _read_image(content: bytes, folder: Path) -> None:
    from lorgnette.inputs.config import ImageConfig
    from lorgnette.inputs.image import glance, image_patches, open_image

    small = ImageConfig(shortest=28, longest=56, grid=4, max_pixels=4_000_000)
    refused: list[LorgnetteError] = []
    ways: list[Callable[[], Any]] = [
        lambda: open_image(content, max_pixels=4_000_000).load(),
        lambda: glance(content, side=28),
        lambda: image_patches(content, small, split=True),
        lambda: image_patches(content, small.model_copy(update={"resize": "fast"}), split=False),
    ]
    for way in ways:
        try:
            way()
        except LorgnetteError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _from_messages(content: bytes, folder: Path) -> None:
    from lorgnette.sample import Sample
    from tests.hub.tiny import tiny_processor

    values = json.loads(content)  # what a request's body has become before it reaches us
    _processor_of(tiny_processor)([Sample.from_messages(values)])


@cache
def _processor_of(make: Callable[[], Any]) -> Any:
    return make()


def _message_values(rng: Random) -> bytes:
    conversations = [row["messages"] for row in _rows("messages")[:1]]
    value = mutate_value(rng, [*conversations, [{"role": "user", "content": "Hi"}]])
    return json.dumps(value).encode()


TEMPLATES = (
    "{% for m in messages %}<s>{{ m.role }}: {% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}"
    "{{ c.text }}{% endif %}{% endfor %}</s>\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
    "{%- set ns = namespace(n=0) -%}{%- for message in messages -%}{%- set ns.n = ns.n + 1 -%}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n{%- endfor -%}",
    "{{ bos_token }}{% for m in messages %}{% if m['role'] not in ['user', 'assistant', 'system'] %}"
    "{{ raise_exception('no such role') }}{% endif %}[{{ m['content'] }}]{{ loop.index0 }}{% endfor %}",
)
SCRAPS = (
    *("{{ ns.n }}", "{% set x = 'a' * 99 %}{{ x }}", "{% for i in range(99) %}", "{% endfor %}", "|tojson", "|upper"),
    *("{{ messages }}", "{{ '9' * 5000 }}", "|join(',')", "|length", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    *("{{ 1 // 0 }}", "['x']", ".split(' ')[9]", "{{ messages[9] }}", "{{ strftime_now('%Y') }}", "{% break %}"),
)  # fmt: skip


def _template(rng: Random) -> bytes:
    text = mutate_text(rng, TEMPLATES) if rng.random() < 0.7 else rng.choice(TEMPLATES)
    for _ in range(rng.choice((0, 0, 1, 2))):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(SCRAPS) + text[at:]
    return encoded(text)


def _render(content: bytes, folder: Path) -> None:
    import dataclasses

    from lorgnette.inputs.templates.template import JinjaTemplate
    from lorgnette.sample import Sample
    from tests.hub.tiny import tiny_processor

    processor = _processor_of(tiny_processor)
    template = JinjaTemplate(content.decode("utf-8", "replace"), processor.tokenizer)
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "This."}]
    dataclasses.replace(processor, template=template).render(Sample.from_messages(talk))


@cache
def _checkpoint(form: str) -> Path:
    """A good folder of a form, written once in each process that asks: ours, or as transformers' class writes it."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="lorgnette-checkpoint-")) / "good"
    if form == "idefics2":
        from lorgnette.hub.export import export
        from tests.hub.tiny import tiny_model, tiny_processor

        return export(tiny_model(), tiny_processor(), folder)
    from tests.hub.formats import test_idefics1, test_idefics3, test_llava

    writers = {
        "llava": test_llava.write_llava_folder,
        "idefics1": test_idefics1.write_folder,
        "idefics3": test_idefics3.write_folder,
        "smolvlm": partial(test_idefics3.write_folder, kind="smolvlm"),
    }
    return writers[form](folder)


def _checkpoint_file(form: str, rng: Random) -> bytes:
    """A file of the folder, mutated: its name, a line break, its content."""
    files = sorted(file for file in _checkpoint(form).iterdir() if file.suffix != ".md")
    file = rng.choice(files)
    content = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.8:
        content = encoded(mutate_json(rng, [json.loads(content)]))
    elif file.suffix == ".safetensors" and rng.random() < 0.7:
        length = int.from_bytes(content[:8], "little")
        head = encoded(mutate_json(rng, [json.loads(content[8 : 8 + length])]))
        content = len(head).to_bytes(8, "little") + head + content[8 + length :]
    else:
        content = mutate_bytes(rng, [content])
    return file.name.encode() + b"\n" + content


def _load_checkpoint(form: str, content: bytes, folder: Path) -> None:
    from lorgnette.hub.load import load

    name, _, changed = content.partition(b"\n")
    shutil.copytree(_checkpoint(form), folder / "model")
    (folder / "model" / name.decode()).write_bytes(changed)
    load(folder / "model")


def _checkpoints(form: str) -> Reader:
    """Folders of a form of checkpoints, one file of them mutated."""

    def seeds() -> list[bytes]:
        return [b"generation_config.json\n" + (_checkpoint(form) / "generation_config.json").read_bytes()]

    return Reader(seeds, partial(_checkpoint_file, form), partial(_load_checkpoint, form))


ANSWER = {"id": "1", "object": "chat.completion", "model": "m", "system_fingerprint": "f", "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]}  # fmt: skip
FAILURE = {"error": {"message": "unsupported: temperature", "param": "temperature", "code": "unsupported", "type": "x"}}


def _answer(rng: Random) -> bytes:
    """A reply of a server: its status, a header, its body."""
    status = rng.choice((200, 200, 200, 400, 401, 404, 429, 500, 503, 302))
    header = rng.choice(
        ("Retry-After: 0", "Retry-After: " + rng.choice(SNIPPETS_OF_HEADERS), "X: y", "Content-Encoding: gzip")
    )
    body = mutate_json(rng, [ANSWER] if status == 200 else [ANSWER, FAILURE])
    return f"{status}\n{header}\n".encode() + encoded(body)


SNIPPETS_OF_HEADERS = ("0", "1e400", "nan", "-1", "x", "0.001", "Mon, 99 Foo 0000 99:99:99 GMT", "9" * 500, "inf")


def _ask(content: bytes, folder: Path) -> None:
    from lorgnette.eval.models.http_client import ServerSettings
    from lorgnette.eval.models.openai_api import OpenAIModel
    from lorgnette.sample import Sample
    from tests.eval.serving import Reply, serving

    status, header, body = content.split(b"\n", 2)
    name, _, value = header.decode().partition(": ")
    with serving(lambda request: Reply(int(status), body, {name: value})) as served:
        settings = ServerSettings(attempts=1, timeout=5, patience=0.5, backoff=0, concurrency=1)
        answer = OpenAIModel(served.address, "m", settings).generate(
            [Sample.from_messages([{"role": "user", "content": "Well?"}])], max_tokens=3
        )
        assert isinstance(answer[0], str)


def _table(kind: str, name: str) -> Reader:
    """A kind of rows in a file of JSON."""

    def seeds() -> list[bytes]:
        return [encoded("\n".join(json.dumps(row) for row in _rows(kind)))]

    return Reader(seeds, partial(_jsonl, kind), partial(_sift_file, kind, name, {}))


def _sift_file(kind: str, name: str, settings: dict[str, Any], content: bytes, folder: Path) -> None:
    _sift(kind, name, content, folder, **settings)


def _csv() -> list[str]:
    return ["image,alt,caption\na.png,a tile,A tile.\n", 'image,alt\na.png,"two\nlines"\n']


NO_FETCH = {"fetch": False, "need_both": False}
LOW = {"dpi": 36}

READERS: dict[str, Reader] = {
    "settings": Reader(
        lambda: [encoded(yaml.safe_dump(_recipes()[0]))],
        lambda rng: encoded(mutate_yaml(rng, _recipes())),
        _load_settings,
    ),
    "overrides": Reader(lambda: [b"seed=1"], lambda rng: encoded(mutate_text(rng, OVERRIDES)), _override),
    "chat": _table("chat", "rows.jsonl"),
    "instruct": Reader(
        lambda: [_parquet()],
        lambda rng: mutate_bytes(rng, [_parquet()]),
        partial(_sift_file, "instruct", "a.parquet", {}),
    ),
    "pairs": _table("pairs", "metadata.jsonl"),
    "pairs csv": Reader(
        lambda: [encoded(_csv()[0])],
        lambda rng: encoded(mutate_text(rng, _csv())),
        partial(_sift_file, "pairs", "metadata.csv", {}),
    ),
    "interleaved": Reader(
        lambda: [_interleaved([])],
        lambda rng: _interleaved([mutate_value(rng, _rows("interleaved"))]),
        partial(_sift_file, "interleaved", "a.parquet", {}),
    ),
    "messages rows": Reader(
        lambda: [encoded(json.dumps(_rows("messages")[0]))],
        partial(_jsonl, "messages"),
        partial(_sift, "messages", "rows.jsonl"),
    ),
    "webpages": Reader(lambda: [encoded(_page())], _mutated_page, partial(_sift_file, "webpages", "a.html", NO_FETCH)),
    "warc": Reader(
        _archives, lambda rng: mutate_bytes(rng, _archives()), partial(_sift_file, "webpages", "a.warc", NO_FETCH)
    ),
    "documents": Reader(_pdfs, lambda rng: mutate_bytes(rng, _pdfs()), partial(_sift_file, "documents", "a.pdf", LOW)),
    "images": Reader(_images, lambda rng: mutate_bytes(rng, _images()), _read_image),
    "messages": Reader(
        lambda: [json.dumps(_rows("messages")[0]["messages"]).encode()], _message_values, _from_messages
    ),
    "templates": Reader(lambda: [encoded(one) for one in TEMPLATES[:2]], _template, _render),
    "checkpoints": _checkpoints("idefics2"),
    **{f"checkpoints of {form}": _checkpoints(form) for form in ("llava", "idefics1", "idefics3", "smolvlm")},
    **{name: Reader(*parts) for name, parts in PARTS.items()},
    "answers": Reader(lambda: [b"200\nX: y\n" + json.dumps(ANSWER).encode()], _answer, _ask),
}
"""Name -> reader."""


def _hang(content: bytes, folder: Path) -> None:
    while content:
        pass


def _die(content: bytes, folder: Path) -> None:
    os.abort() if len(content) > 1 else None


def _grow(content: bytes, folder: Path) -> None:
    if len(content) > 1:
        bytearray(b"x") * (700 * 2**20)


def _stumble(content: bytes, folder: Path) -> None:
    if len(content) > 1:
        raise ValueError("not an error of lorgnette's")


def _faulty(read: Callable[[bytes, Path], object]) -> Reader:
    return Reader(lambda: [b""], lambda rng: bytes(2), read)


FAULTY = {"hang": _faulty(_hang), "death": _faulty(_die), "over_memory": _faulty(_grow), "traceback": _faulty(_stumble)}
"""Outcome -> a reader whose every input ends so, to try the harness itself."""


def _interleaved(rows: list[Any]) -> bytes:
    """Rows as parquet; a value that parquet has no type for becomes its JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    try:
        table = pa.Table.from_pylist([*_rows("interleaved"), *rows])
        pq.write_table(table, file)
    except (pa.ArrowException, ValueError, TypeError, AttributeError, RecursionError):
        texts = [{"images": None, "texts": [repr(row)[:9_000]]} for row in rows]
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(texts), file)
    return file.getvalue()


from tests.fuzz.row_files import READERS_OF_ROWS  # noqa: E402  which needs what stands above

READERS |= READERS_OF_ROWS
