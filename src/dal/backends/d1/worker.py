"""The other way to D1: a companion Worker beside the database, which takes what the REST API takes.

D1 may answer reads from replicas that lag behind. Every answer carries a bookmark, and who sends it back sees at least
that state: this client sends the newest it has seen, so that it reads its own writes. Where it cannot know what became
of a request, or was refused by a state it had not seen, it asks for the primary until the primary has answered.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import httpx

from dal.backends.d1.transport import JSON, D1Address, D1Transport

_BOOKMARK: Final = "x-d1-bookmark"


class D1Worker(NamedTuple):
    """Where the Worker is and the token that it was given."""

    url: str
    token: str

    def __repr__(self) -> str:
        return f"D1Worker({self.url!r})"


class WorkerTransport(D1Transport):
    """One database through its Worker."""

    settings = ("D1_WORKER_URL", "https://HOST", "D1_WORKER_TOKEN")

    def __init__(self, address: D1Address, worker: D1Worker, *, client: httpx.AsyncClient | None = None) -> None:
        super().__init__(address._replace(base=worker.url), worker.token, client=client)
        self._newest = ""
        #: Requests whose effect is not known here, this client's first state among them; and how many of these were
        #: made before a request that the primary has answered.
        self._doubts = 1
        self._settled = 0

    @property
    def bookmark(self) -> str:
        """The newest state that an answer has named; empty before the first."""
        return self._newest

    async def _send(self, client: httpx.AsyncClient, method: str, url: str, body: bytes | None) -> httpx.Response:
        doubts = self._doubts
        to_primary = self._settled < doubts
        headers = JSON if to_primary else {**JSON, _BOOKMARK: self._newest}
        try:
            answer = await client.request(method, url, content=body, headers=headers)
        except BaseException:
            self._doubts += 1
            raise
        bookmark = answer.headers.get(_BOOKMARK)
        if answer.status_code != httpx.codes.OK or not bookmark:
            self._doubts += 1
            return answer
        # They sort by time as text; answers may overtake each other.
        self._newest = max(self._newest, bookmark)
        if to_primary:
            self._settled = max(self._settled, doubts)
        return answer
