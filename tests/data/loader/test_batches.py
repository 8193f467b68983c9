"""Steps of prepared sources: the same for any ranks, varied as planned; what cannot be used is named and replaced."""

import numpy as np
import pytest
import torch

from lorgnette.data.loader.batches import learnable
from lorgnette.data.plan.augment import hashed
from lorgnette.data.plan.sample_ref import digest_of, joined
from lorgnette.data.prompts import ENDINGS, REQUESTS, WAYS_TO_ASK, WAYS_TO_END, reworded
from lorgnette.errors import DataError, SettingsError
from lorgnette.sample import Sample, Text, Turn
from tests.data.squares import prepared, processor, spoil, steps_of


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("data") / "squares")


def same(ours, theirs) -> bool:
    """Return whether two lists of batches are equal, tensor by tensor."""
    return len(ours) == len(theirs) and all(
        torch.equal(getattr(one, name), getattr(two, name))
        if isinstance(getattr(one, name), torch.Tensor)
        else getattr(one, name) == getattr(two, name)
        for one, two in zip(ours, theirs, strict=True)
        for name in one.__dataclass_fields__
    )


def test_each_pack_is_a_batch_within_its_budgets(squares):
    steps = steps_of(squares)
    for step in range(4):
        batches = steps.batches(step)
        assert len(batches) == 6
        for batch, planned in zip(batches, steps.plan.packs(step), strict=True):
            assert batch.documents.total <= 200 and batch.images.total <= 2000
            assert len(batch.documents) == len(planned) and set(batch.refs) == set(map(str, planned))
            assert set(batch.names) == set(map(steps.plan.name, planned)) and not batch.replaced


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_packs_of_a_step_and_add_up_to_its_digest(squares, world):
    whole = steps_of(squares)
    for step in (0, 3, 7):
        ranks = [steps_of(squares, rank, world).batches(step) for rank in range(world)]
        assert {len(batches) for batches in ranks} == {6 // world}
        back = [ranks[place % world][place // world] for place in range(6)]
        assert same(back, whole.batches(step))
        digests = [digest_of(ref for batch in batches for ref in batch.refs) for batches in ranks]
        assert joined(digests) == whole.plan.digest(step)


def test_ranks_that_cannot_share_equally_are_refused(squares):
    with pytest.raises(SettingsError, match="which 4 ranks cannot share equally: make it a multiple of 4"):
        steps_of(squares, 0, 4)


def test_samples_are_rendered_as_the_plan_shows_them(squares):
    steps = steps_of(squares, templates=False)
    plain = steps_of(squares, templates=False, split=0.0, upscale=0.0)
    seen = set()
    for ref in [ref for step in range(8) for ref in steps.plan.step(step)]:
        drawn, view = steps.read(ref), steps.plan.view(ref, shuffle=True)
        patches, tokens = drawn.shape
        assert (patches, tokens) == (view.patches, view.tokens), "counts of ordinary text are exact"
        assert len(drawn.rendered.images) == len(drawn.sample.images) * (5 if view.split else 1)
        seen.add((view.split, plain.plan.view(ref).sizes == view.sizes))
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


def test_a_sample_is_shown_otherwise_in_another_epoch_and_alike_in_the_same(squares):
    steps = steps_of(squares)
    ref = next(ref for ref in steps.plan.step(0) if ref.end - ref.start == 3 and steps.read(ref).rendered.images)
    epochs = [steps.read(ref._replace(epoch=epoch)).rendered for epoch in range(12)]
    again = [steps_of(squares).read(ref._replace(epoch=epoch)).rendered for epoch in range(12)]
    assert len({one.tokens_T.tobytes() for one in epochs}) > 4
    assert all(np.array_equal(one.tokens_T, two.tokens_T) for one, two in zip(epochs, again, strict=True))


def test_what_cannot_be_used_is_named_and_replaced_and_the_digest_holds(tmp_path):
    source = prepared(tmp_path / "squares")
    untouched = [steps_of(source).batches(step) for step in range(12)]
    spoil(source, 4)
    steps = steps_of(prepared_again(source))
    sentences = []
    for step in range(12):
        batches = steps.batches(step)
        assert digest_of(ref for batch in batches for ref in batch.refs) == steps.plan.digest(step)
        for batch, before in zip(batches, untouched[step], strict=True):
            assert batch.documents.total <= 200 and batch.images.total <= 2000
            assert bool(batch.replaced) == any("row 4" in name and "group 0" in name for name in before.names)
            sentences += batch.replaced
    assert sentences
    for sentence in sentences:
        assert "group 0, row 4" in sentence and "cannot be read as an image" in sentence
        assert "stands in its place" in sentence
    assert same(steps.batches(1), steps_of(prepared_again(source)).batches(1)), "replacements differ from time to time"


def prepared_again(source):
    """The same index, with files opened anew."""
    return type(source)(source.config, source.index, source.folder)


def test_a_row_that_changed_since_it_was_counted_is_named(squares):
    index = squares.index
    shorter = type(index)(index.shards, **{**index.arrays, "tokens_U": np.maximum(1, index.tokens_U - 5)})
    steps = steps_of(type(squares)(squares.config, shorter, squares.folder))
    with pytest.raises(DataError, match=r"squares: .* row \d.* where its index says .* run `lorgnette data prepare`"):
        steps.read(steps.plan.step(0)[0])


def test_a_pack_of_which_nothing_can_be_used_ends_the_run_and_says_why(tmp_path):
    source = prepared(tmp_path / "squares")
    (tmp_path / "squares" / "0.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"step 0: no sample of pack 0 can be used.*cannot be read as parquet"):
        steps_of(prepared_again(source)).batches(0)


def test_what_cannot_be_learned_is_not_trained_on(squares):
    steps = steps_of(squares)
    drawn = steps.read(steps.plan.step(0)[0])
    assert learnable(drawn, processor(), None) is drawn
    with pytest.raises(DataError, match="outside the embedding of 100 rows"):
        learnable(drawn, processor(), vocabulary=100)


def asked(text: str, seed: int) -> str:
    sample = Sample((Turn("user"), Text(text), Turn("assistant"), Text("Be brief.", supervised=True)))
    words = reworded(sample, processor().tokenizer, seed)
    assert words.segments[-1] == sample.segments[-1], "an answer was reworded"
    return words.segments[1].text


@pytest.mark.parametrize(
    ("text", "start", "wordings"),
    [
        ("Please describe the image for me.", "", REQUESTS["describe"]),
        ("How many? Answer with a word or a short phrase.", "How many? ", ENDINGS["briefly"]),
        ("  What is 2 + 2?\nWork it out step by step.\n", "  What is 2 + 2?\n", ENDINGS["in steps"]),
    ],
)
def test_known_requests_are_worded_in_their_other_ways(text, start, wordings):
    drawn = {asked(text, seed) for seed in range(60)}
    assert len(drawn) > 4
    tokens = processor().tokenizer
    for one in drawn:
        assert one.startswith(start) and one[len(start) :].rstrip("\n") in wordings
        assert len(tokens.encode(one, first=False)) <= len(tokens.encode(text, first=False))


@pytest.mark.parametrize("text", ["", " ", "What colour is it?", "Describe the image of a cat.", "Yes", "Be brief.x"])
def test_other_questions_stay_as_they_are(text):
    assert {asked(text, seed) for seed in range(5)} == {text}


def test_no_wording_means_two_things():
    wordings = [one.casefold() for group in (REQUESTS, ENDINGS) for ways in group.values() for one in ways]
    assert len(wordings) == len(set(wordings)) == len(WAYS_TO_ASK) + len(WAYS_TO_END)
    assert int(hashed(3, 1)[0]) != int(hashed(3, 2)[0])
