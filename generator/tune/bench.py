"""Measure setups batch by batch: rows as they are done. Prints nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from generator.runtime.layer import LayerRun
from generator.runtime.manifest import Manifest
from generator.tune import sampled
from generator.tune.baselines import Absent, Baseline, external, seed_baseline
from generator.tune.calls import Prepared, prepare, random_tokens
from generator.tune.cases import Batch, Setup
from generator.tune.ceilings import Ceilings
from generator.tune.rotated import rotated
from generator.tune.rotation import calls_of, memory_of
from generator.tune.rows import Compared, Facts, Row, Times
from generator.tune.seed_layer import combined
from generator.tune.stages import designs, finished, launches, stage_subjects
from generator.tune.timing import (
    EagerSamples,
    Replay,
    Sample,
    Subject,
    Timer,
    eager_samples,
    graph_samples,
)
from generator.tune.weights import random_experts
from generator.tune.work import floor_us, mean
from generator.verify.compare import differing_bits
from generator.verify.stages import Checked, check_stages

CHECKS = ("sample", "stages", "none")
EAGER_US = 10_000.0  # back-to-back calls last about so long
EAGER_CALLS = (5, 100)  # and are so many, at least and at most


@dataclass(frozen=True)
class Bench:
    """What is measured of every batch, and on what."""

    manifest: Manifest
    device: torch.device
    timer: Timer
    ceilings: Ceilings | None
    repeat: int
    stages: bool
    baselines: bool
    seed_modules: Manifest | None
    check: str  # of CHECKS
    seed: int

    def rows(self, setup: Setup) -> Iterator[tuple[Batch, list[Row]]]:
        """Batch by batch; the weights are made once."""
        packed = random_experts(setup.model, setup.layer, self.device, self.seed)
        turned = rotated(packed, setup, memory_of(self.device), self.seed)
        every = turned.copies
        for batch in setup.batches:
            wanted = turned.wanted[batch]
            floor = None
            if self.ceilings is not None:
                floor = floor_us(turned.works[batch], self.ceilings.read_tb_per_s)
            calls = calls_of(min(wanted, len(every)), floor)
            tokens = tuple(
                random_tokens(setup.model, setup.layer, batch, self.device, self.seed + index)
                for index in range(calls)
            )
            prepared = prepare(self.manifest, setup.layer, every[:wanted], tokens)
            facts = self._facts(setup, batch, prepared, cold=wanted <= len(every))
            yield batch, list(self._batch(setup, prepared, facts))

    def _facts(self, setup: Setup, batch: Batch, prepared: Prepared, *, cold: bool) -> Facts:
        works = prepared.works
        floor = None
        if self.ceilings is not None:
            floor = fmean(floor_us(each, self.ceilings.read_tb_per_s) for each in works)
        return Facts(
            model=setup.model.name,
            layer=setup.layer.name,
            tokens=batch.tokens,
            routing=batch.routing,
            work=mean(works),
            floor_us=floor,
            copies=len(prepared.copies),
            calls=len(prepared.tokens),
            cold=cold,
        )

    def _batch(self, setup: Setup, prepared: Prepared, facts: Facts) -> Iterator[Row]:
        checked = finished(prepared)
        others = list(self._others(setup, prepared))
        there = [each for each in others if isinstance(each, Baseline)]
        own = [prepared.subject(), *(stage_subjects(prepared, checked) if self.stages else [])]
        subjects = [*own, *(each.subject for each in there)]
        eager = self._eager(subjects, facts)
        replays = [self.timer.capture(each.calls) for each in own]
        refused = {each.subject.name: self._capture(each.subject) for each in there}
        replays += [each if not isinstance(each, str) else None for each in refused.values()]
        prepared.poison()  # so that what is compared below is what the replays wrote
        graphs = graph_samples(replays, self.repeat)
        if replays[0] is None:
            prepared.run(0)
        timed = {
            subject.name: (graph, eager.get(subject.name))
            for subject, graph in zip(subjects, graphs, strict=True)
        }
        for subject in own:
            yield self._own_row(subject, prepared, checked, facts, *timed[subject.name])
        for each in others:
            if isinstance(each, Absent):
                yield Row(facts, each.name, note=each.why)
                continue
            why = refused[each.subject.name]
            row = Row(facts, each.subject.name, _times(*timed[each.subject.name]))
            row = replace(row, note=why if isinstance(why, str) else "")
            yield row if each.run is None else self._of_seed(row, each, each.run, prepared)

    def _others(self, setup: Setup, prepared: Prepared) -> Iterator[Baseline | Absent]:
        if self.baselines:
            yield from external(prepared, setup.model, self.seed)
        if self.baselines or self.seed_modules is not None:
            yield seed_baseline(prepared, self.seed_modules)

    def _eager(self, subjects: Sequence[Subject], facts: Facts) -> dict[str, EagerSamples]:
        """Stages are timed eagerly where there is nothing else."""
        count = 1
        if facts.floor_us is not None:
            subjects = [each for each in subjects if not each.name.startswith("stage ")]
            fewest, most = EAGER_CALLS
            count = min(max(fewest, int(EAGER_US / max(facts.floor_us, 1.0))), most)
        samples = eager_samples(subjects, self.timer, self.repeat, count)
        return {each.name: sample for each, sample in zip(subjects, samples, strict=True)}

    def _capture(self, subject: Subject) -> Replay | str | None:
        """A baseline's graph, or why it has none: one may read values back."""
        try:
            return self.timer.capture(subject.calls)
        except RuntimeError as error:
            return f"no graph: {str(error).splitlines()[0]}"

    def _own_row(
        self,
        subject: Subject,
        prepared: Prepared,
        checked: Checked,
        facts: Facts,
        graph: Sample | None,
        eager: EagerSamples | None,
    ) -> Row:
        chosen = designs(checked.run)
        times = _times(graph, eager)
        if subject.name != "layer":
            operation = subject.name.removeprefix("stage ")
            return Row(facts, subject.name, times, designs={operation: chosen[operation]})
        return Row(
            facts,
            subject.name,
            times,
            compared=self._compared(prepared, checked),
            plan=checked.run.choice.plan.name,
            designs=chosen,
            workspace_bytes=prepared.workspace.numel(),
            launches=launches(checked.run),
        )

    def _compared(self, prepared: Prepared, checked: Checked) -> Compared | None:
        """Call 0 as timed: its result for some tokens, or every stage of the call."""
        if self.check == "none":
            return None
        if self.check == "stages":
            every = list(check_stages(checked))
            return Compared(sum(each.bits for each in every), sum(each.different for each in every))
        given, out = prepared.tokens[0], prepared.outs[0]
        chosen = sampled.sample(out.shape[0], out.device, self.seed)
        want = sampled.expected(prepared.copies[0], prepared.layer, given, chosen)
        return _equal(out[chosen], want)

    def _of_seed(self, row: Row, each: Baseline, run: LayerRun, prepared: Prepared) -> Row:
        """The same row with the seed's choice, and its rows, combined, against the layer's
        result.
        """
        assert each.seed_call is not None
        compared = None
        if self.check != "none":
            compared = _equal(combined(each.seed_call, prepared.tokens[0]), prepared.outs[0])
        return replace(
            row,
            compared=compared,
            plan=run.choice.plan.name,
            designs=designs(run),
            workspace_bytes=each.seed_call.workspace.numel(),
            launches=launches(run),
        )


def _times(graph: Sample | None, eager: EagerSamples | None) -> Times:
    return Times(graph) if eager is None else Times(graph, eager.wall, eager.host)


def _equal(got: torch.Tensor, want: torch.Tensor) -> Compared:
    return Compared(8 * got.numel() * got.element_size(), differing_bits(got, want))
