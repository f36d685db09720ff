"""The application: routes, their parameters, and what each answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from fgvc_cli._version import __version__
from fgvc_cli.config.train_options import MANY
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.formatting import counted
from fgvc_cli.registry.error_origin import describe_error
from fgvc_cli.serving.access import Access, Json, refusal
from fgvc_cli.serving.limits import RefusedError
from fgvc_cli.serving.model import DEFAULT_EXPLAINER, ServedModel, Upload
from fgvc_cli.serving.turns import Turns

logger = logging.getLogger(__name__)

PAGE = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"),
        "/page.js": ("page.js", "text/javascript")}  # fmt: skip
HOW = "send files as multipart/form-data (curl -F image=@photo.jpg), or one image as the body"
MANY_FILES = 1000
"""In a form that is read at all, unless more images are allowed."""
MAX_NAME = 200
"""Characters of a file name; the rest is dropped."""
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""Of the requests with images, for OpenAPI."""


class PredictQuery(BaseModel):
    """Parameters of `POST /predict`, as options of `fgvc predict`."""

    model_config = ConfigDict(extra="forbid")
    top_k: Annotated[int, Field(ge=1, le=MANY, description="Number of classes per image.")] = 5
    sure: Annotated[float | None, Field(description="Name the lowest class or group with this probability.")] = None
    sets: Annotated[bool, Field(description="Prediction sets of a calibrated model.")] = False


class ExplainQuery(BaseModel):
    """Parameters of `POST /explain`, as options of `fgvc explain`."""

    model_config = ConfigDict(extra="forbid")
    explainer: Annotated[str, Field(description="Explainer, by name.")] = DEFAULT_EXPLAINER
    target: Annotated[str, Field(description="Class to explain: predicted, or the name of a class.")] = "predicted"
    versus: Annotated[str | None, Field(description="Name of a class to compare with.")] = None
    picture: Annotated[
        Literal["panel", "map"], Field(description="The panel, or the map alone over the photograph.")
    ] = "panel"


PARAMETERS: dict[str, type[BaseModel]] = {"/predict": PredictQuery, "/explain": ExplainQuery}


def build_app(model: ServedModel, names: Collection[str] = ("localhost",)) -> ASGIApp:
    """Return the application of a model.

    Args:
        model: answers.
        names: host names of the server, in lower case; addresses are always allowed.
    """
    app = FastAPI(title=f"fgvc: {model.name}", version=__version__, docs_url=None, redoc_url=None,
                  redirect_slashes=False)  # fmt: skip
    service = Service(model)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    app.add_exception_handler(Exception, _fault)
    described = {"/health": service.health, "/model": service.model}
    pages = {path: _static(file, media_type) for path, (file, media_type) in PAGE.items()}
    for path, answer in {**pages, **described}.items():
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
    for path, answer in described.items():  # in the schema by GET alone: two methods would share one identifier
        app.add_api_route(path, answer)
    app.add_api_route("/predict", service.predict, methods=["POST"], openapi_extra=BODY)
    app.add_api_route("/explain", service.explain, methods=["POST"], openapi_extra=BODY)
    return Access(app, model.limits.max_upload, names)


