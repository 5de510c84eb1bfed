"""An MCP server that calculates: `python -m mcp_bridge.demo.servers.calculator`.

An expression is parsed into Python's syntax tree, and only numbers, operators and the functions
named here are ever evaluated. No expression takes long or much memory: what could grow is estimated
before it is computed (`affordable`), and every value is then held to MAX_BITS (`sound`).
"""

import ast
import math
import operator
from collections.abc import Callable
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from mcp_bridge.demo.servers.hints import READS

Number = int | float

MAX_LENGTH = 1000
MAX_DEPTH = 500
MAX_BITS = 3300
"""Just under a thousand digits."""
TOO_LARGE = "the result would have more than about a thousand digits"

CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}
SIGNS = {"^": "**", "×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"}
"""How people write operators, and how Python does."""


class CannotCalculate(ValueError):
    """The expression has no answer here. The message says why."""


def power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        affordable(base.bit_length() * exponent if abs(base) > 1 else 1)
    result = base**exponent
    if isinstance(result, complex):
        raise CannotCalculate(f"{base:g} to the power of {exponent:g} is not a real number")
    return result


def divide(left: Number, right: Number) -> Number:
    """Exact where it can be: 6 / 3 is 2."""
    if isinstance(left, int) and isinstance(right, int) and right and left % right == 0:
        return left // right
    return left / right


def factorial(n: Number) -> int:
    n = whole(n, "factorial")
    affordable(n * n.bit_length())
    return math.factorial(n)


def combinations(n: Number, k: Number) -> int:
    n, k = whole(n, "comb"), whole(k, "comb")
    affordable(min(n, min(k, n - k) * n.bit_length()))
    return math.comb(n, k)


def permutations(n: Number, k: Number) -> int:
    n, k = whole(n, "perm"), whole(k, "perm")
    affordable(min(n, k) * n.bit_length())
    return math.perm(n, k)


def divisor(*numbers: Number) -> int:
    return math.gcd(*(whole(number, "gcd") for number in numbers))


def multiple(*numbers: Number) -> int:
    wholes = [whole(number, "lcm") for number in numbers]
    affordable(sum(number.bit_length() for number in wholes))
    return math.lcm(*wholes)


def rounded(number: Number, digits: Number = 0) -> Number:
    places = int(digits)
    if not -400 < places < 400:
        raise CannotCalculate("round takes at most 400 digits")
    result = round(number, places)
    return int(result) if places <= 0 else result


def whole(number: Number, function: str) -> int:
    if number != int(number):
        raise CannotCalculate(f"{function} takes whole numbers, not {number:g}")
    return int(number)


def affordable(bits: int) -> None:
    """Refuse what would be far too large. `bits` is an upper bound that may be a few times off."""
    if bits > 10 * MAX_BITS:
        raise CannotCalculate(TOO_LARGE)


OPERATORS: dict[type[ast.AST], Callable[..., Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: divide,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: power,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
FUNCTIONS: dict[str, Callable[..., Number]] = {
    "abs": abs,
    "acos": math.acos,
    "asin": math.asin,
    "atan": math.atan,
    "atan2": math.atan2,
    "cbrt": math.cbrt,
    "ceil": math.ceil,
    "comb": combinations,
    "cos": math.cos,
    "cosh": math.cosh,
    "degrees": math.degrees,
    "exp": math.exp,
    "factorial": factorial,
    "floor": math.floor,
    "gcd": divisor,
    "hypot": math.hypot,
    "lcm": multiple,
    "ln": math.log,
    "log": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "max": max,
    "min": min,
    "perm": permutations,
    "radians": math.radians,
    "round": rounded,
    "sin": math.sin,
    "sinh": math.sinh,
    "sqrt": math.sqrt,
    "tan": math.tan,
    "tanh": math.tanh,
}


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression.

    Raises:
        CannotCalculate: it is no arithmetic, has no real value, or is too large.
    """
    tree = parse(expression)
    try:
        return value_of(tree.body, MAX_DEPTH)
    except ZeroDivisionError:
        raise CannotCalculate("division by zero") from None
    except OverflowError:
        raise CannotCalculate("a number is too large") from None
    except RecursionError:
        raise CannotCalculate("the expression is nested too deep") from None
    except (TypeError, ValueError) as exc:
        if isinstance(exc, CannotCalculate):
            raise
        raise CannotCalculate(str(exc)) from exc  # Python's own words: how many, or which domain


def parse(expression: str) -> ast.Expression:
    """Raises: CannotCalculate: it cannot be read."""
    text = " ".join(expression.split())
    for sign, python in SIGNS.items():
        text = text.replace(sign, python)
    if not text:
        raise CannotCalculate("the expression is empty")
    if len(text) > MAX_LENGTH:
        raise CannotCalculate(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        return ast.parse(text, mode="eval")
    except SyntaxError as exc:
        where = f" at character {exc.offset}" if exc.offset else ""
        raise CannotCalculate(f"cannot read {text[:100]!r}: {exc.msg}{where}") from None
    except (ValueError, MemoryError, RecursionError):
        raise CannotCalculate(f"cannot read {text[:100]!r}") from None


def value_of(node: ast.expr, depth: int) -> Number:
    if depth == 0:
        raise CannotCalculate(f"the expression is nested deeper than {MAX_DEPTH}")
    match node:
        case ast.Constant(value=bool()):
            raise CannotCalculate("truth values are no numbers")
        case ast.Constant(value=int() | float() as number):
            return sound(number)
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return sound(OPERATORS[type(op)](value_of(operand, depth - 1)))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            values = value_of(left, depth - 1), value_of(right, depth - 1)
            return sound(OPERATORS[type(op)](*values))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return sound(FUNCTIONS[name](*(value_of(arg, depth - 1) for arg in args)))
    known = ", ".join((*FUNCTIONS, *CONSTANTS))
    raise CannotCalculate(
        f"{ast.unparse(node)[:60]!r} is not understood; there are + - * / // % ** ( ) and: {known}"
    )


def sound(number: Number) -> Number:
    """The number, if it is one and small enough."""
    if isinstance(number, int):
        if number.bit_length() > MAX_BITS:
            raise CannotCalculate(TOO_LARGE)
    elif not math.isfinite(number):
        raise CannotCalculate("the result is not a finite number")
    return number


def spell(number: Number) -> str:
    """An integer in full, another number with 15 digits: 0.1 + 0.2 is 0.3."""
    return str(number) if isinstance(number, int) else f"{number:.15g}"


class Calculation(BaseModel):
    """An expression and its value."""

    expression: str
    result: str = Field(description="The value in decimal digits; exact when it is an integer.")


def build() -> MCPServer:
    """The server."""
    server = MCPServer("calculator", title="Calculator", version="1", log_level="WARNING")

    @server.tool(title="Calculate", annotations=READS)
    def calculate(
        expression: Annotated[
            str, Field(description="Such as 17 * 23, (2 + 3) ** 2, sqrt(2) or factorial(5).")
        ],
    ) -> Calculation:
        """Calculate an arithmetic expression and return its value.

        Knows + - * / // % ** and parentheses, pi, e and tau, and functions such as sqrt, round,
        sin (in radians), log (natural; log(8, 2) has a base), factorial, gcd, min and max.
        Percent is written as a fraction: 15 % of 80 is 0.15 * 80.
        """
        try:
            return Calculation(expression=expression, result=spell(evaluate(expression)))
        except CannotCalculate as exc:
            raise ToolError(str(exc)) from exc

    return server


if __name__ == "__main__":
    build().run()
