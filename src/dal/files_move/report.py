"""What a move, a check or a way back of contents did and found: counts for all, and a few problems of each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from dal.limits import CONTENTS_SAMPLES
from dal.ops import JsonValue

Action = Literal["move", "rollback", "verify"]
#: What can be wrong with a file's contents.
ProblemKind = Literal[
    "missing",  # a row without bytes
    "unowned",  # bytes without a row
    "corrupt",  # bytes that are not what their checksum or size says
    "name",  # a name that no store takes, or that leads elsewhere
    "absent",  # in the source, not in the target
    "differs",  # other bytes in the source and in the target
    "changing",  # changed again and again while they were copied
    "failed",  # a store refused them
]
KINDS: Final[tuple[ProblemKind, ...]] = get_args(ProblemKind)
#: Kinds that stand in no move's way.
HARMLESS: Final[frozenset[ProblemKind]] = frozenset({"unowned"})


class Problem(NamedTuple):
    """One of them: the key of the blob, or the path of the file, and what was found."""

    kind: ProblemKind
    key: str
    text: str


class ContentsProgress(NamedTuple):
    """How far the work is. Totals are what rows or a directory promise, and grow where more is found.

    files, bytes      done, whether they were copied or there already.
    rate_bytes_s      of the last seconds.
    eta_s             until all is done, from what files and bytes have cost, each apart; None where nobody knows.
    """

    action: Action
    files: int
    bytes: int
    total_files: int
    total_bytes: int
    copied_files: int
    copied_bytes: int
    problems: int
    rate_bytes_s: float
    rate_files_s: float
    eta_s: float | None

    def as_dict(self) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = dict(self._asdict())
        return found


OnProgress: TypeAlias = Callable[[ContentsProgress], None]
OnProblem: TypeAlias = Callable[[Problem], None]


@dataclass(slots=True)
class Problems:
    """Counts of every kind, and the first few of each."""

    counts: dict[ProblemKind, int] = field(default_factory=dict)
    samples: list[Problem] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Those that are not harmless."""
        return sum(count for kind, count in self.counts.items() if kind not in HARMLESS)

    def add(self, problem: Problem) -> None:
        count = self.counts[problem.kind] = self.counts.get(problem.kind, 0) + 1
        if count <= CONTENTS_SAMPLES:
            self.samples.append(problem)

    def as_dict(self) -> dict[str, JsonValue]:
        samples: list[JsonValue] = [dict(sample._asdict()) for sample in self.samples]
        return {"counts": {kind: self.counts.get(kind, 0) for kind in KINDS}, "samples": samples}


@dataclass(slots=True, kw_only=True)
class ContentsReport:
    """A move, a check or a way back, as far as it came. Bytes are those of blobs as they lie there.

    files, bytes   seen in the source.
    there          in the target with the same content before.
    copied         now, and verified.
    kept           other content in the target, which was left as it is: the row says so, or it is newer.
    removed        taken out of the target again, since they were deleted in the source while they were copied.
    extra          in the target only: what the application stored there since it was switched.
    read           blobs whose bytes were read to verify them.
    sampled        about how many blobs a check looked into, where not at all of them.
    """

    action: Action
    began: datetime
    seconds: float = 0.0
    files: int = 0
    bytes: int = 0
    there: int = 0
    copied: int = 0
    copied_bytes: int = 0
    kept: int = 0
    removed: int = 0
    extra: int = 0
    read: int = 0
    sampled: int | None = None
    problems: Problems = field(default_factory=Problems)

    @property
    def is_clean(self) -> bool:
        """Nothing is missing, differs or was refused."""
        return not self.problems.total

    def as_dict(self) -> dict[str, JsonValue]:
        """The report for programs."""
        return {
            "action": self.action,
            "clean": self.is_clean,
            "began": self.began.isoformat(),
            "seconds": round(self.seconds, 3),
            "files": self.files,
            "bytes": self.bytes,
            "there": self.there,
            "copied": self.copied,
            "copied_bytes": self.copied_bytes,
            "kept": self.kept,
            "removed": self.removed,
            "extra": self.extra,
            "read": self.read,
            "sampled": self.sampled,
            "problems": self.problems.as_dict(),
        }


def verdict(report: ContentsReport) -> str:
    """The result in one sentence."""
    copied = f"{report.copied:,} copied and verified, {report.there:,} there already"
    if report.action == "verify":
        copied = f"{report.there:,} of {report.files:,} verified"
        if report.sampled is not None:
            copied += f", about {report.sampled:,} of them looked into"
    if report.is_clean:
        return copied
    found = ", ".join(f"{count:,} {kind}" for kind, count in report.problems.counts.items() if kind not in HARMLESS)
    return f"{copied}; problems: {found}"
