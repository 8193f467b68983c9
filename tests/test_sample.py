import base64
import io

import PIL.Image
import pytest

from lorgnette.errors import DataError
from lorgnette.sample import Image, Sample, Text, Turn

PNG = io.BytesIO()
PIL.Image.new("RGB", (2, 3), "red").save(PNG, "PNG")
ENCODED = base64.b64encode(PNG.getvalue()).decode()


def test_a_document_is_its_segments_in_order():
    picture = Image(PNG.getvalue())
    sample = Sample((Text("before "), picture, Text("after", supervised=True)), {"name": "page 3"})
    assert (sample.text, sample.images, sample.is_chat, sample.name) == ("before after", (picture,), False, "page 3")


def test_messages_become_turns():
    sample = Sample.from_messages(
        [
            {"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": "A star."},
        ]
    )
    assert sample.segments == (
        Turn("user"),
        Image("a.png"),
        Text("What is it?"),
        Turn("assistant"),
        Text("A star.", True),
    )
    assert sample.is_chat


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ({"type": "image", "url": "http://x/a.png"}, "http://x/a.png"),
        ({"type": "image", "image": PNG.getvalue()}, PNG.getvalue()),
        ({"type": "image", "base64": ENCODED}, PNG.getvalue()),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}}, PNG.getvalue()),
        ({"type": "image_url", "image_url": "http://x/a.png"}, "http://x/a.png"),
    ],
)
def test_every_form_of_image_part_is_read(part, source):
    assert Sample.from_messages([{"role": "user", "content": [part]}]).images == (Image(source),)


@pytest.mark.parametrize("supervised", ["assistant", "user", None])
def test_only_the_chosen_role_is_learned(supervised):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    sample = Sample.from_messages(messages, supervised=supervised)
    assert [s.supervised for s in sample.segments if isinstance(s, Text)] == [
        supervised == "user",
        supervised == "assistant",
    ]


def test_text_that_spells_an_image_is_no_image():
    assert Sample.from_messages([{"role": "user", "content": "look: <image>"}]).images == ()


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "robot", "content": "x"}], "role 'robot' is unknown"),
        ([{"content": "x"}], "message 0: expected"),
        (["hello"], "message 0: expected"),
        ([{"role": "user", "content": 3}], "content is a int"),
        ([{"role": "user", "content": {"type": "text"}}], "content is a dict"),
        ([{"role": "user", "content": [{"type": "text"}]}], "message 0, part 0: a text part needs"),
        ([{"role": "user", "content": ["a", {"type": "video"}]}], "part 1: type 'video' is not supported"),
        ([{"role": "user", "content": [{"type": "image"}]}], "exactly one of"),
        ([{"role": "user", "content": [{"type": "image", "path": "a", "url": "b"}]}], "exactly one of"),
        ([{"role": "user", "content": [{"type": "image", "image": 7}]}], "not a int"),
        ([{"role": "user", "content": [{"type": "image", "base64": "@@"}]}], "not valid base64"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": None}]}], "not a NoneType"),
        ([{"role": "user", "content": [7]}], "not a int"),
    ],
)
def test_a_malformed_message_is_named(messages, expected):
    with pytest.raises(DataError, match=expected):
        Sample.from_messages(messages)


def test_segments_are_checked():
    with pytest.raises(DataError, match="not str"):
        Sample(("text",))
    with pytest.raises(DataError, match="starts with a Turn"):
        Sample((Text("a"), Turn("user")))


def test_a_developers_message_is_a_systems():
    sample = Sample.from_messages([{"role": "developer", "content": "Be brief."}, {"role": "user", "content": []}])
    assert sample.segments == (Turn("system"), Text("Be brief."), Turn("user"))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "tool", "content": "42", "tool_call_id": "1"}, r"message 0: results of tools \(role 'tool'\)"),
        ({"role": "function", "content": "42", "name": "f"}, r"message 0: results of tools \(role 'function'\)"),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "message 0: tool_calls are not supported"),
        ({"role": "assistant", "content": "Hm.", "tool_calls": [{}]}, "message 0: tool_calls are not supported"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "message 0: function_call are not supported"),
        ({"role": "assistant", "content": None}, "message 0: the assistant's message has no content"),
        ({"role": "user"}, "message 0: the user's message has no content"),
        ({"role": ["user"], "content": "a"}, "message 0: role is a list"),
        ({"role": "x" * 500, "content": "a"}, "message 0: role 'x{39}…' is unknown"),
        ({"content": "a"}, "message 0: expected"),
    ],
)
def test_messages_that_are_none_of_ours_are_refused_with_a_reason(message, reason):
    with pytest.raises(DataError, match=reason):
        Sample.from_messages([message])


def test_empty_lists_of_tool_calls_are_none():
    message = {"role": "assistant", "content": "Left.", "tool_calls": [], "function_call": None}
    assert Sample.from_messages([message]).text == "Left."
