"""docs/reference.md and `sparknet-compile --doc`: current, complete, and every example compiles."""

import pathlib
import re

import pytest
from click.testing import CliRunner

from sparknet_dsl import compile_text, reference, schema
from sparknet_dsl.cli_compile import compile_command

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "reference.md"
TYPES = sorted(schema.layer_types())


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.markdown(), "run python tools/make_reference.py"


@pytest.mark.parametrize("name", TYPES)
def test_the_example_compiles_and_uses_the_type(name: str) -> None:
    doc = reference.type_doc(name)
    model = compile_text(doc.example, keep_data_layers=True)
    assert {found.code for found in model.diagnostics} <= {"S209"}
    assert name in {layer.type for layer in model.net.layer} or name == schema.RDD_TYPE
    assert {blob for blob, _ in doc.shapes} == set(model.reports["TRAIN"].blobs)
    assert doc.summary and doc.facts


@pytest.mark.parametrize("name", TYPES)
def test_every_field_of_the_type_is_listed(name: str) -> None:
    listed = {field.name for _, fields in reference.type_doc(name).fields for field in fields}
    assert listed == set(schema.own_fields(name)) - {"unknown_field"}


def test_every_meaning_is_of_a_field_that_exists() -> None:
    for name in reference.MEANINGS:
        message, field = name.split(".")
        owners = [
            schema.message_of(own.name)
            for own in schema.LAYER.fields
            if own.message_type is not None and own.message_type.name == message
        ]
        assert owners and schema.field_of(owners[0], field) is not None, name


def test_doc_prints_one_type() -> None:
    ran = CliRunner().invoke(compile_command, ["--doc", "Convolution"])
    assert ran.exit_code == 0
    assert ran.output.startswith("Convolution: ")
    assert re.search(r"^num_output +whole number ≥ 0 +filters", ran.output, re.MULTILINE)
    assert "net example {" in ran.output


def test_doc_of_an_unknown_type() -> None:
    ran = CliRunner().invoke(compile_command, ["--doc", "Convolutoin"])
    assert ran.exit_code == 2
    assert "did you mean `Convolution`" in ran.output
