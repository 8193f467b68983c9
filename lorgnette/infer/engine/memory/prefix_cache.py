"""Prefix cache: documents whose first blocks are those of a new prompt, found by hash.

A block's hash holds all before it. Documents that are still being answered can be found too; those that have ended
stay in the store until their memory is needed, the least recently used leaving first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from lorgnette.infer.engine.memory.kv_store import CachedDocument, KVStore


class PrefixCache:
    """Index of cached blocks by document. It owns the documents that have ended."""

    def __init__(self, store: KVStore, most_bytes: int) -> None:
        """most_bytes: memory that documents may take that have ended."""
        self.store, self.most_bytes = store, most_bytes
        self.bytes = 0
        """Memory of documents that have ended."""
        self._holders: dict[bytes, dict[CachedDocument, None]] = {}
        self._blocks: dict[CachedDocument, list[bytes]] = {}
        self._ended: OrderedDict[CachedDocument, None] = OrderedDict()

    def find(self, hashes: Sequence[bytes]) -> tuple[CachedDocument | None, int]:
        """A document that begins with the most of these blocks, and how many those are."""
        holder, blocks = None, 0
        for number, block in enumerate(hashes, 1):
            if block not in self._holders:
                break
            holder, blocks = next(reversed(self._holders[block])), number
        if holder is not None and holder in self._ended:
            self._ended.move_to_end(holder)
        return holder, blocks

    def add(self, document: CachedDocument, hashes: Sequence[bytes]) -> None:
        """Make known the blocks that a document holds now; `hashes` are all of them, from the first on."""
        known = self._blocks.setdefault(document, [])
        for block in hashes[len(known) :]:
            known.append(block)
            self._holders.setdefault(block, {})[document] = None

    def retire(self, document: CachedDocument) -> None:
        """Take over a document that has ended. It leaves the store at once if others hold all of its blocks."""
        blocks = self._blocks.get(document, [])
        if all(len(self._holders[block]) > 1 for block in blocks):
            return self.remove(document)
        self._ended[document] = None
        self.bytes += document.room * self.store.slot_bytes
        while self.bytes > self.most_bytes:
            self.evict()

    def remove(self, document: CachedDocument) -> None:
        """Forget a document and free its memory."""
        for block in self._blocks.pop(document, []):
            holders = self._holders[block]
            del holders[document]
            if not holders:
                del self._holders[block]
        if document in self._ended:
            del self._ended[document]
            self.bytes -= document.room * self.store.slot_bytes
        self.store.leave(document)

    def evict(self, keep: CachedDocument | None = None) -> bool:
        """Free the ended document that was not used for longest, other than `keep`; False if there is none."""
        oldest = next((one for one in self._ended if one is not keep), None)
        if oldest is not None:
            self.remove(oldest)
        return oldest is not None

    def clear(self) -> None:
        """Free all documents that have ended."""
        while self.evict():
            pass
