"""The page at `/`, and the same examples for the terminal: how to ask this server."""

from __future__ import annotations

import html
import json

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>lorgnette</title></head>
<body>
<h1>lorgnette serves {name}</h1>
<p>Clients of OpenAI's API use the address <code>{address}/v1</code> and the model <code>{name}</code>.</p>
<h2>curl</h2>
<pre>{curl}</pre>
<h2>Python</h2>
<pre>{python}</pre>
<p><a href="/openapi.json">Routes</a>, <a href="/metrics">metrics</a>, <a href="/health">health</a>.</p>
</body>
</html>
"""


def curl_line(address: str, name: str, with_key: bool) -> str:
    """A command that asks the server a question."""
    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}]}
    key = "-H 'Authorization: Bearer '\"$LORGNETTE_API_KEY\" " if with_key else ""
    quoted = json.dumps(body).replace("'", "'\\''")
    return f"curl {address}/v1/chat/completions {key}-H 'Content-Type: application/json' -d '{quoted}'"


def python_snippet(address: str, name: str, with_key: bool) -> str:
    """A few lines that show it an image, with OpenAI's client."""
    key = 'os.environ["LORGNETTE_API_KEY"]' if with_key else '"none"'
    return f"""import base64{", os" if with_key else ""}
from openai import OpenAI

client = OpenAI(base_url="{address}/v1", api_key={key})
image = base64.b64encode(open("image.png", "rb").read()).decode()
content = [
    {{"type": "image_url", "image_url": {{"url": f"data:image/png;base64,{{image}}"}}}},
    {{"type": "text", "text": "What is this?"}},
]
reply = client.chat.completions.create(model={json.dumps(name)}, messages=[{{"role": "user", "content": content}}])
print(reply.choices[0].message.content)"""


def start_page(address: str, name: str, with_key: bool) -> str:
    """The page, as HTML without scripts or styles."""
    return _PAGE.format(
        name=html.escape(name),
        address=html.escape(address),
        curl=html.escape(curl_line(address, name, with_key)),
        python=html.escape(python_snippet(address, name, with_key)),
    )
