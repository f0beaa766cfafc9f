"""Measurements: every script checks that what it compares gives the same numbers before it starts a clock."""
