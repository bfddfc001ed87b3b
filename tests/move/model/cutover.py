"""Who is primary: two stores, movers and an aborter that die and come back late, and an instance that reads.

Nothing here is atomic over two stores. Every actor reads one gate, then another, decides, and does one compare-and-set,
with any amount of time in between; so a step decided on old reads may arrive in a quite different world. Data is a
counter: how many writes a store holds. A copy brings the emptier store up to the fuller one.

An instance believes for a while that a store is its unit's home. Unless that is fresh and nothing is announced there, a
call first reads both gates, one after the other, and goes where the epoch is higher.

Claims: never two primaries (I3), no acknowledged write is lost (I1), nothing is activated but fenced and drained (I6),
a read that starts after a write returned sees it, and whatever dies where, a single primary can be reached again by
what instances do by themselves, without a mover and without a human (I7).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from tests.move.model.checker import Broken

Mutant = Literal[
    "no drain",
    "no fence",
    "replica takes writes",
    "abort without burn",
    "unconditional unfence",
    "activation without compare-and-set",
    "completing without comparing epochs",
    "fence without comparing the announcement",
    "fence without waiting for old gates",
    "an old gate is trusted while a switch is announced",
    "a gate's age counts from its arrival",
    "an instance goes by roles instead of epochs",
    "a switch begins before the last one is complete",
    "nobody aborts",
]

SOURCE: Final = 0
TARGET: Final = 1

PRIMARY: Final = "primary"
FENCED: Final = "fenced"
REPLICA: Final = "replica"

#: What actors do next. All but the first four are one compare-and-set.
Act = Literal[
    "look", "prepare", "wait", "drain", "announce", "withdraw", "fence", "activate", "complete", "burn", "unfence"
]


class Gate(NamedTuple):
    """announced is the number of the announcement, in the library its `turn`; 0 for none."""

    role: str
    epoch: int
    next_epoch: int
    announced: int = 0

    @property
    def is_settled(self) -> bool:
        return self.role == PRIMARY and not self.announced


class Actor(NamedTuple):
    """What a mover or an aborter is about to do to a store, decided when that store's epoch was `epoch`.

    value  the announcement that is meant, or the epoch to set.
    seen   the source's gate, by an aborter who is about to read the target's.
    """

    act: Act
    store: int = SOURCE
    epoch: int = 0
    value: int = 0
    seen: Gate | None = None


class Reader(NamedTuple):
    """An instance. In a call, floor is how many writes had returned when it began, seen is the source's gate."""

    home: int
    trusts: bool
    floor: int = -1
    asks: bool = False
    is_fresh: bool = True
    seen: Gate | None = None


class State(NamedTuple):
    gates: tuple[Gate, Gate]
    held: tuple[int, int]
    acknowledged: int
    announcements: int
    movers: tuple[Actor | tuple[()], ...]
    aborter: Actor | tuple[()]
    reader: Reader


Next = tuple[str, State, Actor | tuple[()]]


