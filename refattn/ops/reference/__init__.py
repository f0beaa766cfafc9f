"""The definition of every operation, in NumPy: float64 by default, allocates freely, made to be read."""
