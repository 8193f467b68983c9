"""The data plan: which samples make each pack of each step, a pure function of (settings, indexes, step).

Read in order: `mixture` (the order in which samples are drawn from the sources), `splitting` (records cut to fit a
pack), `packing` (lengths into packs), `augment` (random variation per epoch), `pack_plan` (all of it for one stage).
"""
