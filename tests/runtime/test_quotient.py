"""Codes come of a division without its slow path: x * (1 / s), and one step.

What is claimed of an emitted `_quotient`, for a row's scale s (fp32, 1e-6 <= s <= 2.7e36), the
fp32 nearest to 1 / s, and |x| <= 127 s:

* where x is one of the seven fp32 about (n + 1/2) s, with n of 0 .. 126, it is the fp32 nearest to
  x / s, to the last bit. Powers of two scale all of it exactly, so every significand of s is every
  case; tests/gpu/test_quotient.py tries them all;
* elsewhere, where |x| >= 2**-100, it is the nearest or one beside it, and further than that from
  n + 1/2;
* where |x| is smaller, both are below 2**-79 in magnitude: the residual of a step, a multiple of
  ulp(q) * ulp(s), may fall below the smallest fp32 there.

Hence both round to one code, half to even as half away from zero. The kernels' own text is run, so
that a GPU is held to it too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower.program import Selection, program
from generator.runtime import launch, reference
from generator.runtime.device import current
from generator.runtime.manifest import Manifest, load
from generator.spec.load import load as load_specs
from generator.verify.compare import differing_bits
from tests.ties import differing, quotient

BLOCK = tl.constexpr(2**16)
CASES = 2**22  # of each kind
ROWS, K = 1024, 4096  # as many
LARGEST = np.finfo(np.float32).max
LEAST_SCALE, MOST_SCALE = np.float32(1e-6), LARGEST / np.float32(127)
EXACT = 2.0**-100  # |x| from which the residual of a step is no subnormal
ULPS = 4  # on either side of a tie
OF_FP32 = {"half_even": "requantize_a8_fp32_v1", "half_away": "requantize_a8_fp32_away_v1"}
Cases = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


@triton.jit
def quotients(x_ptr, scale_ptr, out_ptr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    scale = tl.load(scale_ptr + at)
    tl.store(out_ptr + at, quotient(tl.load(x_ptr + at), scale, tl.div_rn(1.0, scale)))


def stepped(values: np.ndarray, steps: np.ndarray | int) -> np.ndarray:
    """The nearest finite fp32, and so many ulps further from zero."""
    nearest = np.minimum(np.abs(values), LARGEST).astype(np.float32)
    bits = np.clip(nearest.view(np.int32) + steps, 0, LARGEST.view(np.int32)).astype(np.int32)
    return np.copysign(bits.view(np.float32), values).astype(np.float32)


def scales(random: np.random.Generator, count: int) -> np.ndarray:
    """Over the whole range: any significand, powers of two and both ends with what is next to
    them.
    """
    low, high = np.log2(LEAST_SCALE), np.log2(MOST_SCALE)
    steps = random.integers(-ULPS, ULPS + 1, count)
    free = np.exp2(random.uniform(low, high, count)).astype(np.float32)
    powers = stepped(np.exp2(np.floor(random.uniform(low, high, count))), steps)
    ends = stepped(random.choice([LEAST_SCALE, MOST_SCALE], count), steps)
    kind = np.minimum(random.integers(0, 8, count), 2)
    return np.clip(np.choose(kind, [ends, powers, free]), LEAST_SCALE, MOST_SCALE)


def anywhere(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """|x| <= 127 s: half of them evenly, half over all binades, zeros and subnormals too."""
    scale = scales(random, CASES)
    even = random.uniform(-127, 127, CASES) * scale
    x = np.where(random.random(CASES) < 0.5, even, even * np.exp2(random.uniform(-160, 0, CASES)))
    return stepped(np.where(random.random(CASES) < 1e-3, 0.0, x), 0), scale


def beside_ties(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x within a few ulps of (n + 1/2) s, where two codes meet; and of n s."""
    scale = scales(random, CASES)
    halves = random.integers(1, 255, CASES) / 2 * random.choice([-1, 1], CASES)
    return stepped(halves * scale, random.integers(-ULPS, ULPS + 1, CASES)), scale


