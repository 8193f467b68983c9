"""Token ids and supervised tokens of conversations, held to upstream's processor and template."""

from __future__ import annotations

import dataclasses

import pytest
from transformers import AutoProcessor

from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import IDEFICS2_TEMPLATE, JinjaTemplate
from lorgnette.sample import Image, Sample, Text
from tests.inputs.conftest import noise, old_checkpoint

I = "an image"  # noqa: E741
"""Stands for an image in the table below."""

CONVERSATIONS: list[list[tuple[str, list[str]]]] = [
    [("user", ["What is in the image?"])],
    [("user", [I])],
    [("user", [I, "What is this?"])],
    [("user", [I, " What is this?"])],
    [("user", [I, "\nWhat is this?"])],
    [("user", [I, "<b>bold</b>"])],
    [("user", ["What is this?", I])],
    [("user", ["What is this? ", I])],
    [("user", ["Before", I, "after"])],
    [("user", [I, I, "Compare them."])],
    [("user", [I, "and", I, "differ in?"])],
    [("user", ["One: ", I, " two: ", I, " three: ", I])],
    [("user", ["Two ", "texts", " in a row"])],
    [("user", [I, "sp", "lit wo", "rd"])],
    [("user", [I, "How many dogs?"]), ("assistant", ["Three."])],
    [("user", [I, "How many dogs?"]), ("assistant", ["Three."]), ("user", ["And cats?"]), ("assistant", ["One."])],
    [("user", [I, "First."]), ("assistant", ["A."]), ("user", [I, "Second."]), ("assistant", ["B."])],
    [("system", ["Be brief."]), ("user", [I, "Describe."]), ("assistant", ["A red ball."])],
    [("assistant", ["Hello!"]), ("user", ["Hi."])],
    [("user", ["Answer with an image."]), ("assistant", [I])],
    [("user", ["Answer with both."]), ("assistant", [I, "and a word."])],
    [("user", ["  leading spaces"]), ("assistant", ["trailing spaces  "])],
    [("user", ["Several\nlines\n\nof text\n"]), ("assistant", ["\ta tab"])],
    [("user", ["Que montre cette image ? À côté d'une église…"]), ("assistant", ["Une maison."])],
    [("user", ["日本語のテキスト"]), ("assistant", ["はい、🎈です。"])],
    [("user", ["café and cafe\u0301, ﬁn, Å"]), ("assistant", ["naïve"])],
    [("user", ["▁ metaspace ▁▁ and Ġ"]), ("assistant", ["ok"])],
    [("user", ["12 34 56.78 % of $1,000"]), ("assistant", ["3.14"])],
    [("user", ["a < b and c > d"])],
    [("user", ["User: who speaks?\nAssistant:"]), ("assistant", ["User: I do."])],
    [("user", ["x" * 300]), ("assistant", ["y" * 50])],
    [("user", [I, "\u00a0no-break space"]), ("assistant", ["."])],
    [("user", [I, I, I])],
    [("user", [I, "?"]), ("assistant", ["."]), ("user", ["!", I])],
]


def messages(conversation: list[tuple[str, list[str]]]) -> list[dict]:
    """The conversation in the form that both sides take."""
    picture = noise(40, 30)
    return [
        {
            "role": role,
            "content": [
                {"type": "image", "image": picture} if part is I else {"type": "text", "text": part} for part in parts
            ],
        }
        for role, parts in conversation
    ]


def upstream_ids(upstream, conversation: list[dict], generate: bool) -> list[int]:
    """Ids by the recipe of upstream's documentation: template to text, then text and images to ids."""
    prompt = upstream.apply_chat_template(conversation, add_generation_prompt=generate)
    images = [part["image"] for message in conversation for part in message["content"] if part["type"] == "image"]
    return upstream(text=prompt, images=[images] if images else None)["input_ids"][0]


TOKENIZERS = {
    "byte level": None,
    "mistral, file as it is": {"tokenizer_class": "PreTrainedTokenizerFast"},
    "mistral, legacy": {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True},
    "mistral, not legacy": {"tokenizer_class": "LlamaTokenizer", "legacy": False},
    "mistral, no first space": {"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": False},
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def both(request, processor, tmp_path_factory):
    """Our processor and upstream's, each read from the same folder."""
    folder, settings = tmp_path_factory.mktemp("checkpoint"), TOKENIZERS[request.param]
    if settings is None:
        processor.save(folder)
    else:
        old_checkpoint(folder, **settings)
    return Processor.load(folder), AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=[str(number) for number in range(len(CONVERSATIONS))])
