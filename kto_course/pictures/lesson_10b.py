"""The pictures of notebook 10b."""

from collections.abc import Mapping

from kto_course.pictures.lesson_10 import hang


def own_exhibit(run: Mapping) -> None:
    """The log of a run of your own over the healthy one: loss, kl, both rewards, gradient norm.

    Args:
        run: the record of `museum.train`.
    """
    hang(run, "10b_own_exhibit")
