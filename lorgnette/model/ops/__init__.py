"""Operations whose fast form depends on the device: kernels, tiles, fused functions and their backward passes.

A model file calls these and stays a description of the model. Each public function has its plain version beside it,
which is the oracle of its tests.
"""
