"""Plan -> {path: text}: Jinja context, rendering, manifest, and the comparison with what is on
disk.
"""
