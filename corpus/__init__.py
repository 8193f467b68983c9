"""The generator of the built-in corpus: draws and writes the files that `lorgnette.data.builtin` reads.

It is run from a checkout (`python -m corpus`) and is not part of the wheel. It may import lorgnette; nothing of
lorgnette imports it.
"""
