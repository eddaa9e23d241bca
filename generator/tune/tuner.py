"""Find the fastest GEMM modules of a layer on each batch. Prints nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from generator.errors import Finding, LaunchError
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest
from generator.tune.calls import Prepared, prepare, random_tokens
from generator.tune.cases import Batch, Setup
from generator.tune.measured import Measurement
from generator.tune.rotated import rotated
from generator.tune.rotation import calls_of, memory_of
from generator.tune.stages import finished
from generator.tune.timing import Timer
from generator.tune.trials import Trial, contest, in_orders, plausible
from generator.tune.weights import random_experts
from generator.tune.work import floor_us
from generator.verify.stages import Checked

GEMMS = ("up", "down")
READ_TB_PER_S = 5.0  # no device in sight reads faster; a graph's calls are counted by it
GEMM_SHARE = 1 / 3  # of a layer's floor that its down GEMM takes at least


@dataclass(frozen=True)
class Tuner:
    """Times the modules of one target, those of `entries` that accept a call."""

    manifest: Manifest
    entries: Mapping[str, Sequence[Entry]]  # by contract
    device: torch.device
    timer: Timer
    seed: int

    def measurements(self, setup: Setup) -> Iterator[tuple[Batch, list[Measurement]]]:
        """Batch by batch; the weights are made once. Raises LaunchError where a GEMM has no
        rival.
        """
        packed = random_experts(setup.model, setup.layer, self.device, self.seed)
        turned = rotated(packed, setup, memory_of(self.device), self.seed)
        for batch in setup.batches:
            own = turned.copies[: turned.wanted[batch]]
            floor = floor_us(turned.works[batch], READ_TB_PER_S)
            calls = calls_of(len(own), GEMM_SHARE * floor)
            given = random_tokens(setup.model, setup.layer, batch, self.device, self.seed)
            prepared = prepare(self.manifest, setup.layer, own, (given,) * calls)
            checked = finished(prepared)
            found = [
                measurement
                for operation in GEMMS
                for measurement in self._of(setup, batch, prepared, checked, operation)
            ]
            yield batch, found

    def _of(
        self, setup: Setup, batch: Batch, prepared: Prepared, checked: Checked, operation: str
    ) -> Iterator[Measurement]:
        contract = checked.run.choice[operation].entry.contract
        problem = checked.run.problem.problem(contract, operation)
        accepting = [
            each
            for each in self.entries.get(contract, ())
            if all(condition.holds(problem.sizes()) for condition in each.requires)
        ]
        if not accepting:
            sizes = ", ".join(f"{name}={size}" for name, size in problem.sizes().items())
            what = f"no module that can be timed accepts {sizes}"
            fix = "leave the layer out by --contract, or build more --rivals"
            raise LaunchError(Finding(contract, what, fix))
        rivals = plausible(accepting, problem.rows, problem.experts)
        match = contest(prepared, checked, operation, self.timer)
        trials = match.times(first_orders(rivals))
        trials = sorted(trials + match.times(list(in_orders(trials, rivals))), key=_median)
        best: dict[int | None, list[Trial]] = {}
        for each in trials:
            best.setdefault(each.entry.block_m, []).append(each)
        final = {t.entry.symbol: t for own in best.values() for t in match.final(own)}
        for each in trials:
            taken = final.get(each.entry.symbol, each)
            yield Measurement(
                model=setup.model.name,
                layer=setup.layer.name,
                operation=operation,
                contract=contract,
                n=problem.n,
                k=problem.k,
                experts=problem.experts,
                rows=problem.rows,
                routing=batch.routing,
                design=each.entry.design,
                block_m=each.entry.block_m or 0,
                us=taken.sample.median,
                iqr=taken.sample.iqr,
                looks=taken.sample.count,
            )


def first_orders(entries: Sequence[Entry]) -> list[Entry]:
    """Of designs that differ in the order of programs alone, one: short row tiles go along columns,
    tall ones in blocks, as most of the fastest do; the others follow for the best.
    """
    wanted = {16: "columns", 32: "columns", 64: "columns"}
    there = {each.order for each in entries}
    chosen = []
    for each in entries:
        order = wanted.get(each.block_m or 0, "blocks")
        if each.order == (order if order in there else sorted(o or "" for o in there)[0]):
            chosen.append(each)
    return chosen


def _median(trial: Trial) -> float:
    return trial.sample.median
