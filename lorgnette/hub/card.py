"""The model card: what a stranger needs to use the folder."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

from lorgnette.model.vlm import VLM

# ruff: noqa: E501 - lines of Markdown tables and of code to be copied
CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
tags:
- lorgnette
- {format}
{said}---

# {name}

A vision-language model of the {architecture}:
images and text in any order go in, text comes out.

| part | what | parameters |
|---|---|---:|
| vision | {vision.about}, sides up to {side} | {count[vision]:,} |
| connector | {connector.about} | {count[connector]:,} |
| language | {language.about} | {count[language]:,} |
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


MEASURED = (
    "on a decoder of 4 layers and width 128, 82 % of 400 greedy answers stayed the same to the letter, and the logits"
    " of a prompt changed by 2 % of the largest at the median"
)
"""The row of benchmarks/results/int8.jsonl that cards quote; a test compares the two."""
ROUNDED = """
## Weights in 8 bits

The linear layers of the decoder's layers are stored as 8-bit integers with a scale for each row, in the form of
compressed-tensors (`int-quantized`, W8A8: activations are rounded by token in each pass); everything else is as in the
float model{of}. The weights differ from it by {error:.2%} (root mean square). What that does to answers, measured by
`benchmarks/int8.py` of lorgnette: {measured}.

lorgnette opens it on a CPU with PyTorch's fbgemm engine (x86). transformers needs the package `compressed-tensors`.
"""
SEAL = re.compile(rb"\n<!-- lorgnette ([0-9a-f]{16}) -->\n\Z")
"""The last line of a card: a hash of what stands before it, so that a card that somebody changed is known."""
MADE_BEFORE = re.compile(
    rb"---\nlibrary_name: transformers\n.*\n- lorgnette\n.*AutoProcessor\.from_pretrained.*```\n\Z", re.S
)
"""A card of a version that wrote no such line."""


def is_own_card(content: bytes) -> bool:
    """Return whether README.md is as `model_card` wrote it."""
    seal = SEAL.search(content)
    if seal is None:
        return MADE_BEFORE.match(content) is not None
    return _hash(content[: seal.start()]) == seal[1].decode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


ARCHITECTURES = {
    "idefics2": 'Idefics2 architecture ("What matters when building vision-language models?", Laurençon et al. 2024)',
    "idefics": 'Idefics1 architecture ("OBELICS", Laurençon et al. 2023)',
    "idefics3": 'Idefics3 architecture ("Building and better understanding vision-language models", Laurençon et al. 2024)',
    "smolvlm": 'SmolVLM architecture ("SmolVLM: Redefining small and efficient multimodal models", Marafioti et al. 2025)',
    "llava": 'LLaVA-1.5 architecture ("Improved Baselines with Visual Instruction Tuning", Liu et al. 2023)',
}


@dataclass(frozen=True)
class CardFacts:
    """Facts about a model that its weights do not tell."""

    base_models: tuple[str, ...] = ()
    """Hub ids of what it was trained from."""
    datasets: tuple[str, ...] = ()
    """Hub ids of what it was trained on."""
    license: str = ""
    """Of the weights, by the hub's name, as `apache-2.0`."""
    sections: str = ""
    """Sections of Markdown below the card's own."""
    rounded_from: str = ""
    """Digest of the checkpoint whose weights are rounded to 8-bit integers, where they are."""

    def metadata(self) -> str:
        """The lines of the card's metadata that say so, for the hub."""
        lines = [f"license: {self.license}"] if self.license else []
        for key, names in (("base_model", self.base_models), ("datasets", self.datasets)):
            lines += [f"{key}:", *(f"- {name}" for name in names)] if names else []
        return "".join(f"{line}\n" for line in lines)


def model_card(
    model: VLM,
    name: str,
    facts: CardFacts | None = None,
    format: str = "idefics2",
    rounding_error: float | None = None,
) -> str:
    """README.md of a folder with a model. facts: of its training. format: `model_type` of its config.

    rounding_error: of the decoder's weights, relative, where they are stored as 8-bit integers.
    """
    facts = facts or CardFacts()
    config, count = model.config, Counter({part: sum(p.numel() for p in ps) for part, ps in model.parts().items()})
    card = CARD.format(
        name=name,
        format=format,
        architecture=ARCHITECTURES[format],
        vision=config.vision,
        connector=config.connector,
        language=config.language,
        side=config.vision.grid * config.vision.patch,
        extra=config.extra_vocabulary,
        count=count,
        said=facts.metadata(),
    )
    if rounding_error is not None:
        of = f" (checkpoint {facts.rounded_from})" if facts.rounded_from else ""
        card += ROUNDED.format(of=of, error=rounding_error, measured=MEASURED)
    card += facts.sections
    return f"{card}\n<!-- lorgnette {_hash(card.encode())} -->\n"
