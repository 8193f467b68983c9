from dataclasses import dataclass, field
from typing import Literal


@dataclass
class GenerationResult:
    text: str
    token_counts: object | None = None


def unwrap_generation_output(output):
    if isinstance(output, GenerationResult):
        return output.text, output.token_counts
    return output if isinstance(output, str) else str(output), None


@dataclass
class Instance:
    request_type: Literal["loglikelihood", "generate_until", "generate_until_multi_round", "generate_until_agentic"]
    arguments: tuple
    idx: int
    metadata: dict[str, str | int] = field(default_factory=dict)

    @property
    def args(self):
        return self.arguments if isinstance(self.arguments, tuple) else (self.arguments,)
