"""The operations as Numba kernels: single-threaded and without the GIL; threads live one level above.

Equations, shapes and units stand in the reference under the same names; here is what differs.
"""
