import abc
from typing import TypeVar

from lmms_eval.api.instance import Instance

T = TypeVar("T", bound="lmms")


class lmms(abc.ABC):  # noqa: N801
    is_simple: bool = True

    def __init__(self) -> None:
        self._rank = 0
        self._world_size = 1
        self.cache_hook = CacheHook(None)
        self.task_dict = {}

    @abc.abstractmethod
    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]: ...

    @abc.abstractmethod
    def generate_until(self, requests) -> list[str]: ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests) -> list[str]: ...

    @classmethod
    def create_from_arg_string(cls: type[T], arg_string: str, additional_config: dict | None = None) -> T:
        values = dict(pair.split("=") for pair in arg_string.split(","))
        given = {key: {"True": True, "False": False}.get(value, value) for key, value in values.items()}
        return cls(**given, **{key: value for key, value in additional_config.items() if value is not None})

    @property
    def rank(self):
        return self._rank

    @property
    def world_size(self):
        return self._world_size


class CacheHook:
    def __init__(self, cachinglm=None) -> None:
        self.added = []

    def add_partial(self, attr, req, res) -> None:
        self.added.append((attr, req, res))
