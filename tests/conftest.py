"""Conditions of every test: one thread, no network, no screen, the same examples each time."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for jobs of a shell in the background: processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.fable"]

# transformers, our oracle, needs no torchvision, and fails to import beside one that was built for another torch
sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]


def pytest_configure() -> None:
    import hypothesis
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    hypothesis.settings.register_profile("lorgnette", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("lorgnette")
