"""The words that every part shares."""

from dataclasses import replace

from mcp_bridge.types import Caller


def test_a_value_is_equal_to_its_like_and_may_be_a_key() -> None:
    anna, like_anna = Caller("anna", tools=("a:*",)), Caller("anna", tools=("a:*",))
    assert anna == like_anna
    assert {anna: 1}[like_anna] == 1
    assert replace(anna, tenant="t") != anna


def test_a_value_has_no_room_for_other_fields() -> None:
    assert not hasattr(Caller(), "__dict__")
