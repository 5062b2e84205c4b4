"""The OpenAPI 3.1 description of the REST door, made from its table of operations."""

import re
from typing import Any

import msgspec

from gateway.backends.rest.documents import InlineSubmission, SubmissionMeta
from gateway.backends.rest.operations import ALWAYS, Operation
from gateway.backends.rest.problems import KINDS, Problem
from gateway.plugin import MessageView, Submitted

_REF = "#/components/schemas/{name}"
_OCTETS = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
#: Headers of requests that operations name.
HEADERS: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "schema": {"type": "string", "maxLength": 257, "pattern": r'^("[!#-\[\]-~]{1,255}"|[!#-\[\]-~]{1,255})$'},
        "description": "Repeat it with the repeated request, and nothing is made twice.",
    },
    "Upload-Offset": {
        "required": True, "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
        "description": "Where this content begins: at `received` of the upload.",
    },
    "Content-Digest": {
        "schema": {"type": "string", "maxLength": 1024},
        "description": "RFC 9530, sha-256 or sha-512: the content counts as a whole or not at all.",
    },
    "Last-Event-ID": {
        "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
        "description": "The `id` of the last event that was seen: the stream goes on after it.",
    },
}  # fmt: skip


def document(operations: tuple[Operation, ...], version: str) -> dict[str, Any]:
    """The description as builtin values, ready for JSON."""
    kinds = [SubmissionMeta, MessageView, Problem]
    kinds += [k for o in operations for k in (o.request, o.response) if k not in (None, bytes)]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OOTS AS4 gateway: plugin API",
            "version": version,
            "license": {"name": "EUPL-1.2", "identifier": "EUPL-1.2"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer",
                    "description": "A token of the gateway, or a JWT of an OAuth2 issuer the operator trusts.",
                },
                "certificate": {"type": "mutualTLS", "description": "Where the listener asks for certificates."},
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{operation.verb.__module__.rpartition('.')[2]}.{operation.verb.__name__}",
        "tags": [re.split("[/:]", operation.path)[2]],
        "summary": operation.summary,
        "parameters": [
            *_path_parameters(operation), *_query_parameters(operation),
            *({"name": name, "in": "header", **HEADERS[name]} for name in operation.headers),
        ],
        "responses": {str(operation.status): _success(operation), **_problems(operation)},
    }
    if operation.request is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": _schema(operation.request)}}
    if operation.consumes is not None:
        described["requestBody"] = {"required": True, "content": {operation.consumes: _OCTETS}}
    if operation.request is InlineSubmission:
        _describe_form(described)
    if operation.response is Submitted:
        _describe_submission(described)
    if operation.response is bytes:
        _describe_download(described)
    return described


def _describe_form(described: dict[str, Any]) -> None:
    described["requestBody"]["content"]["multipart/form-data"] = {
        "schema": {
            "type": "object",
            "description": "`meta` first, then one field of any name for each entry of its `parts`, in that order. "
            "Where an entry has a cid, the field's name or Content-ID is that cid.",
            "properties": {"meta": {"$ref": _REF.format(name=SubmissionMeta.__name__)}},
            "required": ["meta"],
            "additionalProperties": {"type": "string", "contentMediaType": "application/octet-stream"},
        },
        "encoding": {"meta": {"contentType": "application/json"}},
    }


def _describe_submission(described: dict[str, Any]) -> None:
    described["parameters"].append({
        "name": "Idempotency-Key", "in": "header", "schema": HEADERS["Idempotency-Key"]["schema"],
        "description": "Required unless the submission has a message_id. Repeat it with the repeated request.",
    })  # fmt: skip
    described["responses"]["202"]["headers"] = {
        "Location": {"schema": {"type": "string"}},
        "Idempotent-Replayed": {"schema": {"type": "string", "enum": ["true"]}},
    }
    described["responses"]["200"] = {
        "description": "`wait` was given, and the final state was reached",
        "content": {"application/json": _schema(MessageView)},
    }


def _describe_download(described: dict[str, Any]) -> None:
    described["parameters"].append({"name": "Range", "in": "header", "schema": {"type": "string"}})
    content = {"*/*": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}}
    described["responses"]["200"] = {"description": "The whole payload", "content": content}
    described["responses"]["206"] = {"description": "The range asked for", "content": content}


def _success(operation: Operation) -> dict[str, Any]:
    content = {} if operation.response in (None, bytes) else {"application/json": _schema(operation.response)}
    if operation.octets is not None:
        content[operation.octets] = _OCTETS
    return {"description": operation.summary, **({"content": content} if content else {})}


def _problems(operation: Operation) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for slug in (*ALWAYS, *operation.problems):
        by_status.setdefault(KINDS[slug].status, []).append(slug)
    content = {"application/problem+json": _schema(Problem)}
    return {
        str(status): {"description": " · ".join(f"{KINDS[s].code} {s}" for s in slugs), "content": content}
        for status, slugs in sorted(by_status.items())
    }


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "maxLength": 255}}
        for name in re.findall(r"\{(\w+)", operation.path)
    ]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    _, schemas = msgspec.json.schema_components([operation.query], ref_template=_REF)
    properties = schemas[operation.query.__name__]["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]


def _schema(kind: type) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(name=kind.__name__)}}
