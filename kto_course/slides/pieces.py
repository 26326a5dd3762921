"""What of a lesson goes on slides: the units of its text cells and the outputs of its code cells that are marked."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import jupytext
import nbformat

from kto_course import NOTEBOOKS
from kto_course.handouts.wording import mathml, to_html, to_inline_html

VOTE, RECAP = "Before you run anything", "Recap"
HEADING = re.compile(r"^#{2,3} (?:\d+\. )?(.+)$")
ASKED = re.compile(rf"^\*\*{VOTE}\.?\*\*[.:]?\s*")
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
ITEM = re.compile(r"^(?:- |\d+\. )", flags=re.M)
SENTENCE = re.compile(r"(?<=[.?!])[*]{0,2}\s+(?=[\"*$`(\[A-Z])")
WIDTH, LARGEST = 1150, 30  # pixels that a line of output may fill, and the size of its letters where it is short


@dataclass(frozen=True)
class Slide:
    """One slide: `lesson` and `section` say where its parts stand, `parts` are pieces of HTML."""

    lesson: str
    section: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """A sentence, a list item, or a whole formula, table or block of code; `kind` says how units are joined."""

    kind: str
    text: str


def units(block: str) -> list[Unit]:
    """The units of a block of text, that is of lines without a blank one among them."""
    if block.startswith(("$$", "|", "```")):
        return [Unit("formula" if block.startswith("$$") else "whole", block)]
    if ITEM.match(block):
        starts = [found.start() for found in ITEM.finditer(block)] + [len(block)]
        return [Unit("item", block[a:b].strip()) for a, b in pairwise(starts)]
    return [Unit("sentence", part) for part in SENTENCE.split(" ".join(block.split()))]


def sections_of(text: str, section: str) -> Iterator[tuple[str, list[Unit]]]:
    """(section, its units in this cell) for each part of a text cell; it begins in `section`."""
    found: list[Unit] = []
    for block in re.split(r"\n\s*\n", text):
        if vote := ASKED.match(block):
            rest = block[vote.end() :]
            block = f"## {VOTE}\n{rest[:1].upper()}{rest[1:]}"
        first, _, rest = block.partition("\n")
        if heading := HEADING.match(first):
            yield section, found
            section, found, block = heading[1], [], rest
        if block.strip():
            found.extend(units(block.strip()))
    yield section, found


def said(unit: Unit) -> str:
    """How a unit begins, without the marks of lists and stress."""
    return ITEM.sub("", unit.text).replace("*", "")


def chosen(found: list[Unit], openings: list[str]) -> list[Unit]:
    return [unit for unit in found if any(said(unit).startswith(opening) for opening in openings)]


def printed_part(lines: list[str]) -> str:
    """Lines of fixed width, as large as they fit."""
    size = min(LARGEST, int(WIDTH / 0.605 / max(map(len, lines))))
    return f'<pre style="font-size: {size}px">{html.escape(chr(10).join(lines))}</pre>'


def formulas(block: str) -> list[str]:
    """The formulas that stand side by side in a block: on a slide they may stand one below the other."""
    return [part.strip().removesuffix(",") for part in re.split(r"\\qquad", block.strip("$\n "))]


def text_parts(found: list[Unit]) -> list[str]:
    """The HTML of the chosen units: items of a list together, sentences each on a line of its own."""
    parts = []
    for kind, group in groupby(found, key=lambda unit: unit.kind):
        texts = [LINK.sub(r"\1", unit.text) for unit in group]
        if kind == "item":
            parts.append(to_html("\n".join(texts), mathml))
        elif texts[0].startswith("```"):
            parts += [printed_part(text.splitlines()[1:-1]) for text in texts]
        elif kind == "formula":
            shown = ("".join(to_html(f"$$\n{one}\n$$", mathml) for one in formulas(text)) for text in texts)
            parts += [f'<div class="formulas">{side_by_side}</div>' for side_by_side in shown]
        else:
            parts += [to_html(text, mathml) for text in texts]
    return parts


def columns(lines: list[str], widths: str) -> list[list[str]]:
    """The cells of a printed table.

    `26+14`: a column of 26 letters, then columns of 14 each. Without widths, columns are parted by two blanks or more
    in every line.
    """
    longest = max(map(len, lines))
    padded = [line.ljust(longest) for line in lines]
    if widths:
        first, step = map(int, widths.split("+"))
        edges = [0, *range(first, longest, step), longest]
        spans = list(pairwise(edges))
    else:
        blank = "".join(" " if all(line[i] == " " for line in padded) else "x" for i in range(longest))
        spans = [found.span() for found in re.finditer(r"x+(?: x+)*", blank)]
    return [[line[a:b].strip() for a, b in spans] for line in padded]


def table_part(lines: list[str], widths: str) -> str:
    """A printed table as HTML; its first line is the head."""
    head, *rows = columns(lines, widths)
    cells = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
             for tag, row in (("th", head), *(("td", row) for row in rows))]  # fmt: skip
    letters = sum(max(map(len, column)) + 2 for column in zip(head, *rows, strict=True))
    size = min(LARGEST, int(WIDTH / 0.47 / letters))
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f'<table class="printed" style="font-size: {size}px">{body}</table>'


def output_parts(cell, wanted: str) -> list[str]:
    """Figures, printed lines, or a printed table of a cell that was run; `text 0:3` takes three lines.

    `table 0:8 26+14` takes eight, and gives the widths that `columns` reads.

    Raises:
        ValueError: a wish that is none of these, or for something that the cell does not show.
    """
    kind, lines, widths = (*wanted.split(" "), "", "")[:3]
    if kind == "figure":
        shown = [(o.data["image/png"], o.metadata.get("image/png", {}).get("alt", "")) for o in cell.outputs
                 if "image/png" in o.get("data", {})]  # fmt: skip
        parts = ['<img alt="{}" src="data:image/png;base64,{}">'.format(html.escape(alt), png.replace("\n", ""))
                 for png, alt in shown]  # fmt: skip
    elif kind in ("text", "table"):
        printed = "".join(o.text for o in cell.outputs if o.output_type == "stream").splitlines()
        first, _, last = lines.partition(":")
        printed = printed[int(first or 0) : int(last) if last else None]
        if kind == "table":
            parts = [table_part(printed, widths)] if printed else []
        else:
            parts = [printed_part(printed)] if printed else []
    else:
        raise ValueError(f"slide={wanted!r}: expected figure, text or table, the last two with lines such as 0:3")
    if not parts:
        raise ValueError(f"slide={wanted!r}, but the cell shows no such thing: {cell.source[:60]!r}")
    return parts


def marked(source: Path) -> list[Slide]:
    """The slides of a lesson, in its order: vote, marked sections, recap.

    Raises:
        ValueError: a mark that finds nothing, or a text that begins no unit, or several, of its cell.
    """
    written = jupytext.read(source, fmt="py:percent").cells
    built = [cell for cell in nbformat.read(NOTEBOOKS / f"{source.stem}.ipynb", as_version=4).cells
             if "guard" not in cell.metadata.get("tags", ())]  # fmt: skip
    section, found = "", []
    for cell, run in zip(written, built, strict=True):
        wishes = cell.metadata.get("slide", [])
        if cell.cell_type == "code":
            found += [(section, part) for wish in wishes for part in output_parts(run, wish)]
            continue
        here = list(sections_of(cell.source, section))
        for opening in wishes:
            if (n := sum(said(unit).startswith(opening) for _, group in here for unit in group)) != 1:
                raise ValueError(f"{source.name}: {n} sentences begin with slide={opening!r} in {cell.source[:40]!r}")
        for section, group in here:
            take = group if section == RECAP else chosen(group, wishes)
            found += [(section, part) for part in text_parts(take)]
    return [Slide(source.stem[:2], name, tuple(part for _, part in group))
            for name, group in groupby(found, key=lambda pair: pair[0])]  # fmt: skip


def title_of(source: Path) -> tuple[str, str]:
    """A lesson's title and its promise."""
    first = jupytext.read(source, fmt="py:percent").cells[0].source
    title, promise = (line.strip("# *") for line in first.splitlines() if line.strip())
    return title, promise


def inline(text: str) -> str:
    return to_inline_html(LINK.sub(r"\1", text), mathml)