def hardest(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x / s as near to the middle of two fp32 as it can be: 2**25 X = Q S + d for odd Q of 25 bits,
    significands X and S of 24 bits and a small odd d.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    while count < CASES:
        s = random.integers(2**22, 2**23, CASES) * 2 + 1
        d = random.choice([-7, -5, -3, -1, 1, 3, 5, 7], CASES)
        inverse = s.copy()
        for _ in range(5):  # Newton's steps double the bits that are right, from 3 of them
            inverse = (inverse * (2 - s * inverse % 2**25)) % 2**25
        for bits in (24, 25):
            q = (-d * inverse) % 2**bits
            q += 2**24 if bits == 24 else 0
            x = (q * s + d) >> bits
            ok = (q >= 2**24) & (x >= 2**23) & (x < 2**24) & (x << bits == q * s + d)
            found.append((x[ok], s[ok]))
            count += int(ok.sum())
    x, s = (np.concatenate(each)[:CASES].astype(np.float64) for each in zip(*found, strict=True))
    binade = random.integers(-42, 97, CASES)  # s of 1.2e-6 .. 2.7e36
    up = random.integers(-2, 7, CASES)  # quotients of 1/8 .. 127, and some above
    scale, x = np.ldexp(s, binade), np.ldexp(x, binade + up)
    x = np.where(x > 127 * scale, np.ldexp(x, -1), x)
    return (x * random.choice([-1, 1], CASES)).astype(np.float32), scale.astype(np.float32)


def half_even(v: np.ndarray) -> np.ndarray:
    return np.rint(v)


def half_away(v: np.ndarray) -> np.ndarray:
    whole = np.trunc(v)
    return np.where(np.abs(v - whole) >= 0.5, whole + np.sign(v), whole)


def ran(x: np.ndarray, scale: np.ndarray, device: torch.device) -> np.ndarray:
    operands = [torch.from_numpy(each).to(device) for each in (x, scale)]
    out = torch.full_like(operands[0], float("nan"))
    with current(device):
        quotients[(CASES // BLOCK.value,)](*operands, out, enable_fp_fusion=False)
    return out.cpu().numpy()


@pytest.mark.parametrize("cases", [anywhere, beside_ties, hardest], ids=lambda each: each.__name__)
def test_quotients_round_as_those_of_a_division(device: torch.device, cases: Cases) -> None:
    x, scale = cases(np.random.default_rng(0))
    assert x.size == CASES and x.dtype == scale.dtype == np.float32
    assert (np.abs(x) / 127.0001 <= scale).all()
    assert ((scale >= LEAST_SCALE) & (scale <= MOST_SCALE)).all()
    got, want = ran(x, scale, device), x / scale
    far = (np.abs(got - want) > np.spacing(np.abs(want))) & (np.abs(x) >= EXACT)
    pairs = zip(x[far], scale[far], strict=True)
    examples = [f"{float(a).hex()} / {float(b).hex()}" for a, b in pairs]
    assert not examples, f"{len(examples)}, such as {examples[:5]}"
    assert (np.abs(got)[np.abs(x) < EXACT] < 2.0**-79).all()
    for rounded in (half_even, half_away):
        assert (rounded(got) == rounded(want)).all()


def test_quotients_beside_ties_are_correctly_rounded(device: torch.device) -> None:
    assert differing(device, every=False) == 0


@pytest.fixture(scope="module")
def fp32_rows(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Requantization of what no narrow type has rounded."""
    out: Path = tmp_path_factory.mktemp("fp32") / "generated"
    selection = Selection(contracts=tuple(OF_FP32.values()), targets=("portable",))
    write(out, outputs(program(load_specs(folder("specs")), selection), folder("templates")))
    return load(out)


def tied_rows() -> torch.Tensor:
    """Rows whose first element sets the scale; the others lie beside its halves and multiples."""
    random = np.random.default_rng(1)
    amax = np.minimum(scales(random, ROWS) * np.float64(127), LARGEST).astype(np.float32)
    scale = (amax / np.float32(127)).astype(np.float64)
    halves = random.integers(-253, 254, (ROWS, K)) / 2
    x = stepped(halves * scale[:, None], random.integers(-ULPS, ULPS + 1, (ROWS, K)))
    x[:, 0] = amax
    return torch.from_numpy(x)


@pytest.mark.parametrize("rounding", OF_FP32)
def test_codes_beside_ties_are_those_of_a_division(
    fp32_rows: Manifest, device: torch.device, rounding: str
) -> None:
    x = tied_rows().to(device)
    assert x.numel() == CASES
    ones = torch.ones(1, K, device=device)
    expert = torch.zeros(ROWS, dtype=torch.int32, device=device)
    want_codes, want_scale = reference.quantize(x, ones, expert, rounding)
    assert (want_codes.abs() <= 127).all()
    for entry in fp32_rows.by_contract[OF_FP32[rounding]]:
        if not all(each.holds({"rows": ROWS, "K": K, "experts": 1}) for each in entry.requires):
            continue
        codes = torch.full((ROWS, K), -128, dtype=torch.int8, device=device)
        scale = torch.full((ROWS,), float("nan"), device=device)
        with current(device):
            launch.quantize(entry, x, ones, expert, codes, scale)
        assert differing_bits(scale, want_scale) == 0, entry.name
        assert differing_bits(codes, want_codes) == 0, entry.name