@dataclass(frozen=True)
class Cutover:
    """announcements: how often a mover may begin: two are a switch and the way back, or one taken back and another.

    Whether the instance reads is apart: it changes nothing for the others, and multiplies what there is to visit.
    """

    mutant: Mutant | None = None
    announcements: int = 2
    writes: int = 1
    movers: int = 1
    reads: bool = True

    def start(self) -> State:
        gates = (Gate(PRIMARY, 1, 0), Gate(REPLICA, 0, 2))
        return State(gates, (0, 0), 0, 0, ((),) * self.movers, (), Reader(SOURCE, True))

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for store in (SOURCE, TARGET):
            yield from self._write_and_copy(state, store)
        for at, mover in enumerate(state.movers):
            others = state.movers[:at] + state.movers[at + 1 :]
            for said, after, then in self._act(state, mover) if mover else self._begin(state):
                yield f"mover: {said}", after._replace(movers=tuple(sorted((*others, then))))
            if mover:
                yield "a mover dies", state._replace(movers=tuple(sorted((*others, ()))))
        for said, after, then in self._act(state, state.aborter) if state.aborter else self._come_by(state):
            yield f"aborter: {said}", after._replace(aborter=then)
        if state.aborter:
            yield "the aborter dies", state._replace(aborter=())
        if self.reads:
            yield from self._call(state)

    # -- writes and copies

    def _write_and_copy(self, state: State, store: int) -> Iterator[tuple[str, State]]:
        role = state.gates[store].role
        takes = role == PRIMARY
        takes |= role == FENCED and self.mutant == "no fence"
        takes |= role == REPLICA and self.mutant == "replica takes writes"
        if takes and state.acknowledged < self.writes:
            if state.held[store] != state.acknowledged:
                raise Broken(f"I1: s{store} takes a write without having the {state.acknowledged} before it")
            more = state.acknowledged + 1
            yield f"write to s{store}", _hold(state, store, more)._replace(acknowledged=more)
        if state.held[store] > state.held[1 - store]:
            yield f"copy from s{store}", _hold(state, 1 - store, state.held[store])

    # -- movers and aborters

    def _begin(self, state: State) -> Iterator[Next]:
        for store, gate in enumerate(state.gates):
            if gate.is_settled and state.announcements < self.announcements:
                yield f"sees s{store} primary", state, Actor("prepare", store, gate.epoch)

    def _come_by(self, state: State) -> Iterator[Next]:
        """An instance, which finds what is overdue; here everything is, at once."""
        if self.mutant != "nobody aborts":
            gate = state.gates[SOURCE]
            yield f"sees s0 {gate.role}", state, Actor("look", seen=gate)

    def _act(self, state: State, actor: Actor) -> Iterator[Next]:
        if actor.act == "look":
            yield self._recover(state, actor)
        elif actor.act == "prepare":
            gate = state.gates[1 - actor.store]
            ready = gate.role == REPLICA and gate.next_epoch == actor.epoch + 1
            if ready or self.mutant == "a switch begins before the last one is complete":
                yield "finds the other ready", state, actor._replace(act="announce")
            else:
                yield "finds the other not ready", state, ()
        elif actor.act == "wait":
            # For as long as a gate may be believed in: whatever was read before is fresh no more.
            stays = self.mutant == "fence without waiting for old gates"
            reader = state.reader if stays else state.reader._replace(trusts=False, is_fresh=False)
            yield "waits", state._replace(reader=reader), actor._replace(act="fence")
        elif actor.act == "drain":
            if state.held[SOURCE] == state.held[TARGET] or self.mutant == "no drain":
                yield f"finds s{actor.store} drained", state, actor._replace(act="activate")
            yield "gives up", state, actor._replace(act="burn")
        elif actor.act == "burn":
            yield self._burn(state, actor)
        else:
            changed = self._change(state, actor)
            if changed is not None:
                yield f"{actor.act} at s{actor.store}", *changed
            elif actor.act == "activate":
                yield "comes too late to activate", state, actor._replace(act="burn")
            else:
                yield f"comes too late to {actor.act}", state, ()

    def _recover(self, state: State, actor: Actor) -> Next:
        """Both gates were read, at different moments: what is to be ended, if anything."""
        assert actor.seen is not None
        gates = (actor.seen, state.gates[TARGET])
        said = f"sees s1 {gates[TARGET].role}"
        for store, gate in enumerate(gates):
            theirs = gates[1 - store]
            if gate.role != PRIMARY or theirs.role == PRIMARY:
                continue
            if theirs.role == FENCED:
                if gate.epoch > theirs.epoch or self.mutant == "completing without comparing epochs":
                    return said, state, Actor("complete", 1 - store, theirs.epoch, gate.epoch + 1)
            elif gate.announced:
                return said, state, Actor("withdraw", store, gate.epoch, gate.announced)
        roles = (gates[SOURCE].role, gates[TARGET].role)
        if PRIMARY not in roles and FENCED in roles:
            store = roles.index(FENCED)
            return said, state, Actor("burn", store, gates[store].epoch)
        return said, state, ()

    def _change(self, state: State, actor: Actor) -> tuple[State, Actor | tuple[()]] | None:
        """One compare-and-set, and what comes after it; None where it does not compare."""
        act, store, epoch, value, _ = actor
        mine = state.gates[store]
        is_ours = mine.epoch == epoch and mine.role == PRIMARY and mine.announced == value
        if act == "announce" and mine.epoch == epoch and mine.is_settled and state.announcements < self.announcements:
            number = state.announcements + 1
            after = _gate(state, store, mine._replace(announced=number))._replace(announcements=number)
            return after, actor._replace(act="wait", value=number)
        if act == "withdraw" and is_ours:
            return _gate(state, store, mine._replace(announced=0)), ()
        if act == "fence":
            if self.mutant == "fence without comparing the announcement":
                is_ours = mine.epoch == epoch and mine.role == PRIMARY and mine.announced > 0
            if is_ours:
                return _gate(state, store, mine._replace(role=FENCED)), actor._replace(act="drain", value=0)
        if act == "activate" and (activated := self._activate(state, 1 - store, epoch)) is not None:
            return activated, actor._replace(act="complete", value=epoch + 2)
        if act == "complete" and mine.role == FENCED and mine.epoch == epoch:
            return _gate(state, store, Gate(REPLICA, epoch, value)), ()
        is_fenced = mine.role == FENCED and mine.epoch == epoch
        if act == "unfence" and (is_fenced or self.mutant == "unconditional unfence"):
            return _gate(state, store, Gate(PRIMARY, value, mine.next_epoch)), ()
        return None

    def _activate(self, state: State, store: int, epoch: int) -> State | None:
        mine, theirs = state.gates[store], state.gates[1 - store]
        if mine.role != REPLICA or mine.next_epoch != epoch + 1:
            if self.mutant != "activation without compare-and-set":
                return None
        elif self.mutant not in ("no fence", "no drain"):
            if theirs.role != FENCED or theirs.epoch != epoch:
                raise Broken(f"I6: s{store} would be activated, and the other is not fenced")
            if state.held[SOURCE] != state.held[TARGET]:
                raise Broken(f"I6: s{store} would be activated with {state.held[store]} of {max(state.held)} writes")
        return _gate(state, store, Gate(PRIMARY, epoch + 1, mine.next_epoch))

    def _burn(self, state: State, actor: Actor) -> Next:
        """Makes an activation that may be on its way impossible, and reads what the gate says then."""
        there = 1 - actor.store
        gate = state.gates[there]
        if gate.role == REPLICA and gate.next_epoch == actor.epoch + 1:
            if self.mutant == "abort without burn":
                return "does not burn", state, actor._replace(act="unfence", value=actor.epoch + 1)
            gate = gate._replace(next_epoch=actor.epoch + 2)
            state = _gate(state, there, gate)
        if gate.role == PRIMARY:
            return f"sees s{there} activated", state, actor._replace(act="complete", value=gate.epoch + 1)
        if gate.next_epoch < actor.epoch + 2:
            return "finds another world", state, ()
        return f"burns epoch {actor.epoch + 1}", state, actor._replace(act="unfence", value=gate.next_epoch - 1)

    # -- the instance

    def _call(self, state: State) -> Iterator[tuple[str, State]]:
        reader = state.reader
        if reader.floor < 0:
            asks = not reader.trusts
            called = reader._replace(floor=state.acknowledged, asks=asks, is_fresh=reader.is_fresh or asks)
            yield "the instance is called", state._replace(reader=called)
            if reader.trusts:
                yield "what the instance knows grows old", state._replace(reader=reader._replace(trusts=False))
        elif not reader.asks:
            if state.held[reader.home] < reader.floor:
                raise Broken(f"a read goes back: {reader.floor} writes had returned, and s{reader.home} has fewer")
            done = reader._replace(floor=-1, is_fresh=True)
            yield f"the instance reads s{reader.home}", state._replace(reader=done)
        elif self.mutant == "an old gate is trusted while a switch is announced":
            yield "the instance asks no more", state._replace(reader=reader._replace(asks=False))
        elif reader.seen is None:
            asked = reader._replace(seen=state.gates[SOURCE], is_fresh=True)
            yield "the instance asks s0", state._replace(reader=asked)
        else:
            yield "the instance asks s1", state._replace(reader=self._route(state, reader, reader.seen))

    def _route(self, state: State, reader: Reader, source: Gate) -> Reader:
        """Where the call goes, by two gates of different moments; it may have to ask again."""
        target = state.gates[TARGET]
        home = SOURCE if source.epoch > target.epoch else TARGET
        if self.mutant == "an instance goes by roles instead of epochs":
            moved = target.role == PRIMARY or (target.role == FENCED and source.role == REPLICA)
            home = TARGET if moved else SOURCE
        gate = (source, target)[home]
        if source.role == target.role == PRIMARY or gate.role == REPLICA:
            return reader._replace(seen=None)
        is_fresh = reader.is_fresh or self.mutant == "a gate's age counts from its arrival"
        return Reader(home, gate.is_settled and is_fresh, reader.floor)

    # -- claims

    def check(self, state: State) -> None:
        if state.gates[SOURCE].role == state.gates[TARGET].role == PRIMARY:
            raise Broken("I3: two primaries")
        for gate, held in zip(state.gates, state.held, strict=True):
            if gate.role == PRIMARY and held < state.acknowledged:
                raise Broken(f"I1: {state.acknowledged} writes were acknowledged, and the primary has {held}")

    def good(self, state: State) -> bool:
        """One primary, and the other one ready to be activated after it."""
        source, target = state.gates
        if {source.role, target.role} != {PRIMARY, REPLICA}:
            return False
        primary, replica = (source, target) if source.role == PRIMARY else (target, source)
        return primary.is_settled and replica.next_epoch == primary.epoch + 1

    def helps(self, step: str) -> bool:
        return not step.startswith(("mover", "write"))


def _hold(state: State, store: int, writes: int) -> State:
    return state._replace(held=(writes, state.held[TARGET]) if store == SOURCE else (state.held[SOURCE], writes))


def _gate(state: State, store: int, gate: Gate) -> State:
    return state._replace(gates=(gate, state.gates[TARGET]) if store == SOURCE else (state.gates[SOURCE], gate))
