"""The chat in the terminal, without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorgnette.errors import ImageError, LorgnetteError
from lorgnette.infer.chat import HELP, Chat, converse
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import picture, tiny_model, tiny_processor

SETTINGS = GenerationConfig(max_tokens=6)


@pytest.fixture
def chat() -> Chat:
    return Chat(tiny_model(seed=1), tiny_processor(), SETTINGS)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    picture(40, 60).save(tmp_path / "a photo.png")
    return tmp_path / "a photo.png"


def run(chat: Chat, *lines: str) -> str:
    written: list[str] = []
    converse(chat, lines, written.append)
    return "".join(written)


def test_a_conversation_is_one_growing_sample(chat: Chat, photo: Path) -> None:
    written = run(chat, f"/image {photo}", "what is this?", "", "and now?")
    first, second = (segment.text for segment in chat.segments[4::4] if isinstance(segment, Text))
    expected = (Turn("user"), Image(photo), Text("what is this?"), Turn("assistant"), Text(first))
    assert tuple(chat.segments[:5]) == expected
    assert tuple(chat.segments[5:]) == (Turn("user"), Text("and now?"), Turn("assistant"), Text(second))
    answers = generate(
        chat.model, chat.processor, [Sample(expected[:3]), Sample((*expected, *chat.segments[5:7]))], SETTINGS
    )
    said = "a photo.png, 40 x 60 pixels: to be shown with your next words"
    assert written == f"{said}\n{answers[0].text}\n{answers[1].text}\n"


def test_commands(chat: Chat) -> None:
    assert run(chat, "/help") == f"{HELP}\n"
    assert run(chat, "/quit", "never said") == ""
    run(chat, "hello")
    assert chat.segments
    assert run(chat, "/reset") == "forgotten\n"
    assert chat.segments == []
    assert "/dance is not a command" in run(chat, "/dance now")
    run(chat, "//dance")
    assert chat.segments[1] == Text("/dance")


def test_what_goes_wrong_is_one_line_and_leaves_nothing_behind(chat: Chat, tmp_path: Path, photo: Path) -> None:
    assert run(chat, "/image nowhere.png") == "nowhere.png: no such file\n"
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png" in run(chat, f"/image {tmp_path / 'text.png'}")
    assert (chat.segments, chat.images) == ([], [])
    with pytest.raises(LorgnetteError, match="no such file"):
        chat.show("~/surely/not/here.png")
    chat.show(f" '{photo}' ")
    assert chat.images == [Image(photo)]
    chat.images = [Image(tmp_path / "text.png")]
    with pytest.raises(ImageError):
        chat.ask("what is this?")


def test_an_interrupt_stops_the_answer_only(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    step = chat.engine.step
    monkeypatch.setattr(chat.engine, "step", interrupted)
    assert run(chat, "tell me everything", "/help") == f"\n{HELP}\n"
    assert chat.segments == [] and chat.engine.is_idle
    monkeypatch.setattr(chat.engine, "step", step)
    assert run(chat, "hello") == f"{chat.segments[-1].text}\n"


def test_a_later_turn_computes_nothing_twice(chat: Chat, photo: Path) -> None:
    run(chat, f"/image {photo}", "what is this?", "and now?")
    stats = chat.engine.stats()
    assert stats.image_misses == 1 and stats.prefix_hits > 0


def test_pictures_are_drawn_where_the_terminal_can(chat: Chat, photo: Path) -> None:
    written: list[str] = []
    converse(chat, [f"/image {photo}"], written.append, lambda image: f"<{image.source.name}>\n")
    assert "".join(written).startswith("<a photo.png>\na photo.png, 40 x 60 pixels: ")
