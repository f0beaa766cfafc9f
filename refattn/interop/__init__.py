"""The network for other frameworks; each is imported where it is asked for."""
