"""kto_utils/plotting.py: figures look alike, are published by one function, and never without alt text."""

import ast
import itertools
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon
from PIL import Image

from kto_course.pictures import lesson_00
from kto_course.pictures.intervals import draw_intervals
from kto_utils import plotting
from kto_utils.plotting import DOWN, NEUTRAL, UP, label_line, save_figure, use_course_style

ALT = "A straight line that rises from nought to one, drawn as an example."


@pytest.fixture(autouse=True)
def _figures_in_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KTO_FIGURES", str(tmp_path / "figures"))
    with plt.rc_context():
        yield
    plt.close("all")


@pytest.fixture
def figure():
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, 1], [0, 1])
    return fig


def lightness(colour):
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_save_figure_writes_a_picture_and_its_alt_text(figure, tmp_path):
    path = save_figure(figure, "01_line", alt=ALT)
    assert path == tmp_path / "figures" / "01_line.png"
    assert path.with_suffix(".txt").read_text(encoding="utf-8") == ALT + "\n"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["Description"] == ALT
        assert image.size[0] > 100


def test_the_same_figure_gives_the_same_bytes_and_names_no_software(figure):
    first = save_figure(figure, "a", alt=ALT).read_bytes()
    assert save_figure(figure, "a", alt=ALT).read_bytes() == first
    assert b"matplotlib" not in first.lower()


@pytest.mark.parametrize("theirs", ["dark_background", "ggplot", "classic"])
def test_the_course_s_style_inherits_nothing_from_the_reader_s_own(theirs):
    use_course_style()
    pure = dict(plt.rcParams)
    plt.style.use(theirs)
    plt.rcParams["lines.linewidth"] = 9.0
    use_course_style()
    assert {name: plt.rcParams[name] for name in pure if plt.rcParams[name] != pure[name]} == {}


def test_alt_text_is_stored_on_one_line(figure):
    path = save_figure(figure, "a", alt="  " + ALT.replace(" ", "\n  ") + "\n")
    assert path.with_suffix(".txt").read_text(encoding="utf-8") == ALT + "\n"


@pytest.mark.parametrize("alt", ["", "   ", "x" * 39, " " * 60 + "too short" + " " * 60])
def test_a_missing_or_short_alt_text_is_refused(figure, alt, tmp_path):
    with pytest.raises(ValueError, match=rf"alt text of a has {len(alt.strip())} characters"):
        save_figure(figure, "a", alt=alt)
    assert not (tmp_path / "figures").exists()


def test_forty_characters_of_alt_text_are_enough(figure):
    assert save_figure(figure, "a", alt="x" * 40).exists()


def test_alt_text_has_no_default(figure):
    with pytest.raises(TypeError, match="alt"):
        save_figure(figure, "a")


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a/b", "../a", "a.png", "a-b", "\u00e9 "])
def test_a_name_that_is_no_plain_file_name_is_refused(figure, name):
    with pytest.raises(ValueError, match="use lower-case letters, digits and underscores"):
        save_figure(figure, name, alt=ALT)


@given(st.text(max_size=12))
def test_a_name_is_accepted_only_if_it_stays_inside_the_folder(name):
    try:
        save_figure(None, name, alt=ALT)
    except ValueError:
        return  # refused before the figure is touched
    except AttributeError:  # None cannot be drawn: the name was accepted
        assert name == Path(name).name
        assert not set(name) & set("./\\ ")


def test_figures_go_to_the_learners_folder_unless_the_environment_says_otherwise(monkeypatch, tmp_path):
    assert plotting.figures_folder() == tmp_path / "figures"
    monkeypatch.delenv("KTO_FIGURES")
    assert plotting.figures_folder() == Path(plotting.__file__).resolve().parents[1] / "work" / "figures"


def test_the_style_gives_each_of_seven_curves_its_own_colour():
    use_course_style()
    cycle = list(plt.rcParams["axes.prop_cycle"])
    assert len({style["color"] for style in cycle}) == len(cycle) == 7
    for one, other in itertools.pairwise(cycle):
        assert one["linestyle"] != other["linestyle"]
    assert plt.rcParams["axes.grid"]
    assert plt.rcParams["figure.constrained_layout.use"]


def test_up_and_down_are_the_first_two_colours_and_differ_in_greyscale():
    use_course_style()
    cycle = [style["color"].upper() for style in plt.rcParams["axes.prop_cycle"]]
    assert [UP.strip("#"), DOWN.strip("#")] == [colour.strip("#") for colour in cycle[:2]]
    assert abs(lightness(UP) - lightness(DOWN)) > 0.05


