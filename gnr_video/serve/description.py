"""Every operation, declared once: what is let in is checked by it, and the OpenAPI document is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gnr_video._version import __version__
from gnr_video.serve.job_options import OPTIONS
from gnr_video.serve.schema import Schema
from gnr_video.serve.store import STATES

JSON = "application/json"
MULTIPART = "multipart/form-data"
ANYTHING = "application/octet-stream"
EVENTS = "text/event-stream"

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TIME: Schema = {"type": "string", "format": "date-time"}
_MAYBE_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}


def _object(
    properties: Mapping[str, Schema], description: str = "", optional: tuple[str, ...] = ()
) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
        **({"description": description} if description else {}),
    }


ERROR = _object({"error": _TEXT, "hint": _TEXT}, "What was wrong, and what to do about it.")
MAKER = _object(
    {name: _TEXT for name in ("version", "weights", "weights_sha256", "engine")},
    "What translates: the program's version, its weights, what runs them.",
)
JOB = _object(
    {
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "number": {**_COUNT, "description": "Jobs are numbered as they come."},
        "state": {"type": "string", "enum": list(STATES)},
        "name": {**_TEXT, "description": "Of the input."},
        "options": OPTIONS,
        "created": _TIME,
        "started": _MAYBE_TIME,
        "ended": _MAYBE_TIME,
        "frames": {**_COUNT, "description": "Translated so far."},
        "frames_expected": {"type": ["integer", "null"], "description": "null: not known."},
        "seconds_left": {"type": ["integer", "null"], "description": "Estimated; null: not known."},
        "message": {**_TEXT, "description": "What came of it, or why nothing did."},
        "warnings": _TEXTS,
        "notices": {**_TEXTS, "description": "Where it was submitted to another version or other weights."},
        "asked_of": MAKER,
        "made_by": {**MAKER, "type": ["object", "null"], "description": "Who began it last."},
        "result": {
            **_object({"name": _TEXT, "bytes": _COUNT, "type": _TEXT}),
            "type": ["object", "null"],
            "description": "The file that /jobs/{id}/result gives, once it is done.",
        },
    },
    "A job.",
)
PAGE = _object(
    {
        "jobs": {"type": "array", "items": JOB},
        "next": {
            "type": ["integer", "null"],
            "description": "`before` of the next page; null: there is none.",
        },
    }
)
SERVER = _object(
    {
        "maker": MAKER,
        "jobs": _object({state: _COUNT for state in STATES}),
        "running": {"type": ["string", "null"], "description": "The id of the job at work."},
        "kept_bytes": {**_COUNT, "description": "Of all results."},
        "limits": _object({name: _COUNT for name in ("queue", "upload_bytes", "keep_bytes", "keep_seconds")}),
        "notices": {**_TEXTS, "description": "What keeps it from working, such as a full disk."},
    }
)
BY_PATH = _object(
    {
        "path": {
            "type": "string",
            "minLength": 1,
            "maxLength": 4096,
            "description": "Full path of a file of the server's machine, below a folder of its --allow.",
        },
        "options": OPTIONS,
    },
    optional=("options",),
)
BY_UPLOAD = _object(
    {
        "options": OPTIONS,
        "file": {
            "type": "string",
            "format": "binary",
            "description": "The video or picture, with its name as the part's filename.",
        },
    },
    optional=("options",),
)
EVENT = _object(
    {
        "event": {"type": "string", "enum": ["state", "deleted"]},
        "data": {"type": "string", "contentMediaType": JSON, "contentSchema": JOB},
    },
    "One event. `deleted` has no job.",
)
COMPONENTS: Mapping[str, Schema] = {
    "Error": ERROR,
    "Maker": MAKER,
    "Options": OPTIONS,
    "Job": JOB,
    "JobPage": PAGE,
    "Server": SERVER,
}


@dataclass(frozen=True)
class Parameter:
    """A value in an address: in its path, or in its query, where it may be left out."""

    name: str
    schema: Schema
    description: str
    place: str = "query"


@dataclass(frozen=True)
class Answer:
    """What comes back.

    Attributes:
        content: media type -> form.
        headers: name -> what it says.
    """

    description: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked for.

    Attributes:
        name: of the method of `api.Api` that answers it.
        answers: status -> answer, but for those that `COMMON` has.
        body: media type -> form.
    """

    name: str
    method: str
    path: str
    summary: str
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)


def _error(description: str, **headers: str) -> Answer:
    return Answer(description, {JSON: ERROR}, headers)


