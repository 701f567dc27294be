"""The JSON Schema of the settings file, so that editors complete and check it."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from ._settings import BackgroundJobsSettings

#: Settings that say where the others are, and so cannot stand among them.
LOCATIONS = ("config_file", "env_file", "secrets_dir")


def schema() -> dict[str, Any]:
    """The schema; without what only arguments, variables and code can say."""
    found: dict[str, Any] = GenerateJsonSchema(by_alias=False).generate(
        BackgroundJobsSettings.__pydantic_core_schema__, mode="validation"
    )
    for name in LOCATIONS:
        del found["properties"][name]
    job = found["$defs"]["JobSettings"]
    for name in ("trigger", "key"):
        del job["properties"][name]
    found["title"] = "Settings of bgjobs"
    found["description"] = "See configuration.md; in the environment the same names follow BGJOBS__."
    return {"$schema": GenerateJsonSchema.schema_dialect, **found}
