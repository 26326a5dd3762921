"""Builds the decks alone, and prints the long one; `python course.py build` builds everything."""

from kto_course import ROOT
from kto_course.slides.deck import FOLDER, deck_files, print_pdf, stale_pdf

(ROOT / FOLDER).mkdir(exist_ok=True)
for name, data in deck_files().items():
    if not (ROOT / name).exists() or (ROOT / name).read_bytes() != data:
        (ROOT / name).write_bytes(data)
        print(name)
print(*print_pdf())
if stale := stale_pdf():
    print(f"{stale[0]} is out of date: to print it, install Chromium or Chrome and put its folder on the PATH")
