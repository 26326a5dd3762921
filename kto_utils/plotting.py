"""How figures look and how they are published. Used by every lesson; NumPy and matplotlib only."""

import os
from pathlib import Path

import matplotlib.pyplot as plt

STYLE_FILE = Path(__file__).with_name("course.mplstyle")
FIGURES_FOLDER = Path(__file__).resolve().parents[1] / "work" / "figures"  # figures/ belongs to the build

# Names for colours whose meaning stays the same in all lessons (Okabe-Ito, safe for colour-blind readers).
UP, DOWN, NEUTRAL, ACCENT = "#0072B2", "#D55E00", "#666666", "#009E73"


def use_course_style() -> None:
    """Sets the course's matplotlib style over nothing but matplotlib's own: call it once at the top of a lesson."""
    plt.style.use(["default", STYLE_FILE])


def figures_folder() -> Path:
    """Where figures go: the environment variable KTO_FIGURES if set (build and tests do), else work/figures/."""
    return Path(os.environ.get("KTO_FIGURES", FIGURES_FOLDER))


def save_figure(fig, name: str, alt: str) -> Path:
    """Publishes a figure as NAME.png in `figures_folder()` with its alt text beside it in NAME.txt.

    Args:
        fig: a matplotlib Figure.
        name: lower-case letters, digits and underscores, e.g. "01_value_function".
        alt: what a reader who cannot see the figure must know: what is drawn and what it shows, in a full
            sentence of at least 40 characters.

    Returns:
        Path of the PNG. The same figure gives the same bytes.

    Raises:
        ValueError: a name that is no plain file name, or an alt text that is missing or too short.
    """
    if not name or not all(c.islower() or c.isdigit() or c == "_" for c in name):
        raise ValueError(f"name is {name!r}; use lower-case letters, digits and underscores")
    if len(alt.strip()) < 40:
        wanted = "say in a sentence (40 or more) what the figure shows"
        raise ValueError(f"alt text of {name} has {len(alt.strip())} characters; {wanted}")
    folder = figures_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    fig.savefig(path, metadata={"Software": None, "Description": alt})
    path.with_suffix(".txt").write_text(" ".join(alt.split()) + "\n", encoding="utf-8")
    return path


def label_line(ax, x: float, y: float, text: str, color=None, **options) -> None:
    """Writes a direct label at data coordinates, in the line's colour: easier to read than a legend."""
    ax.annotate(text, (x, y), color=color, xytext=(4, 0), textcoords="offset points", va="center", **options)
