"""What the code of a function loads: names with the attributes asked of them, and modules that it imports."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType
from typing import Any

from tombola.user_code.statements import Chain

SKIPPED = {"CACHE", "COPY", "EXTENDED_ARG", "NOP", "RESUME"}
ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD"}
NO_NAME = {"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_COMMON_CONSTANT", "LOAD_SPECIAL", "LOAD_CLOSURE"}


def codes_of(code: CodeType) -> Iterator[CodeType]:
    """Yield a code and the codes inside it, such as those of a comprehension."""
    waiting = [code]
    while waiting:
        code = waiting.pop()
        waiting += [each for each in code.co_consts if isinstance(each, CodeType)]
        yield code


def chains(code: CodeType, name: str) -> set[Chain]:
    """Return the attributes that a code and those inside it ask of a name, one by one.

    `args.net.width` is ("net", "width"). The empty chain stands for any other use, such as `make(args)`. An attribute
    that is only set is none of them.
    """
    found = [(chain[1:], is_set) for each in codes_of(code) for chain, is_set in _loads(each) if chain[0] == name]
    return {chain for chain, is_set in found if not is_set} if found else {()}


def _loads(code: CodeType) -> Iterator[tuple[Chain, bool]]:
    """Yield each chain that begins with a name, and whether an attribute of what it gives is set then."""
    chain: list[str] = []
    for instruction in _instructions(code):
        name, value = instruction.opname, instruction.argval
        if chain and name in ATTRIBUTE:
            chain.append(value)
            continue
        if chain:
            yield tuple(chain), name == "STORE_ATTR" and len(chain) == 1
            chain = []
        if "LOAD" in name and name not in NO_NAME | ATTRIBUTE:
            *others, last = value if isinstance(value, tuple) else (value,)  # one instruction may load two names
            yield from (((each,), False) for each in others)
            chain = [last] if isinstance(last, str) else []


def imports(code: CodeType) -> list[tuple[str, int, str | None]]:
    """Return what a code and those inside it import: (module, leading dots, attribute), None for the module itself."""
    return [found for each in codes_of(code) for found in _imports(each)]


def _imports(code: CodeType) -> Iterator[tuple[str, int, str | None]]:
    constants: list[Any] = [None, None]
    module: tuple[str, int] | None = None
    for instruction in _instructions(code):
        if instruction.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            constants = [*constants[-1:], instruction.argval]
        elif instruction.opname == "IMPORT_NAME":
            module = instruction.argval, constants[0] if isinstance(constants[0], int) else 0
            if not constants[1]:  # no `from`
                yield *module, None
        elif instruction.opname == "IMPORT_FROM" and module:
            yield *module, instruction.argval


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    return (each for each in dis.get_instructions(code) if each.opname not in SKIPPED)
