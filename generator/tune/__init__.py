"""Measure layers on the hardware at hand. Sees the runtime, verify and a manifest only.

What is measured and how (`routing.py`, `cases.py`, `weights.py`, `rotated.py`, `calls.py`,
`stages.py`, `work.py`, `rotation.py`, `timing.py`, `sampled.py`) knows nothing of what is reported
(`rows.py`, `table.py`, `record.py`, `plots.py`); `bench.py` joins them and `command.py` is the
verb. `tune` has `tuner.py` and `trials.py` for the former, `measured.py`, `choose.py` and
`tuning_file.py` for the latter.
"""

from generator.runtime.interpreter import prepare

prepare()  # chooses GPU or interpreter, before `read_kernel.py` imports triton
