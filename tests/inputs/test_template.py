"""Chat templates of other models, in the sandbox."""

from __future__ import annotations

import pickle

import pytest

from lorgnette.errors import CheckpointError
from lorgnette.inputs.templates.template import Idefics2Template, JinjaTemplate, Special, turns
from lorgnette.sample import Image, Sample, Text, Turn
from tests.inputs.conftest import noise

CHATML = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' }}"
    "{% for part in message.content %}{{ part.text if part.type == 'text' else '<image>' }}{% endfor %}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
STRINGS = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
    "{{ '[INST] ' + message.content + ' [/INST]' }}{% else %}{{ ' ' + message.content + eos_token }}"
    "{% endif %}{% endfor %}"
)
TRIMMED = (
    "{% for message in messages %}{{ message.role }}: {{ message.content | trim }}<end_of_utterance>\n{% endfor %}"
)
IMAGES_FIRST = (
    "{% for message in messages %}"
    "{% for part in message.content | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for part in message.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %}\n{% endfor %}"
)


def picture() -> Image:
    return Image(noise(8, 8))


def conversation() -> Sample:
    question = (Turn("user"), picture(), Text(" Which one? "), Text("This?"))
    return Sample((*question, Turn("assistant"), Text(" Left \n", supervised=True)))


def written(template: str, sample: Sample, tokenizer, **options) -> str:
    """All pieces as one string, learned ones in brackets."""
    texts = []
    for piece in JinjaTemplate(template, tokenizer).pieces(sample, **options):
        text = "(image)" if isinstance(piece, Image) else piece.token if isinstance(piece, Special) else piece.text
        texts.append(f"[{text}]" if not isinstance(piece, Image) and piece.supervised else text)
    return "".join(texts)


def test_turns_group_segments():
    found = list(turns(conversation()))
    assert [role for role, _ in found] == ["user", "assistant"]
    assert [len(contents) for _, contents in found] == [3, 1]
    assert list(turns(Sample((Turn("user"), Turn("assistant"))))) == [("user", []), ("assistant", [])]


def test_a_template_of_parts(tokenizer):
    assert written(CHATML, conversation(), tokenizer) == (
        "<|user|>\n(image) Which one? This?</s>\n<|assistant|>\n[ Left \n][</s>]\n"
    )
    assert written(CHATML, Sample((Turn("user"), Text("Hi"))), tokenizer, add_generation_prompt=True) == (
        "<|user|>\nHi</s>\n<|assistant|>\n"
    )


def test_a_template_of_strings_takes_images_too(tokenizer):
    assert written(STRINGS, conversation(), tokenizer) == (
        "<s>[INST] (image) Which one? This? [/INST][ ][ Left \n][</s>]"
    )


def test_a_template_that_trims_trims_the_contents(tokenizer):
    assert written(TRIMMED, conversation(), tokenizer) == (
        "user: (image) Which one? This?<end_of_utterance>\nassistant:[ ][Left][<end_of_utterance>]\n"
    )


def test_a_template_may_put_images_first(tokenizer):
    sample = Sample((Turn("user"), Text("a"), picture(), Text("b"), picture()))
    assert written(IMAGES_FIRST, sample, tokenizer) == "(image)(image)ab"
    pieces = JinjaTemplate(IMAGES_FIRST, tokenizer).pieces(sample)
    assert [piece for piece in pieces if isinstance(piece, Image)] == list(sample.images)


def test_only_the_token_that_closes_a_turn_is_learned(tokenizer):
    template = STRINGS.replace("{{ bos_token }}", "").replace("{{ ' '", "{{ bos_token + ' '")
    sample = Sample((*conversation().segments, Turn("assistant"), Text("Not learned.")))
    assert written(template, sample, tokenizer).endswith("<s>[ ][ Left \n][</s>]<s> Not learned.</s>")


def test_a_used_template_goes_to_another_process(tokenizer):
    template = JinjaTemplate(CHATML, tokenizer)
    pieces = template.pieces(conversation())
    assert len(pickle.loads(pickle.dumps(template)).pieces(conversation())) == len(pieces)


def test_an_empty_turn_is_written():
    pieces = Idefics2Template().pieces(Sample((Turn("user"), Turn("assistant"))))
    assert pieces[:4] == [Text("User:"), Text(" "), Special("<end_of_utterance>"), Text("\n")]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for message in messages %}", "Unexpected end of template"),
        ("{{ raise_exception('no system turns') }}", "row 3: .*: no system turns"),
        ("{{ messages[7].content }}", "has no element 7"),
        ("{{ 1 // 0 }}", "division"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("nothing of it", "leaves out or repeats"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "leaves out or repeats"),
        ("<image>{% for m in messages %}{{ m.content }}{% endfor %}", "leaves out or repeats"),
    ],
)
def test_a_template_that_does_not_do_is_refused(template, reason, tokenizer):
    sample = Sample((*conversation().segments,), {"name": "row 3"})
    with pytest.raises(CheckpointError, match=reason):
        JinjaTemplate(template, tokenizer).pieces(sample)
