"""Spec -> plans: enumerate designs, prune them with reasons, prove exactness, rank. No torch,
triton or jinja2.
"""
