"""Counter-based random numbers: a value is a function of its key, so order, cut and resume do not matter.

Keys are 64-bit integers; the numbers of a row come from its key by half as many bits, which the vectors of a processor
multiply at a sixth of the price.

Source   keys: Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014 (splitmix64);
         numbers: Wellons, Prospecting for hash functions, 2018 (lowbias32), with half of the key between its rounds
"""

from collections.abc import Sequence

import numpy as np

from refattn.ops.types import Array

INCREMENT = 0x9E3779B97F4A7C15
MULTIPLIER_1, MULTIPLIER_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_INCREMENT, _MULTIPLIERS = np.uint64(INCREMENT), (np.uint64(MULTIPLIER_1), np.uint64(MULTIPLIER_2))
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
STEP_32 = 0x9E3779B9  # 2^32 over the golden ratio, from column to column
MULTIPLIER_1_32, MULTIPLIER_2_32 = 0x7FEB352D, 0x846CA68B


def mix(counter: Array) -> Array:
    """Scramble unsigned 64-bit integers, elementwise: an increment and the finaliser of splitmix64."""
    state = counter * _INCREMENT
    state += _INCREMENT
    state ^= state >> _SHIFTS[0]
    state *= _MULTIPLIERS[0]
    state ^= state >> _SHIFTS[1]
    state *= _MULTIPLIERS[1]
    state ^= state >> _SHIFTS[2]
    return state


def uniform(key: Array, n_columns: int) -> Array:
    """(N, D) numbers in [0, 1) with 24 bits from (N,) keys: one for each key and column."""
    return (scramble(key[:, None], np.arange(n_columns, dtype=np.uint32)) >> np.uint32(8)) * 2.0**-24


def scramble(key: Array, column: Array) -> Array:
    """32 random bits from a 64-bit key and the number of a column, elementwise; uint32."""
    low, high = key.astype(np.uint32), (key >> np.uint64(32)).astype(np.uint32)  # the first keeps the lower half
    state = low + column * np.uint32(STEP_32)
    state = (state ^ (state >> np.uint32(16))) * np.uint32(MULTIPLIER_1_32)
    state = (state ^ (state >> np.uint32(15)) ^ high) * np.uint32(MULTIPLIER_2_32)
    return state ^ (state >> np.uint32(16))


def item_keys(keys: Array, ptr: Array) -> Array:
    """A key for every item of a ragged array, from its row's key and its position in the row. (ptr[-1],) uint64."""
    sizes = np.diff(ptr)
    position = np.arange(ptr[-1], dtype=np.uint64) - np.repeat(ptr[:-1].astype(np.uint64), sizes)
    return mix(np.repeat(keys, sizes) + position)


def structure_keys(seed: int, step: int, structure: Array) -> Array:
    """A key for every structure of a batch, from the seed, the optimiser's step and the structure's number."""
    stream = mix(mix(np.full(1, seed, dtype=np.uint64)) + np.uint64(step))
    return mix(stream + structure.astype(np.uint64))


def slot_keys(keys: Array, slots: Sequence[int]) -> Array:
    """(n_slots, N) keys of another stream for each slot, a place in the network where something is dropped."""
    return mix(keys ^ mix(np.array(slots, dtype=np.uint64))[:, None])
