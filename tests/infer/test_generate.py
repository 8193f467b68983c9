"""Generation: the cache and the batch change nothing, and every way to end an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from lorgnette.errors import ImageError, SettingsError
from lorgnette.infer.generate import Generation, TextDelta, decoder_of, end_tokens, generate, slot_tokens, stream
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.infer.reference import generate_reference
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import SAMPLES, question, tiny_config, tiny_model, tiny_processor

GEMMA = {"activation": "gelu_tanh", "norm_offset": True, "scaled_embedding": True}
MODELS = {
    "mistral": {},
    "window": {"sliding_window": 9},
    "one kv head, tied": {"kv_heads": 1, "tied_embeddings": True},
    "qwen3": {"family": "qwen3", "qk_norm": True},
    "gemma": GEMMA | {"family": "gemma"},
    "gemma 2": GEMMA
    | {"family": "gemma2", "post_norms": True, "sliding_window": 9, "global_every": 2}
    | {"score_cap": 0.5, "logit_cap": 3.0},
    "gemma 3": GEMMA
    | {"family": "gemma3_text", "post_norms": True, "qk_norm": True, "sliding_window": 9, "global_every": 2}
    | {"local_rope_theta": 70.0, "query_pre_attn_scalar": 3},
    "smollm3": {"family": "smollm3", "no_rope_every": 2},
}
SETTINGS = {
    "greedy": GenerationConfig(max_tokens=20),
    "sampled": GenerationConfig(max_tokens=20, temperature=1.0, seed=3),
    "top-k and top-p": GenerationConfig(max_tokens=20, temperature=0.7, top_k=20, top_p=0.8, seed=4),
}


@pytest.fixture(scope="module")
def model() -> VLM:
    return tiny_model(seed=1)


@pytest.fixture(scope="module")
def processor() -> Processor:
    return tiny_processor()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("language", MODELS.values(), ids=MODELS)
def test_cached_and_batched_equals_slow_and_alone(processor: Processor, language: dict, settings: GenerationConfig):
    model = tiny_model(tiny_config(**language), seed=1)
    together = generate(model, processor, SAMPLES, settings)
    assert together == [generate_reference(model, processor, sample, settings) for sample in SAMPLES]
    assert together == [generate(model, processor, [sample], settings)[0] for sample in SAMPLES]
    assert len({answer.tokens for answer in together}) >= 3, "the prompts are told apart"


def test_splitting_is_honoured(model: VLM, processor: Processor) -> None:
    settings = GenerationConfig(max_tokens=8)
    split = generate(model, processor, SAMPLES[:2], settings, split=True)
    assert split == [generate_reference(model, processor, sample, settings, split=True) for sample in SAMPLES[:2]]
    whole = generate(model, processor, SAMPLES[:2], settings)
    assert [a.prompt_tokens - b.prompt_tokens for a, b in zip(split, whole, strict=True)] == [4 * 5, 0]


def forced(model: VLM, tokens: Sequence[int]) -> VLM:
    """A model that says these tokens whatever it is asked, by the position of the last token of its prompt."""

    class Forced(VLM):
        def forward(self, batch, **options):
            output = super().forward(batch, **options)
            if not hasattr(self, "first"):
                self.first = batch.positions_T[batch.document_starts[1:].long() - 1]
                self.step = 0
            logits = torch.full_like(output.logits, -10.0)
            logits[:, tokens[min(self.step, len(tokens) - 1)]] = 10.0
            self.step += 1
            return replace(output, logits=logits)

    said = Forced(model.config)
    said.load_state_dict(model.state_dict())
    return said.eval()


def ids(processor: Processor, text: str) -> list[int]:
    return processor.tokenizer.encode(text)


def ask(model: VLM, processor: Processor, text: str, **settings: object) -> tuple[Generation, list[str]]:
    """The answer of a model that is made to say `text`, and its pieces."""
    said = [*ids(processor, text), processor.tokenizer.id("<end_of_utterance>")]
    pieces = list(stream(forced(model, said), processor, SAMPLES[1:2], GenerationConfig(**settings)))
    assert [piece.generation for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    return pieces[-1].generation, [piece.text for piece in pieces]


def test_an_answer_ends_where_the_model_ends_it(model: VLM, processor: Processor) -> None:
    answer, pieces = ask(model, processor, " the cat sat", max_tokens=50)
    assert (answer.text, answer.finish) == ("the cat sat", "end")
    assert answer.tokens[-1] == processor.tokenizer.id("<end_of_utterance>")
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text
    eos = forced(model, [*ids(processor, "x"), processor.tokenizer.eos])
    assert generate(eos, processor, SAMPLES[1:2])[0].finish == "end"


def test_an_answer_ends_at_its_length(model: VLM, processor: Processor) -> None:
    answer, _ = ask(model, processor, "the cat sat on the mat", max_tokens=2)
    assert (len(answer.tokens), answer.finish) == (2, "length")


STOPS = {
    "a word": (("sat",), "the cat ", "stop"),
    "across tokens": (("at sat o",), "the c", "stop"),
    "the first of several": (("mat", "cat", "zebra"), "the ", "stop"),
    "at the very start": (("t",), "", "stop"),
    "never": (("zebra", "matt"), "the cat sat on the mat", "end"),
    "at the very end": (("mat",), "the cat sat on the ", "stop"),
    "longer than the answer": (("the cat sat on the mat and",), "the cat sat on the mat", "end"),
}


@pytest.mark.parametrize(("stop", "text", "finish"), STOPS.values(), ids=STOPS)
def test_stop_strings(model: VLM, processor: Processor, stop: tuple, text: str, finish: str) -> None:
    answer, pieces = ask(model, processor, "the cat sat on the mat", stop=stop, max_tokens=60)
    assert (answer.text, answer.finish) == (text, finish)
    assert "".join(pieces) == text, "what is streamed holds no beginning of a stop string"


def test_pieces_are_whole_characters(model: VLM, processor: Processor) -> None:
    text = "naïve 😀 眼鏡 é"
    answer, pieces = ask(model, processor, text, max_tokens=80)
    assert (answer.text, "".join(pieces)) == (text, text)
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(answer.tokens) > len(pieces) > 5
    cut, pieces = ask(model, processor, "😀", max_tokens=2)
    assert cut.text == "".join(pieces) == "\ufffd", "bytes that never became a character are shown as such"


def test_no_image_slot_is_ever_generated(model: VLM, processor: Processor) -> None:
    slot = forced(model, [processor.image_token])
    answer = generate(slot, processor, SAMPLES[1:2], GenerationConfig(max_tokens=3))[0]
    assert processor.image_token not in answer.tokens


def test_finished_documents_leave_the_batch(model: VLM, processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of documents in each step is the number of answers that still go on."""
    sizes = []
    forward = VLM.forward

    def counted(self, batch, **options):
        sizes.append(len(batch.documents))
        return forward(self, batch, **options)

    monkeypatch.setattr(VLM, "forward", counted)
    settings = GenerationConfig(max_tokens=30, stop=("e", "o", "a", "\n", "M"))
    answers = generate(model, processor, SAMPLES, settings)
    lengths = [len(answer.tokens) for answer in answers]
    assert sizes == [sum(length > step for length in lengths) for step in range(max(lengths))]
    assert len(set(lengths)) > 1