class Service:
    """The routes of a model.

    Args:
        model: answers.
    """

    def __init__(self, model: ServedModel) -> None:
        self._model, self._turns = model, Turns(model.limits)

    async def health(self) -> Response:
        """Return that the server works, and how many requests it has."""
        return Json({"status": "ok", "requests": self._turns.taken})

    async def model(self) -> Response:
        """Return what there is to know about the model: classes, components, image size, license, limits."""
        return Json(self._model.card)

    async def predict(self, request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
        """Predict the classes of images."""

        def work(uploads: list[Upload]) -> Response:
            return Json(self._model.predict(uploads, query.top_k, query.sure, query.sets))

        return await self._answer(request, work)

    async def explain(self, request: Request, query: Annotated[ExplainQuery, Query()]) -> Response:
        """Draw the saliency map of an image."""

        def work(uploads: list[Upload]) -> Response:
            if len(uploads) != 1:
                raise RefusedError(422, f"{len(uploads)} images: one is explained per request")
            picture = self._model.explain(uploads[0], query.explainer, query.target, query.versus, query.picture)
            return Response(picture, media_type="image/png")

        return await self._answer(request, work)

    async def _answer(self, request: Request, work: Callable[[list[Upload]], Response]) -> Response:
        """Receive the images of a request and do the work with them, when it is its turn and within the time."""
        started, limits = time.monotonic(), self._model.limits
        with self._turns.place():
            uploads: list[Upload] | None = None
            try:
                async with asyncio.timeout(limits.timeout):
                    uploads = await read_uploads(request, limits.max_images)
                    answer = await self._turns.run(partial(_done, work, uploads), request.is_disconnected)
            except TimeoutError:
                if uploads is None:
                    raise RefusedError(408, f"the images were not received within {limits.timeout:g} s") from None
                raise RefusedError(
                    504, f"no answer within {limits.timeout:g} s; try again, or send fewer images"
                ) from None
        took = time.monotonic() - started
        logger.info(f"{request.url.path[1:]}: {counted(len(uploads), 'image')} in {took:.2f} s")
        return answer


async def read_uploads(request: Request, max_images: int) -> list[Upload]:
    """Return the images in the body of a request.

    Raises:
        RefusedError: it has none, too many, or is of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [Upload("image", await request.body())]
    if kind != "multipart/form-data":
        raise RefusedError(415, f"content type {kind[:100] or 'missing'}: {HOW}")
    uploads: list[Upload] = []
    try:
        async with request.form(max_files=max(MANY_FILES, max_images + 1)) as form:
            for field, part in form.multi_items():
                if not isinstance(part, UploadFile):
                    raise RefusedError(422, f"{field[:100]} is not a file; {HOW}")
                if len(uploads) == max_images:
                    raise RefusedError(413, f"more than {counted(max_images, 'image')}; send them in several requests")
                uploads.append(Upload((part.filename or "image")[:MAX_NAME], await part.read()))
    except ValueError as error:  # a character set that decodes nothing
        raise RefusedError(400, f"the form cannot be read: {error}") from error
    if not uploads:
        raise RefusedError(422, f"no image; {HOW}")
    return uploads


def _done(work: Callable[[list[Upload]], Response], uploads: list[Upload]) -> Response:
    """Do the work of a request, and turn errors into refusals: wrong parameters, or a fault of this server."""
    try:
        return work(uploads)
    except UsageError as error:
        raise RefusedError(422, str(error)) from error
    except FgvcError as error:
        raise RefusedError(500, str(error)) from error
    except RefusedError:
        raise
    except Exception as error:  # of a component
        message = describe_error(error, "`debug` shows where")
        logger.warning(message, exc_info=error)
        raise RefusedError(500, message) from error


async def _refused(_: Request, error: Any) -> Response:
    return refusal(error)


async def _http_error(request: Request, error: Any) -> Response:
    methods = " or ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
    what = {404: "this address does not exist", 405: f"use {methods}"}.get(error.status_code, str(error.detail))
    answer = refusal(RefusedError(error.status_code, f"{request.method} {request.url.path[:100]}: {what}"))
    answer.headers.update(error.headers or {})
    return answer


async def _fault(_: Request, error: Exception) -> Response:
    """Answer an error of this server."""
    message = describe_error(error, "`debug` shows where")
    logger.warning(message, exc_info=error)
    return refusal(RefusedError(500, message))


async def _wrong_parameter(request: Request, error: Any) -> Response:
    first, known = error.errors()[0], list(PARAMETERS[request.url.path].model_fields)
    name = str(first["loc"][-1])[:100]
    if name in known:
        return refusal(RefusedError(422, f"parameter {name}: {first['msg']}"))
    hint = did_you_mean(name, known) or f" Known are {', '.join(known)}"
    return refusal(RefusedError(422, f"there is no parameter {name!r}.{hint}"))


def _static(file: str, media_type: str) -> Callable[[], Any]:
    content = (files("fgvc_cli.serving") / "templates" / file).read_bytes()

    async def answer() -> Response:
        return Response(content, media_type=media_type)

    return answer
