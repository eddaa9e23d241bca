"""One text for one meaning: models -> canonical YAML and digests, and the language -> JSON
Schema.
"""

from __future__ import annotations

import hashlib
import json

import yaml
from pydantic.json_schema import models_json_schema

from generator.spec.model import Frozen, Model, Spec, Target, Tuning


def canonical_text(subject: Frozen) -> str:
    """YAML with every field in the model's order; loading it gives an equal model."""
    data = subject.model_dump(mode="json", by_alias=True)
    text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100)
    return text


def digest(subject: Frozen) -> str:
    """Twelve hex digits of the meaning: comments and layout of the YAML do not count."""
    data = json.dumps(subject.model_dump(mode="json", by_alias=True), sort_keys=True)
    return hashlib.sha256(data.encode()).hexdigest()[:12]


def json_schema() -> str:
    """The JSON Schema that editors use for all kinds of file."""
    kinds = (Spec, Target, Model, Tuning)
    _, schema = models_json_schema([(kind, "validation") for kind in kinds], by_alias=True)
    return (
        json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": "Groupwise specs, targets, models and tunings",
                "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
                **schema,
            },
            indent=2,
        )
        + "\n"
    )
