# ruff: noqa: E501
"""A template that would take all memory or time ends in a CheckpointError within a second or so."""

from __future__ import annotations

import resource
import time

import pytest

from lorgnette.errors import CheckpointError
from lorgnette.inputs.templates.template import JinjaTemplate
from lorgnette.sample import Sample

HEAD = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n{% endfor %}"
BOMBS = {
    "three nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a filtered range": "{% set l = range(99999)|list %}{% for a in range(99999) if a + 1 in l and false %}{% endfor %}",
    "an empty filtered range": "{% for a in range(99999) if false %}{% endfor %}" * 3
    + "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "doubling ~": "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "doubling +": "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "doubling join": "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s]|join %}{% endfor %}",
    "doubling replace": "{% set ns = namespace(s='ab') %}{% for i in range(40) %}{% set ns.s = ns.s.replace('a', ns.s) %}{% endfor %}",
    "doubling format": "{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    "doubling braces": "{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
    "doubling set block": "{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "doubling lists": "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "nested lists": "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
    "nested dicts": "{% set ns = namespace(l={}) %}{% for i in range(60) %}{% set ns.l = dict(a=ns.l, b=ns.l) %}{% endfor %}{{ ns.l|tojson }}",
    "many lists": "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l, range(99999)|list] %}{% endfor %}",
    "percent width": "{{ '%0999999999d'|format(1) }}",
    "percent precision": "{{ '%.999999999f' % 1.5 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "brace width": "{{ '{:>999999999}'.format(1) }}",
    "brace width by attribute": "{{ ('{:>999999999}'|attr('format'))(1) }}",
    "lipsum": "{{ lipsum(n=10**7) }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "batch": "{{ [1]|batch(10**9, 1)|list }}",
    "wordwrap": "{{ ('a'*10**6)|wordwrap(1) }}",
    "tojson": "{{ messages|tojson(indent=10**8) }}",
    "tojson of many": "{{ range(9999)|list|tojson(indent=999) }}",
    "indent": "{{ ('a\\n'*10000)|indent(10**6) }}",
    "indent by text": "{{ ('a\\n'*10000)|indent('x'*100000) }}",
    "center": "{{ 'a'|center(10**9) }}{{ 'a'.center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ ('\\t' * 10**5).expandtabs(10**9) }}",
    "a long text many times": "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "a long text": "{{ ('a' * 2000000000)|length }}",
    "a long list": "{{ ([0] * 10**9)|length }}",
    "a power": "{{ 10 ** 10 ** 10 }}",
    "a product": "{% set ns = namespace(n=9**64) %}{% for i in range(60) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
    "bytes": "{{ (5).to_bytes(10**9, 'big')|length }}",
    "a date": "{{ strftime_now('%999999999Y') }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "loop recursion": "{% for a in [[1]] recursive %}{{ loop([a, a]) }}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
    "blocks": "{% block a %}{% for i in range(99999) %}{{ self.b() }}{% endfor %}{% endblock %}{% block b %}{{ 'x' * 1000 }}{% endblock %}",
    "a sentinel of many digits": "{{ '\ue000' ~ '9'*5000 ~ '\ue001' }}{{ 1 // 0 }}",
    "autoescape": "{% autoescape true %}{{ messages[0].content }}{% endautoescape %}",
    "a long template": "x" * 2**20,
    "nesting": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused(bomb, tokenizer):
    sample = Sample.from_messages([{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "This."}])
    began, before = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="cannot write this conversation"):
        JinjaTemplate(HEAD + bomb, tokenizer).pieces(sample)
    assert time.thread_time() - began < 6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024, "KiB"


def test_digits_between_private_characters_are_text(tokenizer):
    sample = Sample.from_messages([{"role": "user", "content": "Which?"}])
    pieces = JinjaTemplate(HEAD + "{{ '\ue000' ~ '9'*5000 ~ '\ue001' }}", tokenizer).pieces(sample)
    assert pieces[-1].text.count("9") == 5000


def test_long_conversations_are_within_the_limits(tokenizer):
    """A quarter of a million characters in 400 turns, put together one after the other."""
    together = (
        "{% set ns = namespace(s='') %}{% for m in messages %}"
        "{% set ns.s = ns.s ~ m.role ~ ': ' ~ (m.content | trim) ~ '</s>\n' %}{% endfor %}{{ ns.s }}"
    )
    turns = [{"role": ("user", "assistant")[n % 2], "content": f" {n} " + "word " * 128} for n in range(400)]
    pieces = JinjaTemplate(together, tokenizer).pieces(Sample.from_messages(turns))
    assert sum(hasattr(piece, "token") for piece in pieces) == 400


def test_one_text_of_megabytes_is_within_the_limits(tokenizer):
    text = "word " * 10**6
    pieces = JinjaTemplate(HEAD, tokenizer).pieces(Sample.from_messages([{"role": "user", "content": text}]))
    assert any(getattr(piece, "text", "") == text for piece in pieces)
