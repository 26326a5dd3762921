"""What can be wrong with an answer: the fault that a checker raises, and hints for the faults of any exercise."""

import threading
from typing import Any

# Hints for what can go wrong in any exercise. An exercise may define its own for the same fault.
GENERIC_HINTS = {
    "raised": (
        "Your code stopped with an error. Read its last line: which value is not what you thought?",
        "Print the shapes and types just before that line, with the input above.",
        "Run your function by hand on the input above and go through it line by line.",
    ),
    "type": (
        "The type is not the one asked for. What should come back?",
        "Look at the last line: what does it return, and what does the task ask for?",
    ),
    "shape": (
        "The shape is not the one asked for. Which axis is too much, or missing?",
        "Write the shape behind each line as a comment. At which line does it part from what you expected?",
    ),
    "nan": (
        "There is a NaN, 'not a number'. It comes from 0 * inf, inf - inf, 0 / 0 or log of a negative number.",
        "Find the first line whose result holds a NaN. What goes into it?",
    ),
    "values": (
        "The numbers are not right yet. Work out the input above by hand: at which step do you part?",
        "Compare with the formula in the task, term by term: signs, order, what is summed and over what.",
    ),
    "dtype": (
        "The number type is not the one asked for. Where is it changed?",
        "A result has the type of its input, unless the task says otherwise: look for .float(), torch.tensor(...).",
    ),
    "timeout": (
        "This takes too long. Is there a loop that never ends?",
        "What changes from one round of your loop to the next, and when does its condition become false?",
    ),
    "changed_arguments": (
        "Your function changes what it was given. The caller may need it later.",
        "Look for methods ending in _ and for assignments such as x[...] = ... or x += ...; work on a copy.",
    ),
    "no_gradient": (
        "No gradient reaches the input. Something cuts the way back.",
        "Look for .detach(), .item(), float(...), torch.tensor(...) or no_grad() between input and result.",
    ),
    "gradient": (
        "The values are right, the gradient is not. What is treated as a constant, and what must be?",
        "Look for .detach(), where it stands and where it is missing.",
    ),
    "choice": (
        "That is none of the choices.",
        "Write one of the letters in quotes, for example answer = \"a\".",
    ),
    "open": (
        "Nothing came back. If you have written it: is the `return` missing?",
        "The last line of a function hands its result back with `return`.",
    ),
    "unread": (
        "Python could not read the cell with your answer (SyntaxError), so an older one would be judged here.",
        "Mend the line that the message names, run the cell, then this one.",
    ),
    "ours": (
        "That is the package's own function. Write yours; afterwards the lesson goes on with it.",
        "The exercise asks for the function's body, not for an import.",
    ),
    "checker": (
        "The check itself could not cope with this answer. Your code may still be right.",
        "Compare with our solution, and tell us.",
    ),
}  # fmt: skip


last_call = threading.local()  # what the last `call` of this thread tried, and where its prints go


class Fault(Exception):
    """What is wrong with an answer.

    Args:
        fault: the fault's id; a key of the exercise's hints or of GENERIC_HINTS.
        tried: what was tried, in words or code; None means the last `call`, "" shows nothing.
        got: what came out, any value; a str is shown as it is.
        expected: what should have come out, likewise; None shows nothing (where it would give the answer away).
    """

    def __init__(self, fault: str, tried: str | None = None, got: Any = None, expected: Any = None):
        super().__init__(fault)
        self.fault, self.got, self.expected = fault, got, expected
        self.tried = tried if tried is not None else getattr(last_call, "tried", "")


class Open(Exception):
    """The exercise was not begun: the answer is None or `...`, or the function returns that."""
