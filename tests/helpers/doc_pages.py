"""The blocks of code in README.md and docs/, and the shell lines in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
PUBLISHED = [page for page in PAGES if re.fullmatch(r"docs/results/.+/README\.md", page)]  # half written by publish.py


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        page: where it is, from the root.
        number: of its first line, from 1.
        language: what stands behind the fence; "indented" without one.
        text: the block.
    """

    page: str
    number: int
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line."""
        return self.text.split("\n", 1)[0]


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    found, number = [], 0
    while number < len(lines):
        line, start = lines[number], number + 1
        if line.startswith("```"):
            end = next(each for each in range(start, len(lines)) if lines[each].startswith("```"))
            found.append(Block(page, start + 1, line[3:].strip(), "\n".join(lines[start:end]) + "\n"))
            number = end
        elif line.startswith("    ") and not lines[number - 1].strip() and not in_list(lines, number):
            end = next((each for each in range(start, len(lines)) if lines[each][:4].strip()), len(lines))
            text = textwrap.dedent("\n".join(lines[number:end])).strip("\n") + "\n"
            found.append(Block(page, start, "indented", text))
            number = end - 1
        number += 1
    return found


def in_list(lines: list[str], number: int) -> bool:
    """Return whether an indented line belongs to a list."""
    above = next((line for line in reversed(lines[:number]) if line[:1].strip()), "")
    return above.startswith(("- ", "* ", "1. "))


def of_language(page: str, language: str) -> list[Block]:
    """Return the blocks of a page in one language."""
    return [block for block in blocks(page) if block.language == language]


def files_of(page: str) -> dict[str, str]:
    """Return the files that a page shows: blocks whose first line is a comment with the file's name."""
    named = ((re.match(r"# ([\w-]+\.(?:py|yaml))\b", block.text), block) for block in blocks(page))
    return {match[1]: block.text for match, block in named if match}


def shell_lines(page: str) -> Iterator[list[str]]:
    """Yield the words of each shell line of a page; on the published pages, those of indented commands."""
    for block in blocks(page):
        is_command = block.language == "indented" and block.first.startswith(("tombola ", "python "))
        if block.language == "sh" or is_command:
            for line in block.text.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield words
