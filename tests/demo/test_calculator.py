"""The calculator server."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.demo.servers.calculator import CannotCalculate, build, evaluate, spell
from tests.demo.calling import call, refused


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("17 * 23", "391"),
        ("0.1 + 0.2", "0.3"),
        ("6 / 3", "2"),
        ("7 / 2", "3.5"),
        ("-7 // 2", "-4"),
        ("2^10", "1024"),
        ("2 × 3 ÷ 4 − 1", "0.5"),
        ("(2 + 3) ** 2", "25"),
        ("sqrt(144)", "12"),
        ("round(2.567, 1)", "2.6"),
        ("round(1234, -2)", "1200"),
        ("max(1, 2, 3) % 2", "1"),
        ("factorial(20)", "2432902008176640000"),
        ("comb(5000, 2)", "12497500"),
        ("perm(5, 2)", "20"),
        ("gcd(12, 18) + lcm(4, 6)", "18"),
        ("log(8, 2)", "3"),
        ("2 * pi", "6.28318530717959"),
        ("(-1) ** 1000000", "1"),
        ("2 ** 3000 - 2 ** 3000", "0"),
        (" 1\n+ 1", "2"),
        ("+".join(["1"] * 500), "500"),
    ],
)
def test_arithmetic_is_right(expression: str, result: str) -> None:
    assert spell(evaluate(expression)) == result


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "is empty"),
        ("2 +", "cannot read"),
        ("1" * 1001, "longer than 1000"),
        ("1 / 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("sqrt(-1)", "math domain error"),
        ("(-8) ** (1/3)", "not a real number"),
        ("factorial(2.5)", "whole numbers"),
        ("factorial(-1)", "negative"),
        ("sqrt()", "argument"),
        ("1e999", "not a finite number"),
        ("1e308 * 10", "not a finite number"),
        ("2.0 ** 99999", "too large"),
        ("9 ** 9 ** 9", "thousand digits"),
        ("2 ** 4000", "thousand digits"),
        ("10 ** 900 * 10 ** 900", "thousand digits"),
        ("factorial(10 ** 9)", "thousand digits"),
        ("factorial(1000)", "thousand digits"),
        ("comb(10 ** 9, 10 ** 8)", "thousand digits"),
        ("perm(10 ** 9, 10 ** 8)", "thousand digits"),
        ("round(1.5, 10 ** 9)", "400 digits"),
        ("-" * 600 + "1", "nested deeper"),
        ("(" * 300 + "1" + ")" * 300, "cannot read"),
        ("a" + ".b" * 450, "nested too deep"),
        ("True + 1", "truth values"),
        ("'a' * 9", "is not understood"),
        ("__import__('os').system('ls')", "is not understood"),
        ("().__class__", "is not understood"),
        ("[1 for _ in 'a']", "is not understood"),
        ("(lambda: 1)()", "is not understood"),
        ("x := 1", "cannot read"),
        ("round(number=1.5)", "is not understood"),
        ("max(*[1])", "is not understood"),
        ("1j", "is not understood"),
        ("1 < 2", "is not understood"),
    ],
)
def test_anything_else_is_refused_with_a_reason(expression: str, reason: str) -> None:
    with pytest.raises(CannotCalculate, match=reason):
        evaluate(expression)


@given(st.text(alphabet="0123456789.+-*/%()e, sqrtfacoil", max_size=40))
def test_any_text_ends_in_a_finite_number_or_a_reason(text: str) -> None:
    try:
        value = evaluate(text)
    except CannotCalculate as exc:
        assert str(exc)
    else:
        assert math.isfinite(value)


async def test_the_tool_gives_the_result_as_exact_digits() -> None:
    told = await call(build(), "calculate", expression="2 ** 100")
    assert told == {"expression": "2 ** 100", "result": "1267650600228229401496703205376"}


async def test_the_tool_answers_what_it_cannot_calculate_with_an_error() -> None:
    told = await refused(build(), "calculate", expression="import os")
    assert "cannot read 'import os'" in told