def test_label_line_writes_the_text_beside_the_point():
    _, ax = plt.subplots()
    label_line(ax, 1.0, 2.0, "policy", color=UP, fontsize=9)
    (text,) = ax.texts
    assert (text.get_text(), text.xy, text.get_color(), text.get_fontsize()) == ("policy", (1.0, 2.0), UP, 9)
    assert text.xyann == (4, 0)


@pytest.fixture
def kto_drawing(monkeypatch):
    """The figure that `kto_picture` publishes, in the course's style."""
    use_course_style()
    shown = []
    monkeypatch.setattr(lesson_00, "publish", lambda fig, name, alt: shown.append(fig))
    lesson_00.kto_picture()
    (fig,) = shown
    return fig


def test_kto_picture_moves_liked_replies_right_and_disliked_ones_left(kto_drawing):
    (ax,) = kto_drawing.axes
    moves = [
        t
        for t in ax.texts
        if getattr(t, "arrow_patch", None) and t.arrow_patch.get_edgecolor()[:3] != to_rgb(NEUTRAL)
    ]
    colours = {move.arrow_patch.get_edgecolor()[:3]: [] for move in moves}
    for move in moves:
        colours[move.arrow_patch.get_edgecolor()[:3]].append(move.xy[0] - move.xyann[0])
    assert [shift > 0 for shift in colours[to_rgb(UP)]] == [True]
    assert [shift < 0 for shift in colours[to_rgb(DOWN)]] == [True, True]


def test_kto_picture_draws_one_thumb_up_and_two_down(kto_drawing):
    (ax,) = kto_drawing.axes
    fists = {to_rgb(UP): [], to_rgb(DOWN): []}
    for patch in ax.patches:
        if isinstance(patch, Polygon):
            heights = patch.get_xy()[:, 1]
            wrist = heights[0]
            fists[patch.get_facecolor()[:3]].append(heights.max() > wrist)
    assert fists == {to_rgb(UP): [True], to_rgb(DOWN): [False, False]}


def test_kto_picture_keeps_every_word_inside_the_figure(kto_drawing):
    kto_drawing.canvas.draw()
    frame = kto_drawing.bbox
    for text in kto_drawing.axes[0].texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0, text.get_text()
        assert box.x1 <= frame.x1, text.get_text()


def intervals(*medians):
    return [SimpleNamespace(median=m, low=m - 0.1, high=m + 0.05, values=(m - 0.2, m + 0.2)) for m in medians]


def test_intervals_are_drawn_where_they_are_and_methods_differ_without_colour():
    _, ax = plt.subplots()
    series = {"kto": intervals(0.5, 0.9), "kto weights 1": intervals(0.5, 0.1), "dpo": intervals(0.4, 0.2)}
    draw_intervals(ax, ["all", "half"], series, before=0.22)
    looks = set()
    for container, (_, points) in zip(ax.containers, series.items(), strict=True):
        line, _, (bars,) = container
        assert line.get_ydata() == pytest.approx([point.median for point in points])
        ends = [segment[:, 1] for segment in bars.get_segments()]
        assert [tuple(end) for end in ends] == [pytest.approx((p.low, p.high)) for p in points]
        looks.add((line.get_linestyle(), line.get_marker()))
    assert len(looks) == 3
    dots = sorted(y for line in ax.lines if line.get_marker() == "." for y in line.get_ydata())
    assert dots == pytest.approx(sorted(y for points in series.values() for point in points for y in point.values))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["all", "half"]
    assert any(line.get_ydata()[0] == 0.22 for line in ax.lines if line.get_linestyle() == ":")


def test_names_at_the_right_end_do_not_lie_on_top_of_each_other():
    fig, ax = plt.subplots()
    series = {"kto": intervals(0.5, 0.5), "kto weights 1": intervals(0.5, 0.5), "dpo": intervals(0.5, 0.51)}
    ax.set_ylim(0, 1)
    draw_intervals(ax, ["a", "b"], series)
    fig.canvas.draw()
    boxes = sorted((t.get_window_extent() for t in ax.texts if t.get_text() in series), key=lambda box: box.y0)
    assert len(boxes) == 3
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_plotting_imports_nothing_of_the_course_and_no_torch():
    tree = ast.parse(Path(plotting.__file__).read_text(encoding="utf-8"))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} == {"os", "pathlib", "matplotlib"}
