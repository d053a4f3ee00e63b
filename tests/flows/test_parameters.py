from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from flows.parameters import (
    AddParameters,
    EmbedParameters,
    IngestParameters,
    RemoveParameters,
    ScoreParameters,
    TrainParameters,
)

MODELS = [IngestParameters, EmbedParameters, TrainParameters, ScoreParameters, AddParameters]
LEAST: dict[str, Any] = {"source": "/pictures"}


def nested(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the models inside a model by field."""
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


@pytest.mark.parametrize("model", MODELS)
def test_a_source_is_all_that_must_be_given(model: type[BaseModel]):
    assert [name for name, field in model.model_fields.items() if field.is_required()] == ["source"]
    assert model.model_validate(LEAST).model_dump()["store"] == "dn2-store"


@pytest.mark.parametrize("model", MODELS)
def test_unknown_field_is_refused_at_the_top(model: type[BaseModel]):
    with pytest.raises(ValidationError, match=r"sauce\n  Extra inputs are not permitted"):
        model.model_validate({**LEAST, "sauce": 1})


@pytest.mark.parametrize(("model", "inner"), [(model, name) for model in MODELS for name in nested(model)])
def test_unknown_field_is_refused_inside(model: type[BaseModel], inner: str):
    with pytest.raises(ValidationError, match=rf"{inner}\.sauce\n  Extra inputs are not permitted"):
        model.model_validate({**LEAST, inner: {"sauce": 1}})


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_described_where_a_form_reads_it(model: type[BaseModel]):
    """In the JSON schema, from which Prefect makes its form, top level and nested."""
    schema = model.model_json_schema()
    for part in (schema, *(schema["$defs"][kind.__name__] for kind in nested(model).values())):
        assert part["additionalProperties"] is False
        assert part["description"]
        for name, field in part["properties"].items():
            assert len(field["description"]) > 10, name


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("field", ["dataset", "bank"])
@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a b", "x" * 101])
def test_name_that_is_no_folders_name_is_refused(model: type[BaseModel], field: str, name: str):
    if field in model.model_fields:
        with pytest.raises(ValidationError, match=r"cannot be used: expected 1 to 100 letters"):
            model.model_validate({**LEAST, field: name})


def test_parameters_survive_the_way_through_json():
    """What Prefect stores with a run is what the flow gets."""
    given = ScoreParameters.model_validate({**LEAST, "bank": "b", "embed": {"shard_size": 7}, "out": "/report"})
    assert ScoreParameters.model_validate_json(given.model_dump_json()) == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"image_ids\n  Field required"),
        ({"image_ids": []}, r"image_ids\n  List should have at least 1 item"),
        ({"image_ids": "0123"}, r"image_ids\n  Input should be a valid list"),
        ({"image_ids": ["0123"], "bank": "../x"}, "cannot be used: expected 1 to 100 letters"),
        ({"image_ids": ["0123"], "sauce": 1}, r"sauce\n  Extra inputs are not permitted"),
    ],
)
def test_removing_needs_images_and_a_bank(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        RemoveParameters.model_validate(given)
    schema = RemoveParameters.model_json_schema()
    assert all(len(field["description"]) > 10 for field in schema["properties"].values())
