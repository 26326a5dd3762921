"""Builds the decks alone, and prints the long one; `python course.py build` builds everything."""

from kto_course import ROOT
from kto_course.slides.deck import FOLDER, deck_files, print_pdf

for name, data in deck_files().items():
    path = ROOT / name
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)
        print(name)
print(print_pdf() or f"no Chromium: the PDF in {FOLDER} was not printed")
