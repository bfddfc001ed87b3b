"""What a migration file's header says to this tool: lines `-- dal:<word> …` among the comments at its top."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from dal.schema.findings import Finding

_DIRECTIVE: Final = re.compile(r"--\s*dal:(.*)$")
_FORMS: Final = (
    "no-transaction, requires FILE…, foreign-keys=off, allow RULE…, env NAME…, phase=expand, phase=contract, optional"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directives:
    """optional      `dal schema up` may leave it out; the library works without it, one capability less.
    transaction   False: its statements run one by one, each outside any transaction.
    requires      file names that must be applied before it.
    foreign_keys  False: SQLite does not enforce foreign keys meanwhile, and checks all of them before the commit.
    allow         rules that do not speak of this file.
    env           environments that it is for, `seed` among them; empty for all.
    phase         of a change in two releases: `expand` goes before the code, `contract` after it.
    """

    optional: bool = False
    transaction: bool = True
    requires: tuple[str, ...] = ()
    foreign_keys: bool = True
    allow: frozenset[str] = frozenset()
    env: frozenset[str] = frozenset()
    phase: Literal["expand", "contract"] | None = None

    def is_for(self, environment: str | None, *, seed: bool) -> bool:
        """Whether the file is applied there."""
        return not self.env or environment in self.env or (seed and "seed" in self.env)


def read_directives(name: str, text: str, findings: list[Finding]) -> Directives:
    """The directives of a file; what is not understood becomes a finding."""
    requires: list[str] = []
    allow: list[str] = []
    env: list[str] = []
    alone: set[str] = set()
    in_header = True
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        in_header = in_header and (not stripped or stripped.startswith("--"))
        found = _DIRECTIVE.match(stripped)
        if found is None:
            continue
        word, *values = found[1].replace(",", " ").split() or [""]
        lists = {"requires": requires, "allow": allow, "env": env}
        if not in_header:
            _unknown(findings, name, number, f"`{stripped}` stands below the first statement, where it does nothing")
        elif word in lists and values:
            lists[word] += values
        elif (
            word in ("optional", "no-transaction", "foreign-keys=off", "phase=expand", "phase=contract") and not values
        ):
            alone.add(word)
        else:
            _unknown(findings, name, number, f"`{stripped}` is no directive; there are: {_FORMS}")
    return Directives(
        optional="optional" in alone,
        transaction="no-transaction" not in alone,
        requires=tuple(dict.fromkeys(requires)),
        foreign_keys="foreign-keys=off" not in alone,
        allow=frozenset(allow),
        env=frozenset(env),
        phase="expand" if "phase=expand" in alone else "contract" if "phase=contract" in alone else None,
    )


def _unknown(findings: list[Finding], name: str, line: int, message: str) -> None:
    findings.append(Finding(rule="unknown-directive", severity="error", file=name, line=line, message=message))
