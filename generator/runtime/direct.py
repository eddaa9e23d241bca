"""Launch kernels that Triton has compiled already, past its JIT, which takes several times as long.

The first launch goes through the JIT and leaves a compiled kernel, which a `Launcher` starts again,
with addresses in place of tensors. The JIT would find the same kernel each time. It goes by dtypes
and integers, which a prepared call fixes; by which tensors start at 16 bytes, which the checks of a
call hold or the kernel does not let count; and by `switches`. It also compares the emitted module's
constants with those it compiled: nobody sets them. Knows nothing of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import driver

from .entry import Entry
from .scratch import with_scratch

INT32_MAX = 2**31 - 1  # bytes of a storage that AMD kernels address by 32 bits

Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Launcher:
    """One launch of a compiled kernel, all but its addresses."""

    entry: Entry
    kernel: Any  # the entry's Triton kernel that was compiled
    compiled: CompiledKernel
    run: Callable[..., None]  # what of `compiled` starts it
    function: Any  # its handle on the device
    metadata: Any  # warps, shared memory: as `run` takes them
    grid: Grid
    pick: Callable[[Sequence[int]], tuple[int, ...]]  # its addresses from those of the call
    counts: tuple[int, ...]


def launcher(
    entry: Entry, compiled: object, grid: Grid, positions: Sequence[int], counts: tuple[int, ...]
) -> Launcher | None:
    """What launches again what the JIT has launched as `compiled`; `positions` are those of the
    kernel's pointers among the call's addresses. None for the interpreter and for stand-ins.
    """
    if not isinstance(compiled, CompiledKernel):
        return None
    return Launcher(
        entry=entry,
        kernel=entry.kernel,
        compiled=compiled,
        run=compiled.run,
        function=compiled.function,
        metadata=compiled.packed_metadata,
        grid=grid,
        pick=itemgetter(*positions),
        counts=counts,
    )


def switches(tensors: Iterable[torch.Tensor]) -> tuple[object, ...] | None:
    """What the JIT goes by beside its arguments' types: kernels of one call that differ in it are
    compiled apart. None where only the JIT can tell.

    On AMD kernels are compiled anew for storages from 2 GiB on, which callers may lend.
    """
    if knobs.runtime.add_stages_inspection_hook is not None:
        return None
    compilation = knobs.compilation
    now: tuple[object, ...] = (
        knobs.runtime.debug,
        compilation.instrumentation_mode,
        getattr(compilation, "fpsan_homomorphic_casts", None),  # from Triton 3.9 on
    )
    if torch.version.hip is None:
        return now
    long = [each.untyped_storage().nbytes() > INT32_MAX for each in tensors]
    return (*now, knobs.amd.use_buffer_ops, *long)


def hold(launchers: Iterable[Launcher]) -> bool:
    """Whether the JIT would do nothing but find the compiled kernels: it calls `pre_run_hooks`, and
    an entry whose kernel is another by now wants that one.
    """
    for each in launchers:
        if each.entry.kernel is not each.kernel or each.kernel.pre_run_hooks:
            return False
    return True


def launch(launchers: Sequence[Launcher], addresses: Sequence[int]) -> None:
    """Start kernels in turn on the current device's current stream."""
    if any(each.entry.programs is not None for each in launchers):
        with_scratch(partial(_launch, launchers, addresses))
    else:
        _launch(launchers, addresses)


def _launch(launchers: Sequence[Launcher], addresses: Sequence[int]) -> None:
    active, runtime = driver.active, knobs.runtime
    stream = active.get_current_stream(active.get_current_device())
    if _silent(runtime.launch_enter_hook) and _silent(runtime.launch_exit_hook):
        for each in launchers:
            # As JITFunction.run and CompiledKernel.__getitem__ call it, in Triton 3.6 to 3.9. Its
            # launchers take an address for a pointer, and do not ask the driver about it then.
            each.run(
                *each.grid,
                stream,
                each.function,
                each.metadata,
                None,
                None,
                None,
                *each.pick(addresses),
                *each.counts,
            )
        return
    for each in launchers:
        each.compiled[each.grid](*each.pick(addresses), *each.counts, stream=stream)


def _silent(hook: Any) -> bool:
    """Whether a launch hook does nothing: none, or a chain without links, as Triton starts with."""
    return hook is None or (type(hook) is knobs.HookChain and not hook.calls)
