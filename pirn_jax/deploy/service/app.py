"""The HTTP face: judge, results, models, health, measures, and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from fastapi import APIRouter, Body, FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from starlette.datastructures import FormData, UploadFile

from pirn_jax import __version__
from pirn_jax.deploy.service.batcher import Batcher
from pirn_jax.deploy.service.guard import Guard
from pirn_jax.deploy.service.intake import ROLE_NAMES, Readable, accept
from pirn_jax.deploy.service.journal import Journal, Mark
from pirn_jax.deploy.service.judge import Part, Served
from pirn_jax.deploy.service.measures import Measures
from pirn_jax.deploy.service.pictures import NAMES
from pirn_jax.errors import BadInputError, PirnError, did_you_mean, printable

_CAMERAS = ("intrinsics", "calibration")
_PAGES = {
    "": "index.html",
    "docs": "docs.html",
    "style.css": "style.css",
    "app.js": "app.js",
    "docs.js": "docs.js",
    "surface.js": "surface.js",
    "colours.js": "colours.js",
}
_OPEN = ("/healthz", "/readyz", "/openapi.json", *(f"/{route}" for route in _PAGES))
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_SECONDS = 120.0  # that an upload may take


@runtime_checkable
class Worker(Protocol):
    """A thread beside the requests."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End after what is at hand."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the service is made of.

    Attributes:
        journal: the log.
        batcher: the queue.
        models: by name, one or more.
        measures: what is counted.
        keys: who may ask; empty: everybody on this machine.
        largest: bytes of the body that brings a part.
        local: whether only requests to this machine's own name are answered.
        sources: threads that bring parts, besides the requests.
        couriers: threads that take records away.
    """

    journal: Journal
    batcher: Batcher
    models: Mapping[str, Served]
    measures: Measures
    keys: tuple[bytes, ...] = ()
    largest: int = 256 << 20
    local: bool = True
    sources: Sequence[Worker] = ()
    couriers: Sequence[Worker] = ()


_FILE = {"type": "string", "format": "binary"}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        **{role: _FILE for role in (*ROLE_NAMES, *_CAMERAS)},
                        "key": {"type": "string", "description": "what you call the part"},
                        "model": {"type": "string", "description": "where several are served"},
                    },
                }
            }
        },
    }
}


def create_app(parts: Parts) -> FastAPI:
    """The application; the queue is started with it, and emptied when it ends.

    Nothing is brought to the queue before it is there, or when it has ended.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(parts.batcher.start)
        for worker in (*parts.couriers, *parts.sources):
            worker.start()
        yield
        for worker in (*parts.sources, parts.batcher, *parts.couriers):
            await run_in_threadpool(worker.stop)

    app = FastAPI(
        title="pirn_jax",
        version=__version__,
        description="Is this part good? Photograph and 3D scan in, verdict out.",
        lifespan=lifespan,
        docs_url=None,  # theirs loads scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(
        Guard,
        keys=parts.keys,
        open_paths=_OPEN,
        largest=parts.largest,
        local=parts.local,
        measures=parts.measures,
    )
    app.add_exception_handler(HTTPException, _answer(parts.measures))
    for routes in (_open_routes(parts), _judge_routes(parts), _result_routes(parts)):
        app.include_router(routes)
    parts.measures.watch(lambda: parts.batcher.waiting, parts.journal.undelivered)
    return app


