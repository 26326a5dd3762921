"""The pictures of the lessons, one call each: `from kto_course.pictures import lesson_06 as pictures`.

A picture is drawn from the numbers that the lesson hands over, so it shows what the learner's own run gave. Where
drawing is the lesson (the value functions of 01, one plot of each kind later) the code stands in the lesson instead.
"""

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import display

from kto_utils.plotting import save_figure


def publish(fig, name: str, alt: str) -> None:
    """Saves a figure under `name` and shows it, once, with its alt text. Arguments as of `plotting.save_figure`."""
    save_figure(fig, name, alt)
    if get_ipython() is not None:
        display(fig, metadata={"image/png": {"alt": " ".join(alt.split())}})
    plt.close(fig)
