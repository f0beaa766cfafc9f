"""Vectors, the exponential and matrix products, written for the registers of the processor: apart from the formulas."""