def _answer(measures: Measures) -> Any:
    async def answer(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code != 404:
            measures.refused(error.status_code)
        said = error.detail if isinstance(error.detail, dict) else {"error": error.detail}
        return JSONResponse(said, error.status_code, error.headers)

    return answer


def _open_routes(parts: Parts) -> APIRouter:
    """What needs no key: the page, which holds nothing, and whether all is well."""
    routes = APIRouter()

    @routes.get("/healthz", tags=["health"])
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @routes.get("/readyz", tags=["health"])
    async def readiness() -> dict[str, str]:
        """Parts are judged."""
        if not parts.batcher.alive:
            raise HTTPException(503, "the thread that judges has ended")
        return {"status": "ready"}

    folder = resources.files("pirn_jax.deploy.service").joinpath("page")
    for route, name in _PAGES.items():
        page = _page(folder.joinpath(name).read_bytes(), _KINDS[name.rpartition(".")[2]])
        routes.add_api_route(f"/{route}", page, include_in_schema=False)
    return routes


def _page(content: bytes, kind: str) -> Callable[[], Response]:
    # A function of no arguments: whatever it had, a query could set.
    return lambda: Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


def _judge_routes(parts: Parts) -> APIRouter:
    routes = APIRouter()
    journal, batcher = parts.journal, parts.batcher

    @routes.post("/v1/judge", tags=["judge"], openapi_extra=_UPLOAD)
    async def judge(
        request: Request,
        format: Literal["json", "heatmap"] = "json",
    ) -> Response:
        """Judge a part: its photograph, and its points, depth or normals.

        The answer is the verdict as JSON, or the heatmap as PNG. 422: a file cannot be read or
        judged; 413: too large; 429: too many parts wait already, come again; 503: see the log.
        """
        if not batcher.take_slot():
            raise HTTPException(429, "too many parts wait already", {"Retry-After": "1"})
        queued = False
        try:
            part = await _received(request, parts)
            future = batcher.put(part)
            queued = True
        finally:
            if not queued:
                batcher.free_slot()
        try:
            record = await asyncio.wrap_future(future)
        except Exception as error:
            reason = getattr(error, "problem", type(error).__name__)  # names no place here
            words = f"accepted as {part.id}, and the verdict could not be written down: {reason}"
            raise HTTPException(503, words) from error
        if "error" in record:
            return JSONResponse(record, 422 if record["kind"] == "input" else 500)
        if format == "heatmap":
            picture = journal.place(part.id) / "heatmap.png"
            return FileResponse(picture, headers={"X-Request-Id": part.id})
        return JSONResponse(record)

    @routes.get("/v1/models", tags=["judge"])
    async def models() -> list[dict[str, Any]]:
        """The models that are served, with the scores they were calibrated with."""
        return [dict(served.about) for served in parts.models.values()]

    @routes.get("/metrics", tags=["health"])
    def metrics() -> Response:
        """Counters and times, for Prometheus."""
        return Response(parts.measures.text(), media_type="text/plain; version=0.0.4")

    return routes


async def _received(request: Request, parts: Parts) -> Part:
    """The part that a request brings, accepted."""
    try:
        async with asyncio.timeout(_SECONDS):
            form = await request.form(max_files=len(ROLE_NAMES) + len(_CAMERAS), max_fields=2)
    except TimeoutError as error:
        raise HTTPException(408, f"not all came within {_SECONDS:g} s") from error
    try:
        files = _files(form)
        key, model = _field(form, "key"), _field(form, "model")
        if not model and len(parts.models) == 1:
            model = next(iter(parts.models))
        if model not in parts.models:
            near = did_you_mean(model, parts.models)
            words = f"model: expected one of {', '.join(parts.models)}; got {model!r}{near}"
            raise HTTPException(422, printable(words))
        name = key or next(iter(files.values()))[0].rpartition(".")[0] or "part"
        return await run_in_threadpool(
            accept, parts.journal, files, key=printable(name), model=model, source="http"
        )
    except PirnError as error:
        status = 422 if isinstance(error, BadInputError) else 500
        said = {"error": error.problem, "remedy": error.remedy, "file": error.path or ""}
        raise HTTPException(status, said) from error  # type: ignore[arg-type]
    except OSError as error:
        raise HTTPException(507, f"it could not be kept: {error.strerror}") from error
    finally:
        await form.close()


def _files(form: FormData) -> dict[str, tuple[str, Readable]]:
    found: dict[str, tuple[str, Readable]] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            continue
        known = (*ROLE_NAMES, *_CAMERAS)
        if name not in known:
            near = did_you_mean(name, known)
            words = f"expected files {', '.join(known)}; got {name!r}{near}"
            raise HTTPException(422, printable(words))
        if name in found:
            raise HTTPException(422, f"two files are the {name}")
        found[name] = (value.filename or "", value.file)
    if not set(found) & set(ROLE_NAMES):
        raise HTTPException(422, f"no file: send one or more of {', '.join(ROLE_NAMES)}")
    return found


def _field(form: FormData, name: str) -> str:
    value = form.get(name, "")
    if not isinstance(value, str) or len(value) > 200:
        raise HTTPException(422, f"{name}: expected up to 200 letters")
    return value.strip()


def _result_routes(parts: Parts) -> APIRouter:
    routes = APIRouter(tags=["results"])
    journal = parts.journal

    def known(request: str) -> dict[str, Any]:
        found = journal.result(request)
        if found is None:
            raise HTTPException(404, "no such result")
        return found

    @routes.get("/v1/results")
    def results(
        before: int | None = None,
        after: int | None = None,
        verdict: Literal["ok", "not_ok", "failed"] | None = None,
        mark: Mark | None = None,
        model: str | None = None,
        text: str = "",
        most: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> list[dict[str, Any]]:
        """What was judged, the newest first; `after` a number: the next ones after it."""
        return journal.results(
            before=before,
            after=after,
            verdict=verdict,
            mark=mark,
            model=model,
            text=text,
            most=most,
        )

    @routes.get("/v1/results/{request}")
    def result(request: str) -> dict[str, Any]:
        """One result; its state is accepted while it waits to be judged."""
        return known(request)

    @routes.get("/v1/results/{request}/{picture}")
    def picture(request: str, picture: str) -> Response:
        """A picture of a result, or its points.

        photograph.jpg, normals.png, heat.png, mask.png, heatmap.png, points.bin.
        """
        known(request)
        path = journal.place(request) / picture
        if picture not in NAMES or not path.is_file():
            raise HTTPException(404, "no such picture")
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return FileResponse(path, media_type=NAMES[picture], headers=headers)

    @routes.put("/v1/results/{request}/mark")
    def mark(request: str, mark: Annotated[Mark | None, Body(embed=True)] = None) -> dict[str, Any]:
        """Mark a verdict as a false alarm or a missed defect, or take that back (null).

        Files of marked parts are kept.
        """
        if not journal.mark(request, mark):
            raise HTTPException(404, "no such result")
        return known(request)

    return routes
