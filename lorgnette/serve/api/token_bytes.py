"""Bytes of each token of a tokenizer: log-probabilities report them, because a token may be half a character."""

from __future__ import annotations

import re
from functools import lru_cache

from lorgnette.inputs.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@lru_cache(maxsize=1)
def byte_level_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`), reversed."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


class TokenBytes:
    """Bytes of a token by its id."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_level = tokenizer.is_byte_level
        self._special = set(tokenizer.special_tokens)

    def __call__(self, token: int) -> bytes:
        """The bytes that a token adds to a text; a special token is spelled out."""
        piece = self._tokenizer.piece(token)
        if piece in self._special:
            return piece.encode()
        alphabet = byte_level_alphabet()
        if self._byte_level and all(char in alphabet for char in piece):
            return bytes(alphabet[char] for char in piece)
        if not self._byte_level and (byte := _BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        return piece.replace("▁", " ").encode()
