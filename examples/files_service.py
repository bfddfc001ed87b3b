"""People upload files, share and fetch them: streamed, checked, counted, logged. Needs FastAPI, and BLOB_URL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse, StreamingResponse

import dal

STATUS = {dal.NotFoundError: 404, dal.AccessDeniedError: 404, dal.QuotaExceededError: 507, dal.InvalidInputError: 422}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with dal.create_data_access() as app.state.dal:
        yield


def caller(request: Request, x_user: str | None = Header(None), token: str | None = None) -> dal.Caller:
    """Who asks. In your application the user comes from its sign-in, not from a header that anybody can send."""
    return dal.Caller(user_id=x_user, token=token, ip_address=request.client.host if request.client else None)


def store(request: Request) -> dal.DataAccess:
    return request.app.state.dal  # type: ignore[no-any-return]


By = Annotated[dal.Caller, Depends(caller)]
Store = Annotated[dal.DataAccess, Depends(store)]
app = FastAPI(lifespan=lifespan)


@app.exception_handler(dal.DalError)
async def explain(_: Request, error: dal.DalError) -> JSONResponse:
    found = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503 if error.retryable else 500)
    return JSONResponse({"error": error.message if found < 500 else type(error).__name__}, found)


@app.put("/files/{name}", status_code=201)
async def upload(name: str, request: Request, store: Store, by: By) -> dal.FileRecord:
    return await store.files.upload(by.user_id or "", name, request.stream(), by=by)


@app.get("/files/{file_id}")
async def download(file_id: str, store: Store, by: By) -> StreamingResponse:
    reader = await store.files.open(file_id, by=by)
    offer = f"attachment; filename*=UTF-8''{quote(reader.record.filename, safe='')}"
    headers = {"Content-Disposition": offer, "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(reader, media_type=reader.record.mime_type, headers=headers)


@app.post("/files/{file_id}/link", status_code=201)
async def link(file_id: str, store: Store, by: By) -> str | None:
    return (await store.files.link(file_id, expires_in=3600, by=by)).token
