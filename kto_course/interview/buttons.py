"""A sitting in JupyterLab: its text, and buttons for the next rung and for the rating."""

from kto_course.interview.cards import RUNGS, rung_text
from kto_course.interview.session import RATINGS, Session


def panel(session: Session):
    """The session as an ipywidgets box: text, one button for the next rung, four for the rating. No Output widget."""
    import ipywidgets
    from nbconvert.filters import markdown2html

    text = ipywidgets.HTMLMath()
    time = ipywidgets.HTML()
    onward = ipywidgets.Button(layout=ipywidgets.Layout(width="auto"), button_style="primary")
    rates = [ipywidgets.Button(description=f"{i}: {name}") for i, name in enumerate(RATINGS)]
    noted: list[str] = []

    def redraw():
        rungs = [rung_text(session.current, rung) for rung in range(session.rungs)]
        text.value = "".join(markdown2html(part) for part in (*noted, session.question(), *rungs))
        time.value = f"<small>{session.time_used()}, {len(session.ratings)} of {len(session.questions)} rated</small>"
        over = session.current is None
        onward.disabled = over or session.rungs == len(RUNGS)
        following = RUNGS[min(session.rungs, len(RUNGS) - 1)]
        onward.description = "Done" if over else f"Show: {following[0].lower()}{following[1:]}"
        for button in rates:
            button.disabled = over or session.rungs == 0

    def next_rung(_):
        session.answer()
        redraw()

    def rated(rating):
        if session.rungs:  # else somebody called session.rate() meanwhile: show where it stands
            noted[:] = [session.rate(rating)]
        redraw()

    onward.on_click(next_rung)
    for i, button in enumerate(rates):
        button.on_click(lambda _, rating=i: rated(rating))
    redraw()
    return ipywidgets.VBox([time, text, onward, ipywidgets.HBox(rates)])
