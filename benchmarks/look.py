"""Are the maps of `lorgnette look` right? Deletion against random, energy in the drawing's box, random weights, blind.

    python benchmarks/look.py MODEL [--scenes 100] [--note "..."]

MODEL: a folder, as `runs/demo`. Scenes are drawings that no training split holds, each alone at a known place. A row
goes to `benchmarks/results/look.jsonl`: mean, low and high (95 %) of each figure of `look.scene_check.Check`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from model_step import conditions

from lorgnette.hub.load import load
from lorgnette.look.scene_check import check_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    began = time.perf_counter()
    found = check_scenes(*load(options.model), options.scenes).plain()
    seconds = round(time.perf_counter() - began, 1)
    row = {"benchmark": "look", **found, "seconds": seconds, **conditions(options.note)}
    path = Path(__file__).parent / "results" / "look.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
