"""What a sentence asks for, by the patterns of the scripted model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.demo.understand import Skill, intents

Expected = list[tuple[Skill, dict[str, str]]]


def now(zone: str) -> tuple[Skill, dict[str, str]]:
    return Skill.NOW, {"zone": zone}


def sum_of(expression: str) -> tuple[Skill, dict[str, str]]:
    return Skill.CALCULATE, {"expression": expression}


def convert(time: str, source: str, target: str) -> tuple[Skill, dict[str, str]]:
    return Skill.CONVERT, {"source": source, "target": target, "time": time}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "What time is it in Tokyo, and what is 17 * 23?",
            [now("Asia/Tokyo"), sum_of("17 * 23")],
        ),
        ("What is 2 + 2, and the time in Lima?", [sum_of("2 + 2"), now("America/Lima")]),
        ("What time is it?", [now("UTC")]),
        ("what's the time in new\n york?", [now("America/New_York")]),
        ("Time in Tokyo and in London, please", [now("Asia/Tokyo"), now("Europe/London")]),
        ("What day is it in Asia/Kolkata?", [now("Asia/Kolkata")]),
        ("Convert 14:30 from Berlin to Tokyo", [convert("14:30", "Europe/Berlin", "Asia/Tokyo")]),
        ("10:15 to Tokyo from Berlin", [convert("10:15", "Europe/Berlin", "Asia/Tokyo")]),
        (
            "When it is 9 am in New York, what time is it in London?",
            [convert("09:00", "America/New_York", "Europe/London")],
        ),
        ("Noon in Rome is when in Lima?", [convert("12:00", "Europe/Rome", "America/Lima")]),
        ("12 a.m. in Rome, in Lima?", [convert("00:00", "Europe/Rome", "America/Lima")]),
        (
            "How many hours is Sydney ahead of Delhi?",
            [(Skill.DIFFERENCE, {"source": "Australia/Sydney", "target": "Asia/Kolkata"})],
        ),
        ("17 times 23", [sum_of("17 * 23")]),
        ("10 divided by 4 plus 3", [sum_of("10 / 4 + 3")]),
        ("What is 15% of 80?", [sum_of("15 / 100 * 80")]),
        ("the square root of 144", [sum_of("sqrt(144)")]),
        ("12 squared", [sum_of("12 ** 2")]),
        ("1,000 * 3", [sum_of("1000 * 3")]),
        ("2^10, (3+4)*2, max(1, 2)", [sum_of("2^10"), sum_of("(3+4)*2"), sum_of("max(1, 2)")]),
        ("(2 + 3) * 4 = ?", [sum_of("(2 + 3) * 4")]),
        ("List my notes", [(Skill.LIST, {})]),
        ("Which notes do I have?", [(Skill.LIST, {})]),
        (
            "Write a note shopping: 3 * 4 eggs",
            [(Skill.WRITE, {"name": "shopping", "text": "3 * 4 eggs"})],
        ),
        (
            'Save a note called "to do" saying call Bob at 14:30 in Tokyo',
            [(Skill.WRITE, {"name": "to do", "text": "call Bob at 14:30 in Tokyo"})],
        ),
        ("Read the note shopping", [(Skill.READ, {"name": "shopping"})]),
        ("Search my notes for red apples!", [(Skill.SEARCH, {"query": "red apples"})]),
        ("Find eggs in my notes", [(Skill.SEARCH, {"query": "eggs"})]),
        ("Delete the note 'to do'", [(Skill.DELETE, {"name": "to do"})]),
        ("Hello there", []),
        ("How is the weather in Paris?", []),
        ("I was born on 1999-12-31 and COVID-19 came later", []),
        ("At 14:30 I will be well-known", []),
        ("", []),
    ],
)
def test_a_sentence_asks_for(text: str, expected: Expected) -> None:
    assert [(intent.skill, intent.values) for intent in intents(text)] == expected


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    assert isinstance(intents(text), list)
