"""Margins of numerical tests: the share of its tolerance that each test uses, over kernels, threads and seeds.

    python scripts/margins.py [--seeds 0 1 2 3 4] [--tests tests/train/test_parallel.py ...]

Runs the tests once for every kernel set of ATen (`ATEN_CPU_CAPABILITY`), number of threads and seed, and prints for
each test the largest share of a tolerance that a comparison used: 1 is where it fails. A seed shifts all seeds of
torch's generators and of initial weights, so that a test's numbers are other draws of the same thing. Tests that hold
to seeded values fail under a shift; what counts is the share. `default` also takes MKL's kernels that are the same on
every processor.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KERNELS = {
    "default": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
}
TESTS = ["tests/train", "tests/model", "tests/infer"]

shares: dict[str, float] = {}
"""Of the tests of this process: name -> the largest share of a tolerance."""


def note(share: float) -> None:
    name = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
    shares[name] = max(shares.get(name, 0.0), share)


def pytest_configure() -> None:
    """Watch comparisons, and shift seeds (a pytest plugin: `-p margins`)."""
    import pytest
    import torch

    from lorgnette.model import initialise

    close, scalar, shift = torch.testing.assert_close, type(pytest.approx(1.0)), int(os.environ["MARGINS_SEED"])

    def assert_close(actual: Any, expected: Any, **options: Any) -> None:
        if isinstance(actual, torch.Tensor) and isinstance(expected, torch.Tensor) and actual.shape == expected.shape:
            ours, theirs = actual.detach().double(), expected.detach().double()
            allowed = (options.get("atol") or 1e-5) + (options.get("rtol") or 1.3e-6) * theirs.abs()
            if ours.numel():
                note(((ours - theirs).abs() / allowed).max().item())
        close(actual, expected, **options)

    equal = scalar.__eq__

    def approx_equal(self: Any, actual: Any) -> bool:
        if isinstance(actual, int | float) and isinstance(self.expected, int | float) and self.tolerance > 0:
            note(abs(actual - self.expected) / self.tolerance)
        return equal(self, actual)

    def shifted(function: Any, at: int) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            values = list(arguments)
            if len(values) > at:
                values[at] += shift
            return function(*values, **options)

        return call

    torch.testing.assert_close, scalar.__eq__ = assert_close, approx_equal
    if shift:
        torch.manual_seed = shifted(torch.manual_seed, 0)
        draw = initialise.deviation  # the strength is the seed's place: 0.1 % weaker is another draw of rounding
        initialise.deviation = lambda *arguments: draw(*arguments) * (1 - 1e-3 * shift)


def pytest_sessionfinish() -> None:
    Path(os.environ["MARGINS_FILE"]).write_text(json.dumps(shares))


def measured(tests: list[str], kernels: str, threads: int, seed: int) -> dict[str, float]:
    """Shares of one run of the tests in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shares.json"
        environment = os.environ | KERNELS[kernels] | {
            "OMP_NUM_THREADS": str(threads), "MARGINS_SEED": str(seed), "MARGINS_FILE": str(file),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")]),
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest", "-q", "-p", "margins", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        print(
            f"{kernels}, {threads} threads, seed {seed}:",
            (done.stdout.strip() or done.stderr).splitlines()[-1],
            flush=True,
        )
        for line in done.stdout.splitlines():
            if line.startswith("FAILED"):
                print(f"    {line[:200]}", flush=True)
        return json.loads(file.read_text()) if file.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", nargs="+", default=TESTS)
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS), choices=list(KERNELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--least", type=float, default=0.2, help="shares below this are not printed")
    options = parser.parse_args()
    found: dict[str, list[float]] = collections.defaultdict(list)
    for kernels in options.kernels:
        for threads in options.threads:
            for seed in options.seeds:
                for name, share in measured(options.tests, kernels, threads, seed).items():
                    found[name].append(share)
    for name, some in sorted(found.items(), key=lambda item: -max(item[1])):
        if max(some) >= options.least:
            print(f"{max(some):8.3f} {name} ({len(some)} runs)")


if __name__ == "__main__":
    main()
