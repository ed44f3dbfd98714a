"""Random sentences of a lark grammar, and mutations of texts."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache

from lark import Lark
from lark.lexer import PatternStr

NUMBERS = ("0", "1", "2", "7", "-1", "64", "65536", "4294967296", "9223372036854775807", "1" + "0" * 40)
NAMES = (
    "i",
    "j",
    "k",
    "core",
    "cores",
    "x",
    "x.y",
    "sum",
    "max",
    "argmax",
    "add",
    "exp",
    "data",
    "f32",
    "uniform",
    "N",
)
TEXTS = (
    '""',
    '"a.py"',
    '"%0"',
    '"%9"',
    '"aten.sort.default"',
    '"torch.float32"',
    '"dtype:f32"',
    r'"\u0000"',
    r'"\ud800"',
)
DTYPES = ("f32", "bf16", "i64", "u8", "bool", "f8e4m3")
MARKS = (
    "\x00",
    "\u2028",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    '"',
    "`",
    "\\",
    "%",
    "@",
    "#",
    ",",
    ":",
    "nan",
    "inf",
    "-",
    "1e999",
    "\r",
    "ﬁ",
)


@cache
def _rules(grammar: Lark) -> dict[str, list[list[tuple[str, bool]]]]:
    found: dict[str, list[list[tuple[str, bool]]]] = {}
    for rule in grammar.rules:
        found.setdefault(rule.origin.name, []).append([(part.name, part.is_term) for part in rule.expansion])
    return found


@cache
def _terminals(grammar: Lark) -> dict[str, str | None]:
    """Terminal -> its text, None where it is a pattern."""
    return {t.name: t.pattern.value if isinstance(t.pattern, PatternStr) else None for t in grammar.terminals}


def sentence(grammar: Lark, rng: random.Random, *, depth: int = 14) -> str:
    """A sentence of a grammar: rules are chosen at random, the shortest ones beyond a depth."""
    rules, terminals = _rules(grammar), _terminals(grammar)
    words: list[str] = []
    stack: list[tuple[str, bool, int]] = [("start", False, 0)]
    while stack and len(words) < 4000:
        name, terminal, level = stack.pop()
        if terminal:
            words.append(terminals[name] or _word(name, rng))
            continue
        choices = rules[name]
        chosen = (
            rng.choice(choices) if level < depth else min(choices, key=lambda c: (sum(not t for _, t in c), len(c)))
        )
        stack.extend((part, is_term, level + 1) for part, is_term in reversed(chosen))
    return " ".join(words)


def _word(terminal: str, rng: random.Random) -> str:
    if terminal in ("VALUE", "LOCAL"):
        return "%" + rng.choice(("x", "y", "0", "a.b"))
    if terminal == "GLOBAL":
        return "@" + rng.choice(("main", "k", "kernel.1"))
    if terminal == "COUNT":
        return "#" + rng.choice(("a", "b"))
    if terminal == "DTYPE":
        return rng.choice(DTYPES)
    if terminal == "INT":
        return rng.choice(NUMBERS).lstrip("-")
    if terminal == "FLOAT":
        return rng.choice(("0.5", "1e30", "1e-300", "1e999"))
    if terminal == "STRING":
        return rng.choice(TEXTS)
    operators = {
        "EQUAL": "==",
        "SHIFT": "<<",
        "COMPARE": "<",
        "BIT": "&",
        "PRODUCT": "=",
        "BOOLEAN": "true",
        "ATOMIC": "atomic_add",
    }
    return operators.get(terminal) or rng.choice(NAMES)


_TOKEN = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?|[A-Za-z_][\w.$]*|\s+|.", re.DOTALL)


def mutated(text: str, rng: random.Random, others: Sequence[str] = ()) -> str:
    """A text with one to four of its tokens dropped, doubled, swapped, exchanged for a number or mark, or cut off."""
    tokens = _TOKEN.findall(text)
    for _ in range(rng.randint(1, 4)):
        if not tokens:
            break
        at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        kind = rng.randrange(8)
        if kind == 0:
            del tokens[at]
        elif kind == 1:
            tokens.insert(at, tokens[at])
        elif kind == 2:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif kind == 3:
            tokens[at] = rng.choice(NUMBERS)
        elif kind == 4:
            tokens[at] = rng.choice(MARKS)
        elif kind == 5:
            numbers = [i for i, token in enumerate(tokens) if token[0].isdigit()] or [at]
            tokens[rng.choice(numbers)] = rng.choice(NUMBERS)
        elif kind == 6:
            del tokens[rng.randrange(len(tokens)) :]
        else:
            source = _TOKEN.findall(rng.choice(list(others) or [text]))
            start = rng.randrange(len(source) or 1)
            tokens[at:at] = source[start : start + rng.randint(1, 30)]
    return "".join(tokens)