def test_images_are_encoded_once(model: VLM, processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = VLM.encode_images
    monkeypatch.setattr(
        VLM, "encode_images", lambda self, batch: calls.append(len(batch.images)) or encode(self, batch)
    )
    generate(model, processor, SAMPLES, GenerationConfig(max_tokens=5))
    assert calls == [5]


def test_seeds(model: VLM, processor: Processor) -> None:
    def tokens(samples: Sequence[Sample], seed: int) -> list[tuple[int, ...]]:
        settings = GenerationConfig(max_tokens=12, temperature=1.5, seed=seed)
        return [answer.tokens for answer in generate(model, processor, samples, settings)]

    assert tokens(SAMPLES, 1) == tokens(SAMPLES, 1)
    assert tokens(SAMPLES, 1)[2] != tokens(SAMPLES, 2)[2]
    assert tokens([SAMPLES[2], SAMPLES[0]], 1) == [tokens(SAMPLES, 1)[2], tokens(SAMPLES, 1)[0]]
    drawn = tokens([SAMPLES[0]] * 4, 1)
    assert len(set(drawn)) == 4, "the same prompt four times is four draws"
    assert drawn[0] == tokens(SAMPLES, 1)[0]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_streaming_equals_not_streaming(model: VLM, processor: Processor, settings: GenerationConfig) -> None:
    answers = generate(model, processor, SAMPLES, settings)
    pieces: list[TextDelta] = list(stream(model, processor, SAMPLES, settings))
    for number, answer in enumerate(answers):
        own = [piece for piece in pieces if piece.sample == number]
        assert "".join(piece.text for piece in own) == answer.text
        assert own[-1].generation == answer
    firsts = [piece.sample for piece in pieces[: len(SAMPLES)]]
    assert len(set(firsts)) > 1, "answers grow side by side"


def test_the_templates_space_is_no_part_of_an_answer(processor: Processor) -> None:
    said = ids(processor, " the cat")
    assert decoder_of(processor, chat=True)(said) == "the cat"
    assert decoder_of(processor, chat=False)(said) == " the cat"


def test_nothing_asked_nothing_answered(model: VLM, processor: Processor) -> None:
    assert generate(model, processor, []) == []


def test_training_goes_on_after_generation(processor: Processor) -> None:
    """Tensors that generation leaves in caches of the model must be usable under autograd."""
    model = tiny_model()
    generate(model, processor, SAMPLES, GenerationConfig(max_tokens=2))
    supervised = Sample((Turn("user"), Text("the cat"), Turn("assistant"), Text("sat", supervised=True)))
    batch = processor([supervised, *SAMPLES])
    model(batch, output="loss").loss_sum.backward()
    assert model.language.embedding.table.grad is not None


def test_a_model_in_training_answers_as_one_that_is_not(processor: Processor) -> None:
    """With the original code's cross-document attention, prompts in training mode would see each other."""
    config = tiny_config().model_copy(update={"isolate_documents": False})
    model = tiny_model(config, seed=1)
    settings = GenerationConfig(max_tokens=8)
    expected = generate(model, processor, SAMPLES, settings)
    model.train()
    assert generate(model, processor, SAMPLES, settings) == expected
    assert [generate_reference(model, processor, sample, settings) for sample in SAMPLES] == expected
    assert model.training, "and it goes on training"
    pieces = stream(model, processor, SAMPLES, settings)
    next(pieces)
    pieces.close()
    assert model.training


def test_a_broken_image_is_named(model: VLM, processor: Processor) -> None:
    sample = Sample((Turn("user"), Image(b"no image"), Text("?")), {"name": "row 7"})
    with pytest.raises(ImageError, match="row 7, image 1"):
        generate(model, processor, [question("fine"), sample])


WRONG = {
    "max_tokens": ({"max_tokens": 0}, "max_tokens"),
    "temperature": ({"temperature": -1}, "temperature"),
    "top_p": ({"top_p": 0}, "top_p"),
    "top_k": ({"top_k": 0}, "top_k"),
    "stop": ({"stop": ["a", ""]}, "a stop string is empty"),
    "a typo": ({"temprature": 1}, "did you mean 'temperature'"),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        GenerationConfig.parse(values)


@pytest.mark.parametrize("latents", [False, True])
def test_a_last_text_of_the_assistants_is_continued(model: VLM, processor: Processor, latents: bool) -> None:
    """The answer goes on from the text, and does not repeat it or lose its first space."""
    sample = Sample((*question("what is it?").segments, Turn("assistant"), Text("a cat")))
    settings = GenerationConfig(max_tokens=12)
    kept = ImageFeatureCache(model, processor) if latents else None
    (answer,) = generate(model, processor, [sample], settings, image_cache=kept)
    assert answer == generate_reference(model, processor, sample, settings)
    prompt = processor([sample], continue_final_message=True)
    assert answer.prompt_tokens == len(prompt.tokens_T)
    logits = model(prompt.to(model.device), output="last").logits
    assert logits is not None
    best = logits[0].clone()
    best[slot_tokens(processor)] = -torch.inf
    assert answer.tokens[0] == int(best.argmax())
    ends = end_tokens(processor)
    assert answer.text == processor.tokenizer.decode([token for token in answer.tokens if token not in ends])
