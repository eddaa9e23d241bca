"""The header of an emitted module: what it is, what it requires, why it is exact. Always the same
number of lines.
"""

from __future__ import annotations

from dataclasses import dataclass

from generator.lower.contract import (
    CombineContract,
    Contract,
    CountContract,
    DispatchContract,
    GemmContract,
    QuantizeContract,
    RouteContract,
    contract_digest,
)
from generator.lower.variant import Variant


@dataclass(frozen=True, slots=True)
class Header:
    """One line each: Triton's cache key holds line numbers, so the kernel must not move with the
    text.
    """

    title: str
    contract: str
    digest: str
    requires: str
    limits: str
    exact: str
    then: str


def header(variant: Variant) -> Header:
    exact, then = _exact(variant)
    return Header(
        title=_title(variant.contract),
        contract=variant.contract.name,
        digest=contract_digest(variant.contract),
        requires=", ".join(str(each) for each in variant.requires if each not in variant.bounds),
        limits=", ".join(str(each) for each in variant.bounds),
        exact=exact,
        then=then,
    )


def _title(contract: Contract) -> str:
    match contract:
        case GemmContract():
            scale = (
                f"one scale per {contract.group_k or 'column'}{' K' if contract.group_k else ''}"
            )
            rows = (
                f"{contract.input} rows"
                if not contract.requantizes
                else (f"{contract.input} rows, quantized to {contract.codes},")
            )
            gemm = f"{rows} x {contract.weights} weights ({scale})"
            if contract.gate:
                return f"Up projection and SwiGLU: {gemm} -> {contract.output}."
            return f"Down projection: {gemm} -> {contract.output}."
        case QuantizeContract():
            rows = {
                "gather": "tokens, gathered in expert order,",
                "sorted": "rows sorted by expert",
            }[contract.source]
            what = "Quantize" if contract.operation == "quantize" else "Requantize"
            return f"{what} {contract.input} {rows} to {contract.codes}, one scale per row."
        case CountContract():
            return "Count the slots of each expert, chunk by chunk, from top-k expert ids."
        case RouteContract():
            source = {"ids": "top-k expert ids", "counts": "the number of rows of each expert"}
            return f"Route from {source[contract.source]}: sorted rows and row tiles."
        case DispatchContract():
            return (
                f"Route from top-k expert ids and quantize {contract.input} tokens to"
                f" {contract.codes}, in one launch."
            )
        case CombineContract():
            return f"Combine each token's {contract.output} rows by router weight, in slot order."


def _exact(variant: Variant) -> tuple[str, str]:
    """Why the results are exact, in two lines."""
    match variant.contract:
        case GemmContract():
            assert variant.proof is not None
            bounds = [str(bound) for bound in variant.proof.bounds]
            if variant.contract.group_k is None:
                bounds.append("one conversion to fp32; acc = fma(sum, scale, +0)")
            else:
                each = "one conversion to fp32 a group"
                bounds.append(f"{each}; acc = fma(sum, scale, acc), ascending")
            return bounds[0], bounds[1]
        case QuantizeContract() | DispatchContract():
            return (
                "one fp32 operation a step, rounded to nearest even",
                "codes are in -127..127, or the row's scale is NaN",
            )
        case CountContract():
            return "integers only", "slots of other experts are not counted"
        case RouteContract():
            return "integers only", "the sort is stable"
        case CombineContract():
            return "acc = fma(weight, y, acc) from +0.0 in slot order", "one rounding"