def test_ids_are_upstreams(both, conversation):
    ours, upstream = both
    for generate in (False, True):
        given = messages(conversation)
        rendered = ours.render(Sample.from_messages(given), add_generation_prompt=generate)
        assert rendered.tokens_T.tolist() == upstream_ids(upstream, given, generate)


@pytest.mark.parametrize("conversation", CONVERSATIONS[:23:2], ids=[str(number) for number in range(0, 23, 2)])
def test_ids_are_upstreams_when_images_are_split(both, conversation):
    ours, upstream = both
    given = messages(conversation)
    rendered = ours.render(Sample.from_messages(given), split=True)
    upstream.image_processor.do_image_splitting = True
    try:
        assert rendered.tokens_T.tolist() == upstream_ids(upstream, given, generate=False)
    finally:
        upstream.image_processor.do_image_splitting = False


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=[str(number) for number in range(len(CONVERSATIONS))])
def test_jinja_and_code_write_the_same(processor, conversation):
    as_jinja = dataclasses.replace(processor, template=JinjaTemplate(IDEFICS2_TEMPLATE, processor.tokenizer))
    sample = Sample.from_messages(messages(conversation))
    for generate in (False, True):
        code, jinja = (one.render(sample, add_generation_prompt=generate) for one in (processor, as_jinja))
        assert code.tokens_T.tolist() == jinja.tokens_T.tolist()
        assert code.loss_mask_T.tolist() == jinja.loss_mask_T.tolist()


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=[str(number) for number in range(len(CONVERSATIONS))])
def test_answers_and_their_ends_are_learned(processor, conversation):
    """From the space after `Assistant:`, where generation begins, to the end of the utterance."""
    rendered = processor.render(Sample.from_messages(messages(conversation)))
    expected = ""
    for role, parts in conversation:
        texts = [part for part in parts if part is not I]
        if role == "assistant" and texts:
            expected += " " + "".join(texts) + "<end_of_utterance>"
    supervised = processor.tokenizer.decode(rendered.tokens_T[rendered.loss_mask_T], keep_special=True)
    assert supervised == expected
    assert processor.image_token not in rendered.tokens_T[rendered.loss_mask_T]


DOCUMENTS = [
    ["A red ball."],
    [I, "A red ball."],
    [I, "\nA red ball."],
    [I, "<b>A red ball.</b>"],
    ["Before", I, "after", I],
    [" one", I, I, "\ntwo"],
]


@pytest.mark.parametrize("parts", DOCUMENTS, ids=[str(number) for number in range(len(DOCUMENTS))])
def test_ids_of_documents_are_upstreams(both, parts):
    ours, upstream = both
    picture = noise(40, 30)
    sample = Sample(tuple(Image(picture) if part is I else Text(part) for part in parts))
    text = "".join("<image>" if part is I else part for part in parts)
    images = [picture] * len(sample.images)
    expected = upstream(text=text, images=[images] if images else None)["input_ids"][0]
    assert ours.render(sample, add_generation_prompt=True).tokens_T.tolist() == expected
    assert ours.render(sample).tokens_T.tolist() == [*expected, ours.tokenizer.eos]


LITERALS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<s>", "</s>"]


@pytest.mark.parametrize("literal", LITERALS)
@pytest.mark.parametrize("template", ["code", "jinja"])
def test_special_tokens_that_a_user_types_stay_text(both, literal, template):
    processor = both[0]
    if template == "jinja":
        processor = dataclasses.replace(processor, template=JinjaTemplate(IDEFICS2_TEMPLATE, processor.tokenizer))
    plain = [("user", [I, "What is @ here? @@"]), ("assistant", ["@"])]
    typed = [(role, [part.replace("@", literal) if part is not I else I for part in parts]) for role, parts in plain]
    special = processor.tokenizer.id(literal)
    one, other = (processor.render(Sample.from_messages(messages(each))) for each in (plain, typed))
    assert (other.tokens_T == special).sum() == (one.tokens_T == special).sum()
    text = [token for token in other.tokens_T.tolist() if token not in map(processor.tokenizer.id, LITERALS)]
    assert processor.tokenizer.decode(text).count(literal) == 4
    processor.pack([other])
