"""Layers of one model beside each other, replay by replay: fp16 beside bf16, say.

    python -m benchmarks.by_turns MODEL LAYER LAYER... [--tokens N...] [--generated DIR]

Whole layers as CUDA graphs, each with weights of its own that do not sit in the L2 cache, on the
same draws of tokens. What a device does with its clocks meets all of them alike, as it does not
from one batch of `bench` to the next. Microseconds a call: the median of `--repeat` replays, in
brackets the interquartile range; then how far from the first layer. Results are not compared:
`bench` does. The table is Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from math import lcm
from pathlib import Path

import torch

from generator.errors import Finding, LaunchError
from generator.runtime.device import here
from generator.runtime.manifest import Manifest, load
from generator.tune.calls import prepare, random_tokens
from generator.tune.cases import Batch, Setup, setups
from generator.tune.environment import environment
from generator.tune.rotated import rotated
from generator.tune.rotation import calls_of, memory_of
from generator.tune.timing import Sample, Timer, graph_samples, timer_for
from generator.tune.tuner import READ_TB_PER_S
from generator.tune.weights import random_experts
from generator.tune.work import floor_us

SEED = 0


def gpu() -> torch.device:
    """Raises LaunchError where there is none."""
    device = here()
    if device.type != "cuda":
        what = "there is no GPU, and without CUDA graphs nothing is replayed"
        raise LaunchError(Finding("by_turns", what, "run it on the device in question"))
    return device


def named(
    manifest: Manifest, model: str, layers: Sequence[str], tokens: Sequence[int]
) -> list[Setup]:
    """The layers as they were named. Raises LaunchError for one that the model does not have."""
    own = {each.layer.name: each for each in setups(manifest, models=[model], tokens=tokens)}
    unknown = [each for each in layers if each not in own]
    if unknown:
        fix = f"use some of {', '.join(own)}"
        raise LaunchError([Finding(each, f"is no layer of {model}", fix) for each in unknown])
    return [own[each] for each in layers]


def beside(
    manifest: Manifest, asked: Sequence[Setup], timer: Timer, device: torch.device, repeat: int
) -> Iterator[tuple[Batch, list[Sample]]]:
    """Batch by batch, a sample of each layer. Raises LaunchError where there is no room for as many
    copies of the weights as do not sit in the cache.
    """
    turned = [
        rotated(random_experts(each.model, each.layer, device, SEED), each, memory_of(device), SEED)
        for each in asked
    ]
    for batch in asked[0].batches:
        own = [each.copies[: each.wanted[batch]] for each in turned]
        if any(len(c) < t.wanted[batch] for c, t in zip(own, turned, strict=True)):
            what = "there is no memory for copies of the weights that would not sit in the cache"
            raise LaunchError(Finding(f"{batch.tokens} tokens", what, "name fewer layers"))
        floor = min(floor_us(each.works[batch], READ_TB_PER_S) for each in turned)
        calls = calls_of(lcm(*map(len, own)), floor)
        prepared = []
        for each, copies in zip(asked, own, strict=True):
            seeds = range(SEED, SEED + calls)
            given = [random_tokens(each.model, each.layer, batch, device, seed) for seed in seeds]
            prepared.append(prepare(manifest, each.layer, copies, tuple(given)))
        replays = [timer.capture(each.subject().calls) for each in prepared]
        samples = [each for each in graph_samples(replays, repeat) if each is not None]
        assert len(samples) == len(asked), "a GPU has graphs"
        yield batch, samples


def line(batch: Batch, samples: Sequence[Sample]) -> str:
    first = samples[0].median
    cells = [f"{each.median:.1f} ({each.iqr:.1f})" for each in samples]
    cells += [f"{100 * (each.median / first - 1):+.1f} %" for each in samples[1:]]
    return f"| {batch.tokens} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("layers", nargs="+", metavar="LAYER")
    parser.add_argument("--tokens", nargs="+", type=int, default=[], metavar="N")
    parser.add_argument("--generated", type=Path, metavar="DIR", help="default: shipped modules")
    parser.add_argument("--repeat", type=int, default=21, metavar="N", help="replays of each")
    options = parser.parse_args()
    try:
        manifest = load(options.generated)
        asked = named(manifest, options.model, options.layers, options.tokens)
        device = gpu()
        command = " ".join(["python -m benchmarks.by_turns", *sys.argv[1:]])
        on = environment(device, command, str(manifest.directory))
        versions = f"driver {on.driver}, torch {on.torch}, Triton {on.triton}"
        print(f"{on.device}, {versions}, {on.date} UTC; {options.model}.\n\n    {on.command}")
        heads = ["tokens", *options.layers, *("to the first" for _ in options.layers[1:])]
        print(f"\n| {' | '.join(heads)} |")
        print("| --- " + "| ---: " * (len(heads) - 1) + "|")
        for batch, samples in beside(manifest, asked, timer_for(device), device, options.repeat):
            print(line(batch, samples), flush=True)
    except LaunchError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
