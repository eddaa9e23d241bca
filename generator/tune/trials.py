"""Time the rivals of one GEMM on one batch: fast looks first, then the best of them by turns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch

from generator.conditions import rows_per_expert
from generator.errors import Finding, LaunchError
from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.tune.calls import Prepared
from generator.tune.timing import Replay, Sample, Timer, graph_samples
from generator.verify.stages import Checked, check_entry, relaunch, tile_map

LOOKS = 5  # replays of a rival that may be among the best
HOPELESS = 1.25  # of the best so far: one replay is enough to leave a rival
FINALISTS = 4
FINAL_LOOKS = 11
WRONG = Sample(float("inf"), 0.0, 0)  # of a rival whose result is not the oracle's


@dataclass(frozen=True, slots=True)
class Trial:
    """One module on one batch, in microseconds a launch."""

    entry: Entry
    sample: Sample


LEAVE_OUT = "start again with --leave-out and its name, or a glob: it goes on from --trials"


@contextmanager
def naming(modules: str, fix: str = LEAVE_OUT) -> Iterator[None]:
    """Raises LaunchError, which names them, where the device stops at one of these modules: it
    takes the process along.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LaunchError(Finding(modules, f"does not run: {said}", fix)) from error


@dataclass(frozen=True)
class Contest:
    """One GEMM of a finished call, once for each call of a graph: they differ in weights."""

    operation: str
    calls: tuple[Checked, ...]
    timer: Timer
    say: Callable[[str], None]

    def times(self, rivals: Sequence[Entry]) -> list[Trial]:
        """Every rival, the fastest first; of the hopeless one look each. Those whose results are
        not right come last, and are not timed.
        """
        trials: list[Trial] = []
        best = float("inf")
        for entry in rivals:
            with naming(entry.symbol):
                looks = list(self._looks(entry, best)) if self.is_right(entry) else []
            trials.append(Trial(entry, Sample.of(looks) if looks else WRONG))
            best = min(best, trials[-1].sample.median)
        return sorted(trials, key=_by_time)

    def _looks(self, entry: Entry, best: float) -> Iterator[float]:
        replay = self._replay(entry)
        least = float("inf")
        for _ in range(LOOKS):
            yield (now := replay.sample())
            least = min(least, now)
            if least >= HOPELESS * best:
                return

    def is_right(self, entry: Entry) -> bool:
        """Whether a rival's result is the oracle's to the bit; it is told where not. An assembler
        may err, and what skips a part of the work may well be the fastest.
        """
        found = check_entry(self.calls[0], entry, self.operation)
        if found.different:
            what = f"{found.different} of {found.bits} bits differ from the oracle's"
            self.say(f"not timed: {entry.symbol}: {what}")
        return not found.different

    def final(self, trials: Sequence[Trial]) -> list[Trial]:
        """The best again, of all row tiles by turns: a device that grows hot between two of them
        would decide which is taken.
        """
        few = [each.entry for each in finalists(trials)]
        with naming(" or ".join(each.symbol for each in few)):
            samples = graph_samples([self._replay(each) for each in few], FINAL_LOOKS)
        again = [Trial(e, s) for e, s in zip(few, samples, strict=True) if s is not None]
        return sorted(again, key=_by_time)

    def _replay(self, entry: Entry) -> Replay:
        assert entry.block_m is not None
        into = self._into[entry.block_m]
        replay = self.timer.capture(
            [partial(_launch, each, entry, self.operation, into) for each in self.calls]
        )
        assert replay is not None
        return replay

    @cached_property
    def _into(self) -> Mapping[int, dict[str, torch.Tensor]]:
        return _Maps(self.calls[0])


class _Maps(dict[int, dict[str, torch.Tensor]]):
    """What a launch writes, with the tile map of each row tile."""

    def __init__(self, checked: Checked) -> None:
        self.checked = checked

    def __missing__(self, block_m: int) -> dict[str, torch.Tensor]:
        self[block_m] = self.checked.written() | tile_map(self.checked, block_m)
        return self[block_m]


def _launch(checked: Checked, entry: Entry, operation: str, into: dict[str, torch.Tensor]) -> None:
    with current(checked.hidden.device):
        relaunch(checked, entry, operation, into)


def finalists(trials: Iterable[Trial]) -> list[Trial]:
    """The first few of each row tile, of those that are not hopeless."""
    ordered = sorted((each for each in trials if each.sample.count), key=_by_time)
    few: dict[int | None, list[Trial]] = {}
    for each in ordered:
        own = few.setdefault(each.entry.block_m, [])
        near = each.sample.median <= HOPELESS * ordered[0].sample.median
        if near and len(own) < FINALISTS:
            own.append(each)
    return [each for own in few.values() for each in own]


def _by_time(trial: Trial) -> tuple[float, str]:
    return (trial.sample.median, trial.entry.design)


def contest(
    prepared: Prepared,
    checked: Checked,
    operation: str,
    timer: Timer,
    say: Callable[[str], None],
) -> Contest:
    """A GEMM of a finished call with the rotation's weights."""
    every = tuple(replace(checked, packed=prepared.packed(i)) for i in range(len(prepared.tokens)))
    return Contest(operation, every, timer, say)


def plausible(entries: Sequence[Entry], rows: int, experts: int) -> list[Entry]:
    """Those whose row tile is neither so tall that most of it is padding nor so short that weights
    are read often: from an eighth to four times the rows of an expert, or the nearest there is.
    """
    own = rows_per_expert(rows, experts)
    tiles = sorted({each.block_m for each in entries if each.block_m is not None})
    near = [tile for tile in tiles if own <= 8 * tile and tile <= 4 * own]
    near = near or [tiles[0] if own < tiles[0] else tiles[-1]]
    return [each for each in entries if each.block_m in near]


def in_orders(
    trials: Sequence[Trial], entries: Sequence[Entry], also: Collection[str] = ()
) -> Iterator[Entry]:
    """The rivals that differ from the first few in the order of their programs alone, and those of
    the designs `also`.
    """
    few = {unordered(each.entry) for each in trials[:FINALISTS] if each.sample.count}
    known = {each.entry.symbol for each in trials}
    for each in entries:
        if each.symbol not in known and (unordered(each) in few or each.design in also):
            yield each


def unordered(entry: Entry) -> str:
    """A design's name without the trait of its order."""
    order = entry.order if entry.order not in (None, "tiles") else ""
    return entry.design.removesuffix(f"_{order}") if order else entry.design
