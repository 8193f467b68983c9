"""The model card: what a stranger needs to use the folder."""

from __future__ import annotations

from collections import Counter

from lorgnette.model.vlm import VLM

# ruff: noqa: E501 - lines of Markdown tables and of code to be copied
CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
tags:
- lorgnette
- idefics2
---

# {name}

A vision-language model of the Idefics2 architecture ("What matters when building vision-language models?", Laurençon et
al. 2024): images and text in any order go in, text comes out.

| part | what | parameters |
|---|---|---:|
| vision | ViT, {vision.layers} layers of width {vision.width}, patches of {vision.patch} pixels, sides up to {side} | {count[vision]:,} |
| connector | {connector.about} | {count[connector]:,} |
| language | {language.family}, {language.layers} layers of width {language.width} | {count[language]:,} |
| extra vocabulary | {extra} rows for special tokens | {count[extra_vocabulary]:,} |

## With lorgnette

```python
import lorgnette

model, processor = lorgnette.load("{name}")
sample = lorgnette.Sample.from_messages(
    [{{"role": "user", "content": [{{"type": "image", "path": "photo.jpg"}}, {{"type": "text", "text": "What is this?"}}]}}]
)
print(lorgnette.generate(model, processor, [sample])[0].text)
```

## With transformers

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{name}")
processor = AutoProcessor.from_pretrained("{name}")
```
"""


def model_card(model: VLM, name: str) -> str:
    """README.md of an exported folder."""
    config, count = model.config, Counter({part: sum(p.numel() for p in ps) for part, ps in model.parts().items()})
    return CARD.format(
        name=name,
        vision=config.vision,
        connector=config.connector,
        language=config.language,
        side=config.vision.grid * config.vision.patch,
        extra=config.extra_vocabulary,
        count=count,
    )
