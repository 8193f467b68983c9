from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Instance:
    request_type: Literal["loglikelihood", "generate_until", "generate_until_multi_round", "generate_until_agentic"]
    arguments: tuple
    idx: int
    metadata: dict[str, str | int] = field(default_factory=dict)

    @property
    def args(self):
        return self.arguments if isinstance(self.arguments, tuple) else (self.arguments,)
