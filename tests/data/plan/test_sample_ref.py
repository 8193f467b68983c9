"""Digests of what a step trains on: the same in whatever order and packs its samples stand."""

from lorgnette.data.plan.sample_ref import SampleRef, digest_of, joined

REFS = [str(SampleRef(source, record, 0, 0, 2)) for source in range(2) for record in range(5)]


def test_a_digest_names_samples_and_not_their_order():
    assert digest_of(REFS) == digest_of(reversed(REFS)) != digest_of(REFS[1:])
    assert joined([digest_of(REFS[:3]), digest_of(REFS[3:])]) == digest_of(REFS)


def test_a_sample_is_spelled_with_all_that_names_it():
    assert str(SampleRef(1, 20, 3, 4, 5)) == "1,20,3,4,5"
