"""Examples that the server prints when it starts: how to ask it."""

from __future__ import annotations

import json


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
