"""manifest.json: all that the runtime may know of the emitted modules."""

from __future__ import annotations

import json
from pathlib import Path

from generator.emit.digest import file_digests
from generator.lower.contract import contract_digest
from generator.lower.layer import PlanBand
from generator.lower.layer_contract import model_layers
from generator.lower.plan import Plan
from generator.lower.program import Program
from generator.lower.variant import Variant
from generator.spec.canonical import digest
from generator.spec.model import Model, Target

CUDA_WARP = 32  # threads, on every device that Triton's CUDA back end compiles for
SCHEMA = 6  # raised when a reader of the old shape would go wrong


def manifest(program: Program, templates: Path) -> str:
    """The manifest's text: one line per entry, so that a diff reads."""
    contracts = {plan.contract.name: plan.contract for plan in program.plans}
    data = {
        "schema": SCHEMA,
        "inputs": {
            "specs": {spec.name: digest(spec) for spec in program.specs},
            "targets": {target.name: digest(target) for target in program.every_target},
            "models": {model.name: digest(model) for model in program.models},
            "templates": file_digests(templates, "*.jinja"),
        },
        "targets": {target.name: _target(target) for target in program.every_target},
        "contracts": {
            name: {"digest": contract_digest(contract), **contract.axes()}
            for name, contract in contracts.items()
        },
        "layers": {
            layer.contract.name: {
                "axes": layer.contract.axes(),
                "values": layer.contract.values(),
                "plans": [
                    {
                        "name": plan.name,
                        "tokens": [each.name for each in plan.tokens],
                        "rows": [each.name for each in plan.rows],
                    }
                    for plan in layer.plans
                ],
                "selection": {
                    target: [_plan_band(each) for each in ranked]
                    for target, ranked in layer.bands.items()
                },
            }
            for layer in program.layers
        },
        "models": {model.name: _model(model, program) for model in program.models},
        "entries": [_entry(v) for plan in program.plans for v in plan.kept],
        "selection": [_selection(plan) for plan in program.plans],
    }
    return _text(data)


def _target(target: Target) -> dict[str, object]:
    return {
        "backend": target.backend,
        "capability": None if target.capability == "none" else list(target.capability),
        "compiler": _compiler(target),
        "dots": list(target.dots),
        "shared_memory": target.shared_memory,
        "registers": target.registers,
        "matrix": [unit.model_dump() for unit in target.matrix],
    }


def _compiler(target: Target) -> dict[str, object] | None:
    """What Triton compiles for; the warps of a stand-in are those of its own back end."""
    if target.compiler == "none":
        return None
    warp_size = target.warp_size if target.compiler.backend == "hip" else CUDA_WARP
    return {**target.compiler.model_dump(), "warp_size": warp_size}


def _model(model: Model, program: Program) -> dict[str, object]:
    used = set(model_layers(program.specs, (model,)))
    built = [layer.contract for layer in program.layers]
    shape = ("experts", "global_experts", "top_k", "hidden", "intermediate")
    return {
        **{key: getattr(model, key) for key in shape},
        "tokens": list(model.tokens),
        "layers": [layer.name for layer in built if layer in used],
    }


def _entry(variant: Variant) -> dict[str, object]:
    design = variant.design
    return {
        "contract": variant.contract.name,
        "target": variant.target.name,
        "design": design.name,
        "path": variant.path,
        "symbol": variant.symbol,
        "block_m": design.block_m,
        "block_n": design.block_n,
        "block_k": design.block_k,
        "warps": design.warps,
        "stages": design.stages,
        "dot": design.dot,
        "unpack": design.unpack,
        "operands": design.operands,
        "gates": design.gates,
        "order": design.order,
        "roles": design.roles,
        "programs": variant.target.cost.processors if design.specialized else None,
        "requires": [each.data() for each in variant.requires],
        "counts": [
            {"argument": each.argument, "of": each.of, "unit": each.unit} for each in variant.counts
        ],
        "proof": None if variant.proof is None else str(variant.proof),
    }


def _plan_band(ranked: PlanBand) -> dict[str, object]:
    return {
        "rows_per_expert": [ranked.band.low, ranked.band.high],
        "plans": [
            {"name": each.plan, "requires": [condition.data() for condition in each.requires]}
            for each in ranked.choices
        ],
    }


def _selection(plan: Plan) -> dict[str, object]:
    return {
        "contract": plan.contract.name,
        "target": plan.target.name,
        "bands": [
            {
                "rows_per_expert": [each.band.low, each.band.high],
                "designs": [design.name for design in each.designs],
            }
            for each in plan.bands
        ],
        "tuned": [
            {
                "n": each.n,
                "k": each.k,
                "experts": each.experts,
                "device": each.device,
                "date": each.date,
                "buckets": [[bucket.rows, bucket.design] for bucket in each.buckets],
            }
            for each in plan.tuned
        ],
    }


def _text(data: dict[str, object]) -> str:
    """JSON with one line per item of the long lists and mappings."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list):
            items = ",\n".join(f"    {json.dumps(each)}" for each in value)
            parts.append(f"  {json.dumps(key)}: [\n{items}\n  ]" if value else f'  "{key}": []')
        elif isinstance(value, dict):
            items = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            parts.append(f"  {json.dumps(key)}: {{\n{items}\n  }}" if value else f'  "{key}": {{}}')
        else:
            parts.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
