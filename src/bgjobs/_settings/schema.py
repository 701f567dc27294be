"""The JSON Schema of the settings file, so that editors complete and check it."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from .._options import BackgroundJobOptions
from .model import BackgroundJobsSettings, JobDefaults, JobSettings

#: Settings that say where the others are, and so cannot stand among them.
LOCATIONS = ("config_file", "env_file", "secrets_dir")


def schema() -> dict[str, Any]:
    """The schema; without what only arguments, variables and code can say."""
    found: dict[str, Any] = BackgroundJobsSettings.model_json_schema()
    job, defaults = found["$defs"]["JobSettings"], found["$defs"]["JobDefaults"]
    for table, *models in (
        (found, BackgroundJobsSettings),
        (job, BackgroundJobOptions, JobSettings),
        (defaults, JobDefaults),
    ):
        for model in models:
            for name, text in _docstrings(model).items():
                table["properties"][name]["description"] = text
    for name in LOCATIONS:
        del found["properties"][name]
    for name in ("trigger", "key"):
        del job["properties"][name]
    found["properties"]["$schema"] = {"type": "string", "description": "Where this schema is, for editors."}
    found["title"] = "Settings of bgjobs"
    found["description"] = "See configuration.md; in the environment the same names follow BGJOBS__."
    return {"$schema": GenerateJsonSchema.schema_dialect, **found}


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The texts under the attributes of a model; pydantic would read them at each import, which takes long."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        above.target.id: inspect.cleandoc(str(below.value.value))
        for above, below in pairwise(definition.body)
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }
