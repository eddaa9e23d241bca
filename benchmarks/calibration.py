"""What the rules of resources foretell of the designs on record, against what was compiled.

    python -m benchmarks.calibration [--specs DIR]

Reads `specs/resources/calibration/`, whose designs were compiled whether they are legal or not, and
asks the rules `accumulator_registers` and `shared_memory` of each. Nothing is compiled, so it takes
seconds. The tables are Markdown, for docs/calibration.md; `tests/lower/test_calibration.py` holds
the margins.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from generator.data import folder
from generator.errors import BuildError, Finding
from generator.lower.candidates import candidates
from generator.lower.contract import GemmContract
from generator.lower.design import Design
from generator.lower.layer_contract import model_layers, plans
from generator.lower.prune import RULES
from generator.lower.registers import Registers, kind
from generator.lower.variant import Variant
from generator.resources import Taken
from generator.spec.load import load
from generator.spec.model import Spec, SpecSet, Target

# Registers of the limit that compilers leave unused even where they spill.
UNUSED_REGISTERS = 2
RULE = {rule.name: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class Sample:
    """One design, as one Triton compiled it for one target."""

    variant: Variant
    target: Target  # that it was compiled for
    triton: str
    taken: Taken
    fits_registers: bool  # as foretold, and so shared memory
    fits_shared: bool

    @property
    def name(self) -> str:
        return f"{self.variant.symbol} for {self.compiler}"

    @property
    def compiler(self) -> str:
        return f"{self.target.name}, Triton {self.triton}"

    @property
    def need(self) -> Registers:
        assert self.variant.registers is not None
        return self.variant.registers

    @property
    def spills(self) -> bool:
        return self.taken.stack > 0

    @property
    def at_limit(self) -> bool:
        """Whether it takes all that a thread may. One that spills below it has given registers
        away, so that one more program fits on a processor.
        """
        return self.taken.registers >= self.need.limit - UNUSED_REGISTERS

    @property
    def foreign(self) -> bool:
        """Whether its dots became instructions of a family that its own target does not name."""
        return set(self._families).isdisjoint(self.variant.matrix)

    @property
    def family(self) -> str:
        own = ", ".join(self.variant.matrix)
        return f"{own} as {', '.join(self._families)}" if self.foreign else own

    @property
    def _families(self) -> tuple[str, ...]:
        own = self.variant
        return Variant(own.contract, own.design, self.target, own.limits).matrix

    @property
    def kind(self) -> str:
        assert self.variant.gemm is not None
        return kind(self.variant.gemm)

    @property
    def unpack(self) -> str:
        return self.variant.design.unpack or "none"


class Candidates:
    """The variants that may stand on record: candidates of the default build's GEMMs. `owners` are
    these by name, with the first spec that describes each.
    """

    def __init__(self, loaded: SpecSet) -> None:
        self.targets = {target.name: target for target in loaded.targets}
        self.owners: dict[str, tuple[GemmContract, Spec]] = {}
        self._designs: dict[tuple[GemmContract, str], dict[str, Design]] = {}
        specs = {spec.name: spec for spec in loaded.specs}
        for layer in model_layers(loaded.specs, loaded.models):
            for plan in plans(specs[layer.spec], layer):
                for contract in plan.contracts:
                    if isinstance(contract, GemmContract):
                        self.owners.setdefault(contract.name, (contract, specs[layer.spec]))

    def variant(self, contract: str, target: str, design: str) -> Variant | None:
        """None where there is no such candidate."""
        if contract not in self.owners or target not in self.targets:
            return None
        own, spec = self.owners[contract]
        found = self._of(own.geometry, spec, self.targets[target]).get(design)
        return None if found is None else Variant(own, found, self.targets[target], spec.limits)

    def _of(self, geometry: GemmContract, spec: Spec, target: Target) -> dict[str, Design]:
        """By name; contracts of one geometry are judged once."""
        key = (geometry, target.name)
        if key not in self._designs:
            every = candidates(spec, geometry, target)
            self._designs[key] = {each.design.name: each.design for each in every}
        return self._designs[key]


def samples(loaded: SpecSet) -> list[Sample]:
    """Every design on record. Raises BuildError where some are no candidates any more."""
    known = Candidates(loaded)
    found: list[Sample] = []
    gone: list[str] = []
    for calibration in loaded.calibrations:
        for contract, rows in calibration.designs.items():
            for name, taken in rows.items():
                own, _, design = name.partition("/")
                variant = known.variant(contract, own, design)
                if variant is None or calibration.target not in known.targets:
                    gone.append(f"{contract} {name} of {calibration.name}")
                    continue
                target = known.targets[calibration.target]
                found.append(_sample(variant, target, calibration.triton, taken))
    if gone:
        what = f"{len(gone)} designs on record are no candidates any more, such as {gone[0]}"
        fix = "calibrate again, as CONTRIBUTING.md says of a kernel's resources"
        raise BuildError(Finding("specs/resources/calibration", what, fix))
    return found


def _sample(variant: Variant, target: Target, triton: str, taken: Taken) -> Sample:
    return Sample(
        variant,
        target,
        triton,
        taken,
        fits_registers=RULE["accumulator_registers"].violation(variant) is None,
        fits_shared=RULE["shared_memory"].violation(variant) is None,
    )


def tables(found: Sequence[Sample]) -> Iterator[str]:
    """Both tables in Markdown, line by line."""
    yield from _table(
        found, "compiled for | modules of", lambda each: (each.compiler, each.variant.target.name)
    )
    yield ""
    yield from _table(
        found, "matrix | kernel | unpack", lambda each: (each.family, each.kind, each.unpack)
    )


def _table(
    found: Sequence[Sample], keys: str, key: Callable[[Sample], tuple[str, ...]]
) -> Iterator[str]:
    columns = (
        keys,
        "designs",
        "spilled",
        "kept though spilled",
        "of these at the limit",
        "rejected though fine",
        "shared memory, median",
        "largest",
        "rejected though it fits",
    )
    yield f"| {' | '.join(columns)} |"
    yield "| --- " * (keys.count("|") + 1) + "| ---: " * (len(columns) - 1) + "|"
    groups: dict[tuple[str, ...], list[Sample]] = {}
    for each in found:
        groups.setdefault(key(each), []).append(each)
    for name in sorted(groups):
        yield f"| {' | '.join((*name, *_figures(groups[name])))} |"
    empty = ("",) * keys.count("|")
    yield f"| {' | '.join(('all', *empty, *_figures(found)))} |"


def _figures(found: Sequence[Sample]) -> Iterator[str]:
    spilled = [each for each in found if each.spills]
    kept = [each for each in spilled if each.fits_registers]
    fine = [each for each in found if not each.spills]
    fitting = [each for each in found if each.taken.shared <= each.variant.target.shared_memory]
    ratios = [each.variant.shared_bytes / each.taken.shared for each in found if each.taken.shared]
    yield str(len(found))
    yield str(len(spilled))
    yield str(len(kept))
    yield str(sum(each.at_limit for each in kept))
    yield _share(sum(not each.fits_registers for each in fine), len(fine))
    yield f"{median(ratios):.2f}" if ratios else ""
    yield f"{max(ratios):.2f}" if ratios else ""
    yield _share(sum(not each.fits_shared for each in fitting), len(fitting))


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "0"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--specs", type=Path, metavar="DIR", help="default: the shipped specs")
    options = parser.parse_args(arguments)
    for line in tables(samples(load(options.specs or folder("specs")))):
        print(line)


if __name__ == "__main__":
    main()
