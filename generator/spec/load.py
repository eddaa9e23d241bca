"""Load a specs folder: every file parsed, shaped and checked, or one SpecError with everything that
is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from generator.errors import BuildError, Finding, SpecError
from generator.resources import Calibration, Record, read_calibration
from generator.resources import read as read_record
from generator.spec.check import Check, Subject, nearest
from generator.spec.model import Frozen, Model, Spec, SpecSet, Target, Tuning
from generator.spec.model_checks import MODEL_CHECKS
from generator.spec.spec_checks import SPEC_CHECKS
from generator.spec.target_checks import TARGET_CHECKS
from generator.spec.tuning_checks import TUNING_CHECKS
from generator.spec.values import SCHEMA
from generator.spec.yaml_source import Source, YamlPath, read

Shaped = TypeVar("Shaped", bound=Frozen)
Recorded = TypeVar("Recorded", Record, Calibration)


def load(directory: Path) -> SpecSet:
    """Read `directory`/*.yaml, targets/*.yaml, models/*.yaml, tuning/*.yaml and the JSON of
    resources/.

    Raises SpecError with all defects of all files, each with file and line.
    """
    if not directory.is_dir():
        raise SpecError(Finding(str(directory), "no such folder", "pass --specs DIR"))
    findings: list[Finding] = []
    specs = _load_folder(directory, Spec, findings)
    targets = _load_folder(directory / "targets", Target, findings)
    models = _load_folder(directory / "models", Model, findings)
    tunings = _load_folder(directory / "tuning", Tuning, findings)
    if not findings and not specs:
        findings.append(
            Finding(str(directory), "holds no *.yaml spec", "add one, see CONTRIBUTING")
        )
    resources = _load_json(directory / "resources", read_record, findings)
    calibrations = _load_json(directory / "resources/calibration", read_calibration, findings)
    everything = SpecSet(
        specs=tuple(spec for _, spec in specs),
        targets=tuple(target for _, target in targets),
        models=tuple(model for _, model in models),
        tunings=tuple(tuning for _, tuning in tunings),
        resources=tuple(resources),
        calibrations=tuple(calibrations),
        broken=tuple(_broken(directory, (specs, targets, models, tunings))),
    )
    findings += _check(specs, SPEC_CHECKS, everything)
    findings += _check(targets, TARGET_CHECKS, everything)
    findings += _check(models, MODEL_CHECKS, everything)
    findings += _check(tunings, TUNING_CHECKS, everything)
    if findings:
        raise SpecError(list(dict.fromkeys(findings)))
    return everything


def _broken(directory: Path, loaded: tuple[Sequence[tuple[Source, Frozen]], ...]) -> Iterator[str]:
    """Names of the files that were there and have no model."""
    fine = {source.path for each in loaded for source, _ in each}
    for path in sorted(directory.rglob("*.yaml")):
        if path not in fine:
            yield path.stem


def _load_folder(
    directory: Path, kind: type[Shaped], findings: list[Finding]
) -> list[tuple[Source, Shaped]]:
    loaded = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            source = read(path)
            findings += source.findings
            loaded.append((source, shape(source, kind)))
        except SpecError as error:
            findings += error.findings
    for path in sorted(directory.glob("*.yml")):
        findings.append(Finding(f"{path}:1", "is not read", f"rename it to {path.stem}.yaml"))
    return loaded


def _load_json(
    directory: Path, read_one: Callable[[Path], Recorded], findings: list[Finding]
) -> list[Recorded]:
    loaded = []
    for path in sorted(directory.glob("*.json")):
        try:
            loaded.append(read_one(path))
        except BuildError as error:
            findings += error.findings
    return loaded


def shape(source: Source, kind: type[Shaped]) -> Shaped:
    """Give one parsed file its model. Raises SpecError with every defect of shape in the file."""
    if not isinstance(source.data, dict):
        raise SpecError(
            Finding(source.where(()), "is no mapping of keys", f"start with `schema: {SCHEMA}`")
        )
    version = source.data.get("schema")
    if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA:
        raise SpecError(
            Finding(
                source.where(("schema",)),
                f"schema {version} is newer than this generator, which reads schema {SCHEMA}",
                "upgrade groupwise",
            )
        )
    try:
        # JSON mode: lists become tuples, while every scalar stays strict.
        return kind.model_validate_json(json.dumps(source.data))
    except ValidationError as error:
        raise SpecError(list(_translate(source, kind, error))) from None


def _translate(source: Source, kind: type[Frozen], error: ValidationError) -> Iterator[Finding]:
    errors: dict[YamlPath, Any] = {}
    for each in error.errors(include_url=False):
        at = _in_file(source, each["loc"], missing=each["type"] == "missing")
        errors.setdefault(at, each)  # a union reports each of its branches; the first says enough
    for at, each in errors.items():
        inside = any(other[: len(at)] == at for other in errors if other != at)
        if not inside:  # else what is wrong inside says more
            yield _finding(source, kind, at, each["type"], each.get("ctx", {}), each["msg"])


def _in_file(source: Source, location: Sequence[str | int], *, missing: bool) -> YamlPath:
    """Drop the tags that pydantic adds for the branches of a union."""
    at: YamlPath = ()
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if (*at, part) in source.lines or (last and missing):
            at = (*at, part)
    return at


def _finding(
    source: Source,
    kind: type[Frozen],
    at: YamlPath,
    error: str,
    context: dict[str, Any],
    message: str,
) -> Finding:
    where, name = source.where(at), ".".join(str(part) for part in at)
    value = _value(source.data, at)
    if error == "extra_forbidden":
        return Finding(where, f"unknown key `{name}`", nearest(at[-1], _keys(kind, at[:-1])))
    if error == "missing":
        return Finding(
            where, f"the key `{name}` is missing", f"add `{at[-1]}:`", "nothing defaults"
        )
    if error == "group_low":
        return Finding(where, f"`{name}` is {value}, which {message}", "use 32 or more")
    if error in ("literal_error", "group_k"):
        legal = _literals(kind, at)
        what = f"`{name}` is {json.dumps(value)}"
        if legal:
            return Finding(where, what, nearest(value, legal))
        return Finding(where, f"{what}, which {message}", "write 128, or `channel`")
    if error == "capability":
        return Finding(where, f"`{name}` {message}", "write [9, 0], or none")
    if error == "constant":
        return Finding(where, f"`{name}` is {json.dumps(value)}", f"it {message}")
    fixes = {
        "int_type": "write a whole number without quotes, fraction or exponent",
        "int_from_float": "write a whole number without a fraction",
        "greater_than_equal": f"use {context.get('ge')} or more",
        "greater_than": f"use more than {context.get('gt')}",
        "float_type": "write a number",
        "string_type": "write a word",
        "tuple_type": "write a list: [value, ...]",
        "too_short": "name at least one value",
        "string_pattern_mismatch": "use lower-case letters, digits, `_`, `.` and `-`",
        "model_type": "write a mapping of keys",
        "model_attributes_type": "write a mapping of keys",
    }
    literals = [each for each in _literals(kind, at) if isinstance(each, str)]
    words = "".join(f", or `{word}`" for word in literals)
    return Finding(where, f"`{name}` is {json.dumps(value)}", fixes.get(error, message) + words)


def _value(data: Any, at: YamlPath) -> Any:
    for part in at:
        if isinstance(data, dict):
            data = data.get(part)
        else:
            data = data[int(part)] if isinstance(data, list) else None
    return data


def _annotation(kind: type[Frozen], at: YamlPath) -> Any:
    """The type that the language states for a path."""
    current: Any = kind
    for part in at:
        options = [current, *get_args(current)]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if isinstance(part, int):
            current = get_args(current)[0] if get_args(current) else None
        elif model is not None:
            fields = {field.alias or key: field for key, field in model.model_fields.items()}
            current = fields[str(part)].annotation if str(part) in fields else None
        else:
            return None
    return current


def _keys(kind: type[Frozen], at: YamlPath) -> list[str]:
    annotation = _annotation(kind, at)
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return [field.alias or key for key, field in option.model_fields.items()]
    return []


def _literals(kind: type[Frozen], at: YamlPath) -> list[object]:
    def leaves(annotation: Any) -> Iterator[object]:
        if get_origin(annotation) in (Union, UnionType):
            for option in get_args(annotation):
                yield from leaves(option)
        elif get_args(annotation) and not isinstance(get_args(annotation)[0], type):
            yield from (
                each for each in get_args(annotation) if isinstance(each, (str, int, float))
            )

    return list(leaves(_annotation(kind, at)))


def _check(
    loaded: list[tuple[Source, Subject]], checks: tuple[Check[Subject], ...], everything: SpecSet
) -> Iterator[Finding]:
    for source, subject in loaded:
        for check in checks:
            for defect in check.find(subject, source.path, everything):
                yield Finding(source.where(defect.at), defect.what, defect.fix, check.why)
