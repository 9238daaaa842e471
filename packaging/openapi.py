"""Describes what the daemon serves, as OpenAPI 3.1. The status is described by the classes it is made of."""

import json
from typing import Any

from pydantic import TypeAdapter

from ksmtuned_py import __version__
from ksmtuned_py.publish.findings import LastLook
from ksmtuned_py.publish.history import COLUMNS, HOUR_SECONDS, MODES, MOST_POINTS
from ksmtuned_py.publish.site import MOST_SECONDS, USUAL_POINTS
from ksmtuned_py.publish.statusfile import Status

Schema = dict[str, Any]
REFERENCE = "#/components/schemas/{model}"


def openapi() -> str:
    """The description, as JSON."""
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "ksmtuned-py",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "What the daemon serves on its metrics address. All of it is read-only: GET and HEAD.",
        },
        "paths": _paths(),
        "components": {"schemas": _schemas(), "securitySchemes": {name: _scheme(name) for name in ("basic", "bearer")}},
        "security": [{}, {"basic": []}, {"bearer": []}],
    }
    return json.dumps(whole, indent=1) + "\n"


def _paths() -> Schema:
    probe = {"200": _plain("all is well"), "503": _plain("what is wrong, in a sentence")}
    told = {"200": _json("Document"), "503": _json("Error", "no tick yet")}
    status = _operation("What `ksmtuned-py status --json` prints", told)
    findings = {"200": _json("LastLook")}
    history = {
        **_operation("How things developed, thinned to so many rows", {"200": _json("History"), "400": _json("Error")}),
        "parameters": [
            _number("seconds", "how far back", HOUR_SECONDS, MOST_SECONDS),
            _number("points", "how many rows at most", USUAL_POINTS, MOST_POINTS),
        ],
    }
    return {
        "/": {"get": _operation("The page", {"200": _body("text/html", "the page")})},
        "/static/{name}": {
            "get": {
                **_operation("A file of the page", {"200": _body("*/*", "the file"), "404": _plain("there is none")}),
                "parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
            }
        },
        "/metrics": {"get": _operation("The metrics of Prometheus", {"200": _plain("the metrics")})},
        "/healthz": {"get": _operation("Whether ticks keep coming", probe)},
        "/readyz": {"get": _operation("Whether a tick is complete, and the knobs could be read", probe)},
        "/api/v1/status": {"get": status},
        "/api/v1/history": {"get": history},
        "/api/v1/doctor": {
            "get": _operation("What the doctor found last. To ask begins another look where that is old", findings)
        },
        "/api/v1/openapi.json": {"get": _operation("This description", {"200": _body("application/json", "it")})},
    }


def _schemas() -> Schema:
    status = _bare(TypeAdapter(Status).json_schema(mode="serialization", ref_template=REFERENCE))
    found: Schema = status.pop("$defs")
    running = {"type": "boolean", "description": "Whether this is a daemon's word; else it is one look."}
    status["properties"] = {"daemon_running": running, **status["properties"]}
    status["required"] = ["daemon_running", *status["required"]]
    number_or_null = [{"type": ["number", "null"]}] * (len(COLUMNS) - 2)
    history = {
        "type": "object",
        "required": ["columns", "rows"],
        "properties": {
            "columns": {"type": "array", "const": list(COLUMNS)},
            "rows": {
                "type": "array",
                "maxItems": MOST_POINTS,
                "items": {
                    "type": "array",
                    "minItems": len(COLUMNS),
                    "maxItems": len(COLUMNS),
                    "prefixItems": [{"type": "number"}, *number_or_null, {"enum": [mode.value for mode in MODES]}],
                },
            },
        },
    }
    found_last = _bare(TypeAdapter(LastLook).json_schema(mode="serialization", ref_template=REFERENCE))
    found |= found_last.pop("$defs")
    found_last["required"] = list(found_last["properties"])
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        "Document": status,
        "History": history,
        "LastLook": found_last,
        "Error": error,
        **dict(sorted(found.items())),
    }


def _bare(schema: Any) -> Any:
    """A schema without what each version of pydantic says in its own way: its words, and which keys an object takes."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    words = {name for name in ("title", "description") if isinstance(schema.get(name), str)}
    words |= {"type"} if "enum" in schema else set()  # the values say it
    return {name: _bare(value) for name, value in schema.items() if name not in words | {"propertyNames"}}


def _operation(summary: str, answers: Schema) -> Schema:
    refused = {
        "401": _json("Error", "the key is missing, or is not the right one"),
        "403": _json("Error", "a page of somebody else asks"),
        "429": _json("Error", "too many guesses at a password"),
    }
    return {"summary": summary, "responses": {**answers, **refused}}


def _json(schema: str, description: str = "") -> Schema:
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=schema)}}}
    return {"description": description or schema, "content": content}


def _body(kind: str, description: str) -> Schema:
    return {"description": description, "content": {kind: {}}}


def _plain(description: str) -> Schema:
    return _body("text/plain", description)


def _number(name: str, description: str, usual: int, most: int) -> Schema:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _scheme(name: str) -> Schema:
    return {"type": "http", "scheme": name}
