"""A tree of messages becomes chats: every message in exactly one, in the order of the tree."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dal.importing.formats.branches import Branch, branches
from dal.importing.formats.trees import tree_records

FORKED: dict[str, str | None] = {"a": None, "b": "a", "c": "b", "x": "a", "y": "x", "z": "x", "d": "c"}


def test_the_open_branch_is_the_chat_and_others_hold_what_is_behind_the_fork() -> None:
    assert branches(FORKED, "z") == [Branch(["a", "x", "z"], None), Branch(["y"], "x"), Branch(["b", "c", "d"], "a")]


def test_without_a_current_message_the_last_end_is_taken() -> None:
    assert branches(FORKED, None)[0] == branches(FORKED, "not there")[0] == Branch(["a", "b", "c", "d"], None)


def test_a_chat_that_was_set_back_keeps_what_came_behind_as_a_branch() -> None:
    assert branches({"a": None, "b": "a", "c": "b"}, "a") == [Branch(["a"], None), Branch(["b", "c"], "a")]


def test_no_messages_are_no_branch_but_a_chat() -> None:
    assert branches({}, None) == []
    assert list(tree_records({"chat_id": "c"}, {}, None, {})) == [{"chat_id": "c", "messages": []}]


@settings(max_examples=60)
@given(st.dictionaries(st.integers(0, 12).map(str), st.none() | st.integers(0, 14).map(str)), st.integers(0, 14))
def test_every_message_is_in_exactly_one_branch_even_of_a_damaged_tree(
    parents: dict[str, str | None], current: int
) -> None:
    found = branches(parents, str(current))
    assert sorted(message for branch in found for message in branch.messages) == sorted(parents)
    for branch in found:
        assert branch.behind is None or branch.behind in parents
        assert parents[branch.messages[0]] in (branch.behind, None) or branch.behind is None
        for before, after in zip(branch.messages, branch.messages[1:], strict=False):
            assert parents[after] == before
