"""A chat service: the store opens and closes with the application, and each request gets it as a dependency.

pip install fastapi uvicorn
uvicorn fastapi_service:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

import dal
from dal import ChatSession, Health, Message, NewMessage

STATUS = {dal.MissingReferenceError: 404, dal.AlreadyExistsError: 409, dal.InvalidInputError: 422}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with dal.create_data_access() as app.state.store:
        yield


def store(request: Request) -> dal.DataAccess:
    return request.app.state.store  # type: ignore[no-any-return]


app = FastAPI(lifespan=lifespan)
Store = Annotated[dal.DataAccess, Depends(store)]


@app.exception_handler(dal.DalError)
async def explain(_: Request, error: dal.DalError) -> JSONResponse:
    found = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 503 if error.retryable else 500)
    return JSONResponse({"error": error.message if found < 500 else type(error).__name__}, found)


@app.post("/chats/{chat_id}", status_code=201)
async def create_chat(chat_id: str, store: Store) -> ChatSession:
    return await store.chats.create(chat_id)


@app.post("/chats/{chat_id}/messages", status_code=201)
async def add_message(chat_id: str, message: NewMessage, store: Store) -> Message:
    return await store.messages.add(chat_id, message.role, message.content, id=message.id)


@app.get("/chats/{chat_id}/messages")
async def history(chat_id: str, store: Store, limit: int = 20, before: int | None = None) -> list[Message]:
    return await store.messages.history(chat_id, limit=limit, before=before)


@app.get("/health")
async def health(store: Store, response: Response) -> Health:
    found = await store.health()
    response.status_code = 503 if found.status == "down" else 200
    return found