COMMON: Mapping[int, Answer] = {
    400: _error("The request is not of its declared form."),
    401: _error("The token is missing or wrong.", **{"WWW-Authenticate": "Bearer"}),
    403: _error(
        "Another web site asks through somebody's browser, or a file is not this program's business."
    ),
    500: _error("A bug."),
    507: _error("The disk is full, or the folder cannot be written to."),
}
_ID = Parameter("id", JOB["properties"]["id"], "Of the job.", "path")
_NONE = {404: _error("There is no such job.")}
_ONE_JOB = Answer("The job.", {JSON: JOB})
_OF_FILE: Mapping[int, Answer] = {
    304: Answer("The file is the one that If-None-Match or If-Modified-Since has."),
    404: _error("There is no such job, or its result is gone."),
    409: _error("The job is not done."),
    412: Answer("The file is not the one that If-Match or If-Unmodified-Since has."),
    416: Answer("The file has no such part."),
}
_RANGED = Answer(
    "The file, or the parts of it that Range asks for.", {ANYTHING: {}, "image/*": {}, "video/*": {}}
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "submit",
        "POST",
        "/jobs",
        "Submit a video or picture: by upload (multipart/form-data), or by path (application/json)",
        {
            201: Answer("The job waits.", {JSON: JOB}, {"Location": "Where the job is."}),
            408: _error("Nothing has come for half a minute."),
            413: _error("The upload is too large."),
            415: _error("Neither of the two media types."),
            422: _error("An option cannot be as it is asked for."),
            429: _error("So many jobs wait, or uploads are on their way, that no more are taken."),
        },
        body={JSON: BY_PATH, MULTIPART: BY_UPLOAD},
    ),
    Operation(
        "list_jobs",
        "GET",
        "/jobs",
        "List jobs, the newest first",
        {200: Answer("A page of them.", {JSON: PAGE})},
        (
            Parameter("state", JOB["properties"]["state"], "Only jobs in it."),
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                "The most that a page has.",
            ),
            Parameter(
                "before", {"type": "integer", "minimum": 1, "maximum": (1 << 53) - 1}, "Only lower numbers."
            ),
        ),
    ),
    Operation("get_job", "GET", "/jobs/{id}", "A job's state", {200: _ONE_JOB, **_NONE}, (_ID,)),
    Operation(
        "events",
        "GET",
        "/jobs/{id}/events",
        "A job's state as server-sent events, whenever it changes, until it has ended",
        {
            200: Answer(
                "Events named `state`, each with the job as JSON; `deleted` where it is gone.",
                {EVENTS: EVENT},
            ),
            **_NONE,
            429: _error("So many listen that no more may."),
        },
        (_ID,),
    ),
    Operation(
        "result",
        "GET",
        "/jobs/{id}/result",
        "A job's result; Range is understood",
        {200: _RANGED, 206: _RANGED, **_OF_FILE},
        (_ID,),
    ),
    Operation(
        "result_head",
        "HEAD",
        "/jobs/{id}/result",
        "How large a job's result is",
        {200: Answer("As of GET."), 206: Answer("As of GET."), **_OF_FILE},
        (_ID,),
    ),
    Operation(
        "cancel",
        "POST",
        "/jobs/{id}/cancel",
        "Cancel a job; one at work is `cancelling` until its frame is finished",
        {200: _ONE_JOB, **_NONE, 409: _error("The job has ended.")},
        (_ID,),
    ),
    Operation(
        "delete",
        "DELETE",
        "/jobs/{id}",
        "Forget a job, and delete its result",
        {204: Answer("It is gone."), **_NONE, 409: _error("The job is at work: cancel it first.")},
        (_ID,),
    ),
    Operation(
        "server",
        "GET",
        "/server",
        "What translates here, and how much waits",
        {200: Answer("The server.", {JSON: SERVER})},
    ),
    Operation(
        "openapi",
        "GET",
        "/openapi.json",
        "This description",
        {200: Answer("OpenAPI 3.1.", {JSON: {"type": "object"}})},
    ),
)


def document() -> dict[str, Any]:
    """The service as OpenAPI 3.1 describes one."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gnr-video",
            "version": __version__,
            "description": "Faces in videos and pictures become anime faces. Jobs are translated one at a time.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {name: _linked(dict(schema)) for name, schema in COMPONENTS.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    answers = dict(sorted({**COMMON, **operation.answers}.items()))
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {str(status): _answer(answer) for status, answer in answers.items()},
    }
    if operation.parameters:
        described["parameters"] = [
            {
                "name": one.name,
                "in": one.place,
                "required": one.place == "path",
                "description": one.description,
                "schema": _linked(one.schema),
            }
            for one in operation.parameters
        ]
    if operation.body:
        content = {media: {"schema": _linked(schema)} for media, schema in operation.body.items()}
        if MULTIPART in content:
            content[MULTIPART]["encoding"] = {"options": {"contentType": JSON}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.content:
        described["content"] = {
            media: {"schema": _linked(schema)} for media, schema in answer.content.items()
        }
    if answer.headers:
        described["headers"] = {
            name: {"description": text, "schema": _TEXT} for name, text in answer.headers.items()
        }
    return described


def _linked(schema: Any) -> Any:
    """The same with what has a name of its own replaced by a reference to it."""
    for name, known in COMPONENTS.items():
        if schema is known:
            return {"$ref": f"#/components/schemas/{name}"}
    if isinstance(schema, Mapping):
        return {key: _linked(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_linked(one) for one in schema]
    return schema
