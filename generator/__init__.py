"""Groupwise: a kernel compiler for quantized mixture-of-experts layers. Importing this package
imports nothing else.
"""
