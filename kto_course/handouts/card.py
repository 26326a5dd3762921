"""The formula card as files."""

import hashlib
import io
import re

import matplotlib as mpl

from kto_course.handouts import formula_card


def rounded(svg: bytes) -> bytes:
    """The drawing without the last digits of its coordinates, in which processors may differ."""
    return re.sub(rb"(\.\d)\d+", rb"\1", svg)


def formula_card_files() -> dict[str, bytes]:
    """figures/formula_card in three formats with its alt text; no dates in them, so the same card has the same bytes.

    PDF and PNG carry a digest of the drawing: they are in step with it if it is the drawing's own.
    """
    fig = formula_card.draw()

    def saved(kind: str, **options) -> bytes:
        file = io.BytesIO()
        fig.savefig(file, format=kind, **options)
        return file.getvalue()

    with mpl.rc_context({"svg.hashsalt": "formula card"}):
        svg = saved("svg", metadata={"Date": None, "Creator": None, "Title": "KTO from Scratch: the formulas"})
    digest = hashlib.sha256(rounded(svg)).hexdigest()
    pdf = saved("pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None, "Keywords": digest,
                                 "Title": "KTO from Scratch: the formulas"})  # fmt: skip
    png = saved("png", dpi=130, metadata={"Software": None, "Description": formula_card.ALT, "Comment": digest})
    alt = (formula_card.ALT + "\n").encode()
    return {f"figures/formula_card.{kind}": data for kind, data in
            (("svg", svg), ("pdf", pdf), ("png", png), ("txt", alt))}  # fmt: skip
