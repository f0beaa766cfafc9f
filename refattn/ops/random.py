"""Counter-based random numbers: a value is a function of its key, so order, cut and resume do not matter.

Source   Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014 (splitmix64)
"""

import numpy as np

INCREMENT = 0x9E3779B97F4A7C15
MULTIPLIER_1, MULTIPLIER_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(counter):
    """Scramble unsigned 64-bit integers, elementwise: an increment and the finaliser of splitmix64."""
    state = counter * np.uint64(INCREMENT) + np.uint64(INCREMENT)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    return state ^ (state >> np.uint64(31))


def uniform(key, n_columns):
    """(N, D) numbers in [0, 1) with 24 bits from (N,) keys: one for each key and column."""
    counter = key[:, None] + np.arange(n_columns, dtype=np.uint64)
    return (mix(counter) >> np.uint64(40)).astype(np.float64) * 2.0**-24


def item_keys(keys, ptr):
    """A key for every item of a ragged array, from the key of its row and its place in the row. (ptr[-1],) uint64."""
    sizes = np.diff(ptr)
    place = np.arange(ptr[-1], dtype=np.uint64) - np.repeat(ptr[:-1].astype(np.uint64), sizes)
    return mix(np.repeat(keys, sizes) + place)


def structure_keys(seed, step, structure):
    """A key for every structure of a batch, from the seed, the optimiser's step and the structure's number."""
    stream = mix(mix(np.full(1, seed, dtype=np.uint64)) + np.uint64(step))
    return mix(stream + structure.astype(np.uint64))


def layer_keys(keys, layer):
    """Keys of another stream for each place of the network where something is dropped."""
    return mix(keys ^ mix(np.full(1, layer, dtype=np.uint64))[0])  # a number, which CuPy's arrays take as well
