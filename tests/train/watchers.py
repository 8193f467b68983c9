"""Callbacks that tests give to a trainer."""

from __future__ import annotations

from lorgnette.train.callbacks import Callback


class StopAfter(Callback):
    """Asks to stop after a step, counted over all stages."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, run, state, metrics):
        if metrics.total_step == self.step:
            state.stop()


class OnStep(Callback):
    """Calls a function with the state and the metrics of each step."""

    def __init__(self, function):
        self.function = function

    def on_step_end(self, run, state, metrics):
        self.function(state, metrics)
