"""The run-time library: pack weights, route tokens, select emitted modules, launch them.

Imports nothing of spec, lower, emit, aot or tune, and neither jinja2 nor yaml nor pydantic, so that
it deploys with `generated/` alone. Importing it decides, before triton is imported, whether kernels
run on a GPU or under Triton's CPU interpreter.
"""

from .interpreter import prepare

prepare()
