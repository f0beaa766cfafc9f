"""Where a backward writes the gradients of the weights: into arrays that are there already, if it is given some."""


def fill(into, arrays):
    """The arrays themselves; or those of `into`, overwritten with them."""
    if into is None:
        return arrays
    for target, array in zip(into, arrays, strict=True):
        target[...] = array
    return into


def add(add_to, array):
    """The array itself; or `add_to`, to which it is added in place."""
    if add_to is None:
        return array
    add_to += array
    return add_to
