"""Find the fastest GEMM modules of a layer on each batch. Prints nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from generator.errors import Finding, LaunchError
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest
from generator.runtime.problem import Problem
from generator.tune.calls import prepare, random_tokens
from generator.tune.cases import Batch, Setup
from generator.tune.measured import LAYER, Measurement, wrong
from generator.tune.rotated import rotated
from generator.tune.rotation import calls_of, memory_of
from generator.tune.row_tiles import layer_samples, near
from generator.tune.stages import GEMMS, finished
from generator.tune.timing import Timer
from generator.tune.trials import (
    Contest,
    Trial,
    contest,
    in_orders,
    naming,
    plausible,
    unordered,
)
from generator.tune.weights import random_experts
from generator.tune.work import floor_us

# How many calls a graph holds follows from it (`rotation.calls_of`), and nothing else. On a device
# that reads faster, as sm_100 does (8 TB/s), graphs are only shorter, in that proportion, and on a
# slower one longer: a sample is the time of a replay by the calls in it.
READ_TB_PER_S = 5.0
GEMM_SHARE = 1 / 3  # of a layer's floor that its down GEMM takes at least
TALL = 128  # rows of a tile; TALL of generator/lower/enumerate.py, which this half may not import
# A way on where the device stops at the layer itself, by the designs that the rivals' build ranks.
OTHERWISE = "leave the layer out by --contract: it goes on from --trials"


@dataclass(frozen=True, slots=True)
class FirstRound:
    """One GEMM of a batch whose rivals were timed in one order of programs each."""

    batch: Batch
    match: Contest
    problem: Problem
    rivals: Sequence[Entry]  # in every order
    trials: Sequence[Trial]


@dataclass(frozen=True)
class Tuner:
    """Times the modules of one target, those of `entries` that accept a call."""

    manifest: Manifest
    entries: Mapping[str, Sequence[Entry]]  # by contract
    passing: Callable[[Sequence[Entry]], list[Entry]]  # those that compile and keep the gates
    device: torch.device
    timer: Timer
    seed: int
    say: Callable[[str], None]  # what is left out, and why

    def measurements(
        self, setup: Setup, known: Iterable[Measurement] = ()
    ) -> Iterator[tuple[Batch, list[Measurement] | None]]:
        """Every batch twice: None once it has had its first round, and when all have, what was
        measured of it. For what is left to compile is compiled side by side, and that of one batch
        is too little. Meanwhile the memory of all batches is taken (2 GB of DeepSeek-V3's layer, of
        eight ranks and up to 4096 tokens). The weights are made once. `known` is what earlier runs
        measured. Raises LaunchError where a GEMM has no rival that is right, BuildError where the
        compilers do not answer.
        """
        seen = list(known)
        banned = wrong(seen)
        rounds: list[FirstRound] = []
        for batch, both in self._first_rounds(setup, banned):
            rounds += both
            yield batch, None
        others = other_orders(rounds, setup, seen)
        left = {each.symbol for each in self.passing([each for own in others for each in own])}
        for batch in setup.batches:
            timed: list[tuple[FirstRound, list[Trial]]] = []
            found: list[Measurement] = []
            for first, own in zip(rounds, others, strict=True):
                if first.batch == batch:
                    rivals = [e for e in own if e.symbol in left and _named(e) not in banned]
                    timed.append((first, second_round(first, rivals)))
                    found += of_gemm(setup, *timed[-1])
                    banned |= wrong(found)
            yield batch, [*found, *of_layer(setup, timed)]

    def _first_rounds(
        self, setup: Setup, banned: set[tuple[str, str]]
    ) -> Iterator[tuple[Batch, list[FirstRound]]]:
        """Both GEMMs of every batch. `banned` are contracts and designs whose results were wrong,
        and comes to hold those that are.
        """
        packed = random_experts(setup.model, setup.layer, self.device, self.seed)
        turned = rotated(packed, setup, memory_of(self.device), self.seed)
        for batch in setup.batches:
            own = turned.copies[: turned.wanted[batch]]
            floor = floor_us(turned.works[batch], READ_TB_PER_S)
            calls = calls_of(len(own), GEMM_SHARE * floor)
            given = random_tokens(setup.model, setup.layer, batch, self.device, self.seed)
            prepared = prepare(self.manifest, setup.layer, own, (given,) * calls)
            with naming(f"{setup.layer.name} on {batch.tokens} tokens", OTHERWISE):
                checked = finished(prepared)
                _ = checked.present  # which waits for the device
            rounds = []
            for operation in GEMMS:
                match = contest(prepared, checked, operation, self.timer, self.say)
                rounds.append(self._first_round(batch, match, banned))
                banned |= wrong(of_gemm(setup, rounds[-1], rounds[-1].trials))
            yield batch, rounds

    def _first_round(
        self, batch: Batch, match: Contest, banned: Collection[tuple[str, str]]
    ) -> FirstRound:
        run = match.calls[0].run
        contract = run.choice[match.operation].entry.contract
        problem = run.problem.problem(contract, match.operation)
        rivals = [
            each
            for each in plausible(self._accepting(problem), problem.rows, problem.experts)
            if _named(each) not in banned
        ]
        trials = match.times(first_orders(rivals))
        if not any(each.sample.count for each in trials):
            what = "no module's result is the oracle's"
            fix = "leave the layer out by --contract, or see why"
            raise LaunchError(Finding(contract, what, fix))
        return FirstRound(batch, match, problem, rivals, trials)

    def _accepting(self, problem: Problem) -> list[Entry]:
        """What may be timed: the modules that accept a call, in every order of those designs whose
        first order keeps the gates. Raises LaunchError where there is none.
        """
        accepting = [
            each
            for each in self.entries.get(problem.contract, ())
            if all(condition.holds(problem.sizes()) for condition in each.requires)
        ]
        designs = {unordered(each) for each in self.passing(first_orders(accepting))}
        if not designs:
            sizes = ", ".join(f"{name}={size}" for name, size in problem.sizes().items())
            what = f"no module that can be timed accepts {sizes}"
            fix = "leave the layer out by --contract, or build more --rivals"
            raise LaunchError(Finding(problem.contract, what, fix))
        return [each for each in accepting if unordered(each) in designs]


def _named(entry: Entry) -> tuple[str, str]:
    return entry.contract, entry.design


def second_round(first: FirstRound, others: Sequence[Entry]) -> list[Trial]:
    """The best in their other orders, then the best of all by turns."""
    match = first.match
    trials = sorted([*first.trials, *match.times(others)], key=_median)
    final = {each.entry.symbol: each for each in match.final(trials)}
    return [final.get(each.entry.symbol, each) for each in trials]


def of_gemm(setup: Setup, first: FirstRound, trials: Iterable[Trial]) -> Iterator[Measurement]:
    """What was measured of one GEMM of a batch."""
    for each in trials:
        yield Measurement(
            model=setup.model.name,
            layer=setup.layer.name,
            operation=first.match.operation,
            contract=first.problem.contract,
            n=first.problem.n,
            k=first.problem.k,
            experts=first.problem.experts,
            rows=first.problem.rows,
            routing=first.batch.routing,
            design=each.entry.design,
            block_m=each.entry.block_m or 0,
            us=each.sample.median,
            iqr=each.sample.iqr,
            looks=each.sample.count,
        )


def of_layer(
    setup: Setup, timed: Sequence[tuple[FirstRound, Sequence[Trial]]]
) -> Iterator[Measurement]:
    """What is measured of whole layers, where several row tiles are near; `timed` are its GEMMs."""
    pairs = near({first.match.operation: trials for first, trials in timed})
    up, down = (first for first, _ in timed)
    if len(pairs) < 2:
        return
    samples = layer_samples(up.match.calls, pairs, up.match.timer)
    for pair, sample in zip(pairs, samples, strict=True):
        if sample is not None:
            trial = Trial(pair.entries[up.match.operation], sample)
            [of_up] = of_gemm(setup, up, [trial])
            yield replace(
                of_up,
                operation=LAYER,
                contract=setup.layer.name,
                n=down.problem.n,
                design=f"m{pair.block_m}",
            )


def other_orders(
    rounds: Sequence[FirstRound], setup: Setup, known: Sequence[Measurement]
) -> list[list[Entry]]:
    """What is left to be timed of each. A design that was timed on as many tokens under another
    routing is timed whatever comes out, or what that has of it would compare with nothing.
    """
    timed: dict[tuple[str, int], set[str]] = {}  # by operation and tokens
    others: list[list[Entry]] = []
    for first in rounds:
        operation, batch = first.match.operation, first.batch
        before = timed_before(known, setup, batch, operation)
        also = timed.setdefault((operation, batch.tokens), before)
        own = list(in_orders(first.trials, first.rivals, also))
        also |= {each.design for each in own}
        others.append(own)
    return others


def timed_before(
    measurements: Iterable[Measurement], setup: Setup, batch: Batch, operation: str
) -> set[str]:
    """The designs of a GEMM that were timed on as many tokens, whatever their routing."""
    own = (setup.model.name, setup.layer.name, operation, batch.tokens * setup.model.top_k)
    return {
        each.design
        for each in measurements
        if (each.model, each.layer, each.operation, each.rows) == own
    }


def first_orders(entries: Iterable[Entry]) -> list[Entry]:
    """Of designs that differ in the order of programs alone, one; the others follow for the
    best.
    """
    alike: dict[tuple[str, str], list[Entry]] = {}
    for each in entries:
        alike.setdefault((each.contract, unordered(each)), []).append(each)
    return [_first(own) for own in alike.values()]


def _first(entries: Sequence[Entry]) -> Entry:
    """Short row tiles go along columns, tall ones in blocks, as most of the fastest do; where they
    lack that order any will do.
    """
    usual = "columns" if (entries[0].block_m or 0) < TALL else "blocks"
    return next((each for each in entries if each.order == usual), entries[0])


def _median(trial: Trial) -> float:
    return trial.sample.median
