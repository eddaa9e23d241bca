"""Emitted kernels, one module a variant, by `python -m generator build`."""
