"""Run layers on the hardware at hand and compare every stage with the oracle, bit for bit.

Sees the runtime and a manifest only, so it runs where no spec is.
"""
