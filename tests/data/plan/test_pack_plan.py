"""The plan of packs: pure, each record once an epoch, no pack over its budgets, the same wherever it is asked."""

import json
import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorgnette.data.config import AugmentConfig
from lorgnette.data.plan import pack_sequence
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.data.plan.sample_ref import SampleRef, digest_of, joined
from lorgnette.errors import DataError
from lorgnette.model.configs.connector_config import PerceiverConfig
from tests.data.plans import index_of, made_index, plan_of

VARIED = AugmentConfig(split=0.5, upscale=0.5)


def made_plan(**settings):
    values = {"augment": VARIED, "weights": (1.0, 2.0), "most_units": 4} | settings
    return plan_of(made_index(90, seed=1), made_index(150, seed=2, most_units=9), **values)


PLANS = st.builds(
    made_plan,
    seed=st.integers(0, 2**31),
    weights=st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)),
    by=st.sampled_from(["samples", "tokens", "supervised", "epochs"]),
    tokens=st.sampled_from([256, 512, 2000]),
    packs_per_step=st.integers(1, 5),
    most_units=st.sampled_from([None, 2, 7]),
)


def refs_of(plan, steps: int) -> list[SampleRef]:
    return [ref for step in range(steps) for ref in plan.step(step)]


def windows_of(plan, windows: int) -> list[list[SampleRef]]:
    """The samples of the first windows, each window's together."""
    ends = [0]
    for window in range(windows):
        ends.append(ends[-1] + len(plan.sequence.window(window).packs))
    packs_per_step = plan.pack.packs_per_step
    packs = [plan.packs(number // packs_per_step)[number % packs_per_step] for number in range(ends[-1])]
    return [[ref for pack in packs[start:end] for ref in pack] for start, end in pairwise(ends)]


@settings(max_examples=15)
@given(PLANS)
def test_each_record_is_trained_on_once_in_each_epoch(plan):
    refs = [ref for window in windows_of(plan, 3) for ref in window]
    units = Counter((ref.source, ref.record, ref.epoch, unit) for ref in refs for unit in range(ref.start, ref.end))
    assert set(units.values()) == {1}, "a unit stands in two samples of one epoch"
    for source, planned in enumerate(plan.sources):
        out = {record for record, _ in plan.splitter.left_out(source)}
        epochs = sorted({ref.epoch for ref in refs if ref.source == source})
        for epoch in epochs[:-1]:  # the last one may not be through
            seen = Counter(ref.record for ref in refs if (ref.source, ref.epoch) == (source, epoch))
            assert set(range(len(planned.index))) - out <= seen.keys()
            held = sum(ref.end - ref.start for ref in refs if (ref.source, ref.epoch) == (source, epoch))
            assert out or held == planned.index.units_E.sum()


@settings(max_examples=15)
@given(PLANS)
def test_no_pack_exceeds_its_budgets(plan):
    for step in range(6):
        for pack in plan.packs(step):
            shown = [plan.view(ref) for ref in pack]
            assert pack and sum(one.tokens for one in shown) <= plan.pack.tokens
            assert sum(one.patches for one in shown) <= plan.pack.patches


@settings(max_examples=15)
@given(PLANS)
def test_the_mixture_is_within_bounds_at_the_end_of_every_window(plan):
    drawn: Counter[int] = Counter()
    records: set[tuple[int, int, int]] = set()
    for number, window in enumerate(windows_of(plan, 4), 1):
        records |= {(ref.source, ref.record, ref.epoch) for ref in window}
        drawn = Counter(source for source, _, _ in records)
        total = number * plan.sequence.draws_per_window
        for source, share in enumerate(plan.sequence.mixture.shares):
            lost = len({record for record, _ in plan.splitter.left_out(source)})
            epochs = total * share / len(plan.sources[source].index) + 1
            assert float(total * share) - 1 - lost * epochs <= drawn[source] <= float(total * share) + 1


def test_within_a_window_the_mixture_is_that_of_a_shuffle():
    plan = made_plan(weights=(1.0, 1.0), augment=AugmentConfig(), packs_per_step=1)
    [window] = windows_of(plan, 1)
    whole = Counter(ref.source for ref in window)
    half = Counter(ref.source for ref in window[: len(window) // 2])
    for source, count in whole.items():
        assert abs(half[source] - count / 2) < 4 * np.sqrt(count) / 2


def test_no_large_window_draws_more_of_a_source_than_it_has():
    plan = plan_of(made_index(300, seed=1), made_index(3000, seed=2), weights=(1.0, 3.0))
    assert len(plan.sequence.window(0).packs) > pack_sequence.LEAST_PACKS
    for window in windows_of(plan, 3):
        drawn = Counter(source for source, _, _ in {(ref.source, ref.record, ref.epoch) for ref in window})
        assert drawn[0] <= 301 and drawn[1] <= 3001


@pytest.mark.parametrize("by", ["samples", "tokens", "supervised", "epochs"])
def test_weights_are_shares_of_what_is_asked_for(by):
    supervised = [[1] * 2, [40] * 2]
    indexes = [index_of([[length] * 2] * count, supervised=[marks] * count) for length, count, marks in
               [(20, 300, supervised[0]), (60, 100, supervised[1])]]  # fmt: skip
    plan = plan_of(*indexes, weights=(1.0, 3.0), by=by)
    refs = refs_of(plan, 400)
    counts = Counter(ref.source for ref in refs)
    value = {"samples": (1, 1), "tokens": (42, 122), "supervised": (2, 80), "epochs": (1 / 300, 1 / 100)}[by]
    assert counts[1] * value[1] / (counts[0] * value[0]) == pytest.approx(3.0, rel=0.03)


@settings(max_examples=10)
@given(PLANS, st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_a_step_computed_alone_equals_the_step_in_sequence(plan, steps):
    whole = [plan.packs(step) for step in range(41)]
    for step in steps:
        alone = PackedPlan(**{name: getattr(plan, name) for name in plan.__dataclass_fields__})
        assert alone.packs(step) == whole[step]


def test_pickling_changes_nothing():
    plan = made_plan()
    fresh = pickle.loads(pickle.dumps(plan))
    expected = [plan.packs(step) for step in range(30)]
    used = pickle.loads(pickle.dumps(plan))
    assert [fresh.packs(step) for step in range(30)] == [used.packs(step) for step in range(30)] == expected
    assert fresh.key == used.key == plan.key


def test_the_order_hangs_on_every_setting_and_length():
    plans = [
        made_plan(),
        made_plan(seed=4),
        made_plan(weights=(1.0, 2.5)),
        made_plan(by="tokens"),
        made_plan(tokens=400),
        made_plan(patches=15_000),
        made_plan(augment=AugmentConfig()),
        made_plan(most_units=3),
        made_plan(connector=PerceiverConfig(latents=16)),
        plan_of(made_index(90, seed=1), made_index(150, seed=3), weights=(1.0, 2.0), most_units=4, augment=VARIED),
    ]
    assert len({plan.key for plan in plans}) == len(plans)
    digests = [tuple(plan.digest(step) for step in range(30)) for plan in plans]
    assert len(set(digests)) == len(plans)


def test_a_digest_names_the_samples_in_any_order_and_split_over_ranks():
    refs = [str(ref) for ref in made_plan().step(3)]
    assert digest_of(refs) == digest_of(refs[::-1]) == made_plan().digest(3)
    assert joined([digest_of(refs[rank::3]) for rank in range(3)]) == digest_of(refs)
    assert digest_of(refs) != digest_of(refs[1:]) != digest_of([*refs[1:], "0,1,2,3,4"])
    assert len({made_plan().digest(step) for step in range(40)}) == 40


def test_saved_counts_find_a_late_step_at_once(tmp_path, monkeypatch):
    plan, path = made_plan(), tmp_path / "counts.json"
    expected = plan.packs(400)
    plan.save_counts(path)
    again = made_plan()
    again.load_counts(path)
    packed = []
    pack = pack_sequence.pack_lengths
    monkeypatch.setattr(pack_sequence, "pack_lengths", lambda *given: packed.append(given) or pack(*given))
    assert again.packs(400) == expected
    assert 1 <= len(packed) <= 2, "windows before the step were packed again"


@pytest.mark.parametrize("damage", ["missing", "cut", "of another plan", "a list", "not positive"])
def test_counts_that_cannot_be_used_are_counted_again(tmp_path, damage):
    plan, path = made_plan(), tmp_path / "counts.json"
    expected = plan.packs(50)
    plan.save_counts(path)
    content = path.read_text()
    values = json.loads(content)
    texts = {
        "cut": content[: len(content) // 2],
        "of another plan": json.dumps({**values, "plan": made_plan(seed=9).key, "packs": [1, 1]}),
        "a list": "[1, 2]",
        "not positive": json.dumps({**values, "packs": [0] * 1000}),
    }
    path.unlink() if damage == "missing" else path.write_text(texts[damage])
    again = made_plan()
    again.load_counts(path)
    assert again.packs(50) == expected


def test_what_fits_in_no_pack_is_named():
    plan = plan_of(index_of([[20, 600], [30]]), augment=AugmentConfig())
    assert plan.left_out() == ["source 0: made.parquet, group 0, row 0, units 1-1"]
    assert {(ref.record, ref.start, ref.end) for ref in plan.step(0)} == {(0, 0, 1), (1, 0, 1)}


def test_a_plan_in_which_nothing_fits_says_so():
    with pytest.raises(
        DataError, match=r"source 0: none of \d+ records drawn .* fits a pack of 64 tokens .* make the packs larger"
    ):
        plan_of(index_of([[600]] * 3), tokens=64).step(0)


def test_a_source_of_one_record_fills_packs():
    plan = plan_of(index_of([[30]]), augment=AugmentConfig())
    refs = refs_of(plan, 5)
    assert {ref.record for ref in refs} == {0}
    assert len({ref.epoch for ref in refs}) == len(refs)


def test_replacements_take_no_more_room_and_are_always_the_same():
    plan, found = made_plan(), 0
    for ref in plan.step(0):
        room = plan.view(ref)
        others = list(plan.replacements(ref))
        found += len(others)
        assert others == list(made_plan().replacements(ref))
        for other in others:
            shown = plan.view(other)
            assert other.source == ref.source and other.record != ref.record
            assert shown.tokens <= room.tokens and shown.patches <= room.patches
    assert found > 5 * len(plan.step(0))


def test_a_sample_shows_the_images_of_its_head_and_units_in_their_order():
    sizes = [(-1, 400, 410), (0, 420, 430), (2, 440, 450), (2, 460, 470)]
    plan = plan_of(index_of([[10, 10, 10]], [sizes]), augment=AugmentConfig())
    assert plan.view(SampleRef(0, 0, 0, 0, 3)).sizes == ((400, 410), (420, 430), (440, 450), (460, 470))
    assert plan.view(SampleRef(0, 0, 0, 1, 2)).sizes == ((400, 410),)
    orders = {plan.view(SampleRef(0, 0, epoch, 0, 3), shuffle=True) for epoch in range(30)}
    for one in orders:
        units = [sizes[1:2], [], sizes[2:]]
        shown = [sizes[0], *(image for unit in one.order for image in units[unit])]
        assert one.sizes == tuple(image[1:] for image in shown)
    assert len({one.order for one in orders}) == 6
    assert plan.view(SampleRef(0, 0, 0, 0, 3)).order is None


def test_a_number_of_samples_makes_every_step_one_of_the_mixture():
    indexes = [index_of([[20, 9]] * records) for records in (50, 70)]
    plan = plan_of(*indexes, weights=(2, 1), samples=3)
    for step in range(200):
        packs = plan.packs(step)
        assert [len(pack) for pack in packs] == [3, 3]
        assert sorted(ref.source for pack in packs for ref in pack) == [0, 0, 0, 0, 1, 1]
