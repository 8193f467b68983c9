"""Make the built-in corpus anew: the parquet files that the package carries, and the manifest of all of them.

    python scripts/build_corpus.py           # write lorgnette/data/builtin/corpus
    python scripts/build_corpus.py --check   # make everything elsewhere, and compare every hash with the manifest

The versions of Pillow (with its libwebp and zlib) and pyarrow decide on the bytes: they are in the manifest, and those
of constraints.txt give the same ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

from lorgnette.data.builtin.corpus import COMMITTED, MANIFEST, Written, manifest, versions, write_corpus
from lorgnette.data.builtin.parts import PARTS
from lorgnette.files import write_json


def build() -> None:
    """Write all parts elsewhere first, then put those in place that the package carries."""
    with tempfile.TemporaryDirectory() as folder:
        written = write_corpus(folder, fresh=True)
        shutil.rmtree(COMMITTED, ignore_errors=True)
        for file in written:
            if PARTS[Path(file.file).stem].committed:
                target = COMMITTED / file.file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(folder) / file.file, target)
    facts = {file.file: dataclasses.asdict(file) for file in written}
    for fact in facts.values():
        del fact["file"]
    write_json(MANIFEST, {"made_with": versions(), "files": facts})
    carried = sum(path.stat().st_size for path in COMMITTED.rglob("*.parquet"))
    print(f"{len(written)} files, {sum(file.rows for file in written):,} rows; {carried / 1e6:.1f} MB carried")


def check() -> int:
    """How many files differ from what the manifest says."""
    if (made_with := manifest()["made_with"]) != versions():
        print(f"note: the manifest was made with {made_with}, and these are {versions()}")
    with tempfile.TemporaryDirectory() as folder:
        written = {file.file: file for file in write_corpus(folder, fresh=True)}
    faults = 0
    for name in sorted(manifest()["files"].keys() | written.keys()):
        wanted, made = manifest()["files"].get(name), written.get(name)
        if wanted is None or made is None or Written(name, **wanted) != made:
            faults += 1
            print(f"{name}: the manifest says {wanted}, and {made} was made")
    print(f"{len(written) - faults} of {len(written)} files are as the manifest says")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the manifest")
    if parser.parse_args().check:
        sys.exit(1 if check() else 0)
    build()


if __name__ == "__main__":
    main()
