"""Work arrays of the CPU kernels: reused, apart from each other and from other threads', and without influence."""

import threading

import numpy as np
import pytest
from test_ops import CPU, run_all

from refattn.ops import operations
from refattn.ops.cases import copied, make_inputs
from refattn.ops.cpu import memory


def pool_of_this_thread():
    return memory._thread.pool


def in_new_thread(function):
    """Run in a thread that has no pool yet, and hand back what it returned."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


ON_CPU = [operation for operation in operations("cpu") if operation.wrt]


@pytest.mark.parametrize("operation", ON_CPU, ids=lambda operation: operation.name)
def test_work_arrays_change_no_bit(operation):
    inputs = make_inputs(operation)
    expected = run_all(operation, inputs, CPU)
    for _ in range(2):  # from new memory, then from memory that was used before
        with CPU.work_arrays():
            found = copied(run_all(operation, inputs, CPU))
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_work_arrays_are_reused_and_do_not_overlap():
    def passes():
        starts, sizes = [], []
        for _ in range(3):
            with CPU.work_arrays():
                arrays = [CPU.empty((n, 3), np.float32) for n in (1, 7, 0, 100)]
                for n, array in enumerate(arrays):
                    array[:] = n
                assert all((array == n).all() for n, array in enumerate(arrays))
                starts.append([array.ctypes.data for array in arrays if array.size])
            sizes.append(len(pool_of_this_thread().block))
        return starts, sizes

    starts, sizes = in_new_thread(passes)
    assert sizes[0] == sizes[1] == sizes[2] > 0
    assert starts[1] == starts[2]
    assert all(start % memory.ALIGNMENT == 0 for start in starts[1])


def test_work_arrays_grow_when_more_is_needed():
    def passes():
        sizes = []
        for n in (10, 1000, 1000, 10):
            with CPU.work_arrays():
                CPU.empty((n,), np.float64)
            sizes.append(len(pool_of_this_thread().block))
        return sizes

    first, second, third, fourth = in_new_thread(passes)
    assert first < second == third == fourth


def test_every_thread_has_a_pool_of_its_own():
    with CPU.work_arrays():
        here = CPU.empty((10,), np.float64)
        here[:] = 1

        def elsewhere():
            outside = CPU.empty((10,), np.float64)  # no block open in that thread: an array of its own
            with CPU.work_arrays():
                CPU.empty((10,), np.float64)[:] = 2
            return outside.base is None and pool_of_this_thread()

        assert in_new_thread(elsewhere) is not pool_of_this_thread()
        assert (here == 1).all()


@memory.scratch
def scratch(cut, dtype, *shapes):
    return cut(dtype, *shapes)


def test_scratch_arrays_are_made_once_for_each_thread():
    shapes = ((3, 4), (0, 5), (7,))

    def in_a_thread():
        first = scratch(np.dtype(np.float32), *shapes)
        for n, array in enumerate(first):
            array[...] = n
        assert [array.shape for array in first] == list(shapes)
        assert all((array == n).all() for n, array in enumerate(first))
        assert all(array.ctypes.data % memory.ALIGNMENT == 0 for array in first)
        assert scratch(np.dtype(np.float32), *shapes) is first
        (larger,) = scratch(np.dtype(np.float64), (100_000,))  # a new block, from which all are cut now
        again = scratch(np.dtype(np.float32), *shapes)
        assert again is not first
        assert again[0].ctypes.data == larger.ctypes.data
        return again[0].ctypes.data

    scratch(np.dtype(np.float32), *shapes)
    assert in_new_thread(in_a_thread) != scratch(np.dtype(np.float32), *shapes)[0].ctypes.data


def test_no_more_scratch_arrays_are_kept_than_stated():
    def in_a_thread():
        for n in range(2 * memory.KEPT):
            scratch(np.dtype(np.float32), (n,))
        return len(memory._thread.scratch.arrays)

    assert 0 < in_new_thread(in_a_thread) <= memory.KEPT


def test_a_block_within_a_block_gives_back_what_was_taken_in_it():
    def passes():
        addresses = []
        for _ in range(2):
            with CPU.work_arrays():
                outer = CPU.empty((5,), np.float64)
                outer[:] = 1
                for value in (2, 3):
                    with CPU.work_arrays():
                        inner = CPU.empty((5,), np.float64)
                        inner[:] = value
                        addresses.append(inner.ctypes.data)
                assert (outer == 1).all()
        return addresses

    first, second = in_new_thread(passes)[2:]  # from the pool, which has grown by then
    assert first == second


def test_work_arrays_close_after_an_error():
    with pytest.raises(ZeroDivisionError), CPU.work_arrays():
        raise ZeroDivisionError
    assert CPU.empty((3,), np.float64).base is None
