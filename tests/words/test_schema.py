# SPDX-License-Identifier: MIT
"""The JSON Schema of plans, as editors get it: it describes every key and agrees with the loader."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from harness.document.nodes import NotYamlError, read_document
from harness.steps.actions import ACTIONS
from tests.project.test_project import written_plans
from tests.words.from_schema import undescribed
from tests.words.test_bad_plans import STEP, bad_plans

TESTPLANS = Path(__file__).parents[2] / "testplans"
GOOD = {
    **{path.stem: path.read_text() for path in sorted(TESTPLANS.glob("*.yaml"))},
    **written_plans(),
    **{action.key: f"steps:\n  -\n{re.sub('^', '    ', action.example, flags=re.M)}" for action in ACTIONS},
    "short forms": "steps: [{announce: {class: memory}, expect: {driver: [memory]}}, "
    "{plug: {dimms: [{size: 1 GiB}]}, expect: {driver: []}}, {power: off, expect: {driver: []}}]",
}

#: What JSON Schema cannot say, by the loader's words for it.
ONLY_THE_LOADER_KNOWS = {
    r"1\.0 is not a whole number": "JSON has one kind of number, and 1.0 is whole",
    r"is more than (max_vcpus|the vm has room for)|exceeds max_memory|without a free slot|"
    r"is less than memory|leaves no room|slots: 0 with": "sums over the vm and all steps",
    r"a multiple of": "a size is a text there, and no number",
    r"while the driver is|after the guest was switched off|before an arrival": "what the steps before did",
}


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """The schema as it is printed."""
    command = [sys.executable, "-m", "harness", "schema", "plan"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    Draft202012Validator.check_schema(json.loads(printed))
    return Draft202012Validator(json.loads(printed), format_checker=Draft202012Validator.FORMAT_CHECKER)


def in_yaml(texts: dict[str, bytes]) -> dict[str, Any]:
    """Return the values of those texts that are YAML at all."""
    values = {}
    for name, text in texts.items():
        try:
            values[name] = read_document(text.decode()).values
        except (NotYamlError, UnicodeDecodeError):
            continue
    return values


BAD = in_yaml(bad_plans())


def test_it_describes_every_key(schema: Draft202012Validator) -> None:
    assert undescribed(schema.schema) == []


def test_a_key_without_a_description_is_found() -> None:
    bare = {"$defs": {"A": {"type": "object", "properties": {"b": {"type": "null"}}}}}
    assert undescribed(bare) == ["/$defs/A/b"]


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_it_accepts_a_good_plan(schema: Draft202012Validator, text: str) -> None:
    assert best_match(schema.iter_errors(read_document(text).values)) is None


@pytest.mark.parametrize("error", BAD)
def test_it_refuses_a_bad_plan_as_far_as_it_can_say_it(schema: Draft202012Validator, error: str) -> None:
    reasons = [reason for pattern, reason in ONLY_THE_LOADER_KNOWS.items() if re.search(pattern, error)]
    assert (schema.is_valid(BAD[error]), len(reasons)) in {(False, 0), (True, 1)}, reasons


def test_what_it_cannot_say_is_a_short_list() -> None:
    found = [next((error for error in BAD if re.search(one, error)), None) for one in ONLY_THE_LOADER_KNOWS]
    assert None not in found
    assert len(ONLY_THE_LOADER_KNOWS) < len(BAD) / 10


@pytest.mark.parametrize(
    "step", ["{plug: {vcpus: 1}}", "{expect: {driver: []}}", "{plug: {paused: true}, expect: {driver: []}}"]
)
def test_it_knows_what_a_step_needs(schema: Draft202012Validator, step: str) -> None:
    assert not schema.is_valid(read_document(f"steps: [{step}]").values)
    assert schema.is_valid(read_document(STEP.decode()).values)
