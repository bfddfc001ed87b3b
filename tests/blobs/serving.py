"""A local blob store behind uvicorn on a loopback port of the kernel's choice, in a thread of its own."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn

from dal.blobs.asgi import BlobApp
from dal.blobs.local import LocalBlobStore
from dal.blobs.signing import UrlSigner


class Served(NamedTuple):
    """A store whose signed URLs are answered, and what signs them. The server has a store of its own."""

    store: LocalBlobStore
    signer: UrlSigner


@contextmanager
def serve(directory: Path, *, max_bytes: int = 100 * 1024**2) -> Iterator[Served]:
    """Until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    signer = UrlSigner(secrets.token_hex(32), f"http://127.0.0.1:{listener.getsockname()[1]}/blobs")
    app = BlobApp(LocalBlobStore(directory), signer, max_bytes=max_bytes)
    config = uvicorn.Config(app, log_level="critical", lifespan="on", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Served(LocalBlobStore(directory, signer=signer), signer)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
