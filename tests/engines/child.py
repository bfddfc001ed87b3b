"""Child processes for engines: another user than root, gone when the tests are gone, stopped for certain.

Servers refuse to run as root and must not outlive a test run that was killed; both are arranged here, once. Nothing is
known of any particular engine.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypedDict

from tests.engines import scratch

_PR_SET_PDEATHSIG = 1
_SHORT = "/tmp"  # noqa: S108 - mkdtemp makes a private directory in it; TMPDIR may be too long for a socket's path
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _identity() -> _Identity:
    """Arguments of subprocess that leave root behind; none for any other user."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _dies_with_parent(stop_signal: int) -> Callable[[], None] | None:
    """Runs in the child after the change of user, which would clear it: the kernel sends the signal at our death."""
    if _libc is None:
        return None
    # Looked up before the fork: if another thread held the loader's lock then, the child would wait for it for ever.
    prctl = _libc.prctl

    def request() -> None:
        prctl(_PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)

    return request


def private_directory(prefix: str) -> Path:
    """A new directory of mode 0700, owned by the user that children run as. Short: a socket's path fits in it.

    Those left by runs that were killed are taken away: the name says whose a directory is.
    """
    on_disk = Path(_SHORT if os.path.isdir(_SHORT) else tempfile.gettempdir())
    base = scratch.MEMORY if scratch.is_memory() else on_disk
    for left in base.glob(f"{prefix}*.*"):
        owner = left.name.removeprefix(prefix).partition(".")[0]
        if owner.isdecimal() and not _is_running(int(owner)):
            remove(left)
    path = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}.", dir=base))
    give_to_child(path)
    return path


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def give_to_child(path: Path) -> None:
    identity = _identity()
    if identity:
        os.chown(path, identity["user"], identity["group"])


def run(command: Sequence[str | Path], *, cwd: Path, timeout_s: float = 120) -> None:
    """Runs a tool to its end as the children's user; raises RuntimeError with its output when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=_environment(cwd),
        **_identity(),
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-400:]}")


def start(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    log: IO[bytes],
    stop_signal: int,
    settings: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a server in a session of its own (Ctrl-C is ours to handle) that dies with this process.

    settings  environment variables for it alone.
    """
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**_environment(cwd), **(settings or {})},
        start_new_session=True,
        preexec_fn=_dies_with_parent(stop_signal),
        **_identity(),
    )


def stop(process: subprocess.Popen[bytes], stop_signal: int, *, timeout_s: float = 20) -> None:
    """Ends the process with the signal, and with SIGKILL when it does not heed it."""
    if process.poll() is not None:
        return
    process.send_signal(stop_signal)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout_s)


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """A TCP port of the loopback address that is free now; whoever uses it must be ready to try another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's settings (PGPORT, PGDATA, DB_*) reaches the engine."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LC_ALL": "C", "TZ": "UTC"}
