"""What the options name, and what they are told where it is nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from generator.errors import LaunchError
from generator.runtime.manifest import Manifest, load
from generator.tune.cases import Batch, setups
from tests.tune.small import model


@pytest.fixture
def manifest() -> Manifest:
    return load()


def test_the_default_is_every_model_with_its_layers_and_its_tokens(manifest: Manifest) -> None:
    found = setups(manifest)
    assert [(each.model.name, each.layer.name) for each in found] == [
        (own.name, layer) for own in manifest.models.values() for layer in own.layers
    ]
    for each in found:
        assert each.batches == tuple(Batch(count, "uniform") for count in each.model.tokens)


def test_options_narrow_and_multiply(manifest: Manifest) -> None:
    found = setups(
        manifest,
        models=["mixtral-8x7b"],
        contract="layer_w4*",
        tokens=[2, 8, 2],
        routings=["zipf", "one-hot"],
    )
    assert [each.layer.name for each in found] == ["layer_w4g128_a8_swiglu_bf16_v1"]
    assert found[0].batches == tuple(
        Batch(count, routing) for count in (2, 8) for routing in ("zipf", "one-hot")
    )


def test_all_that_names_nothing_is_said_at_once(manifest: Manifest) -> None:
    with pytest.raises(LaunchError) as error:
        setups(manifest, models=["mixtral", "gpt"], contract="level_*", tokens=[4, 0])
    assert [str(each) for each in error.value.findings] == [
        f"--model mixtral: no such model; use one of {', '.join(manifest.models)}",
        f"--model gpt: no such model; use one of {', '.join(manifest.models)}",
        "--contract: `level_*` names no layer contract;"
        f" use a pattern of {', '.join(manifest.layers)}",
        "--tokens 0: is no number of tokens; use 1 or more",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"models": ["seed-small"], "contract": "layer_w8g128_a8_swiglu_bf16_v1"},
            "[launch] --contract: `layer_w8g128_a8_swiglu_bf16_v1` names no layer contract of"
            " seed-small; use a pattern of ",
        ),
        (
            {"routings": ["half-empty"]},
            "[launch] --routing half-empty: every token needs 4 distinct experts, and 3 of 6 are",
        ),
    ],
)
def test_what_no_model_can_do_is_refused(
    manifest: Manifest, options: dict[str, Any], message: str
) -> None:
    crowded = replace(manifest, models={**manifest.models, "tiny": model(top_k=4)})
    with pytest.raises(LaunchError) as error:
        setups(crowded, **options)
    assert str(error.value).startswith(message)


def test_a_manifest_without_models_says_so(manifest: Manifest) -> None:
    with pytest.raises(LaunchError, match="its manifest holds no model"):
        setups(replace(manifest, models={}))
