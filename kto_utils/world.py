"""The small world: 32 facts, six ways to reply, a simulated human whose taste is known. Lessons 00 and 07.

Every question has 48 possible replies (6 templates x the 8 answers of its kind), so a model's thumbs-up rate
is a sum over 48 probabilities and no estimate. Torch is not needed here.
"""

import random
from dataclasses import dataclass

from kto_utils.data import format_prompt

# kind -> (two wordings, {thing: right answer}). Within a kind every answer can be given to every question.
FACTS = {
    "colour": (
        ("What colour is {}?", "Tell me the colour of {}."),
        {
            "the sky": "blue", "a sapphire": "blue", "grass": "green", "a frog": "green",
            "a banana": "yellow", "a lemon": "yellow", "snow": "white", "milk": "white",
            "a tomato": "red", "a ruby": "red", "coal": "black", "a raven": "black",
            "a carrot": "orange", "a pumpkin": "orange", "chocolate": "brown", "a walnut": "brown",
        },
    ),
    "capital": (
        ("What is the capital of {}?", "Which city governs {}?"),
        {
            "France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Egypt": "Cairo",
            "Norway": "Oslo", "Peru": "Lima", "Kenya": "Nairobi", "Canada": "Ottawa",
        },
    ),
    "sound": (
        ("What sound does {} make?", "Which noise comes from {}?"),
        {
            "a cow": "moo", "a dog": "woof", "a cat": "meow", "a duck": "quack",
            "a lion": "roar", "a sheep": "baa", "an owl": "hoot", "a snake": "hiss",
        },
    ),
}  # fmt: skip

# A completion starts with a blank, since the prompt ends in "ASSISTANT:".
POLITE = (" It is {}. Happy to help!", " Good question! The answer is {}.", " That would be {}, my friend.")
RUDE = (" It is {}. Even a child knows that.", " Obviously {}. Stop wasting my time.", " Are you serious? It is {}.")

# No thumb is ever given to these in the feedback phase; the reference model has seen them like all others.
UNTOUCHED = frozenset({"a sapphire", "a lemon", "a tomato", "coal", "Italy", "Kenya", "a cat", "an owl"})


@dataclass(frozen=True)
class Question:
    """One wording of one fact. `text` is what the user types, `prompt` the same inside the template."""

    text: str
    kind: str
    thing: str
    answer: str

    @property
    def prompt(self) -> str:
        return format_prompt(self.text)


@dataclass(frozen=True)
class Reply:
    """One possible reply: its text (with the leading blank), the answer it gives, and what it is."""

    text: str
    answer: str
    polite: bool
    right: bool

    @property
    def thumbs_up(self) -> bool:
        return self.polite and self.right


def _questions(wording: int) -> list[Question]:
    return [
        Question(wordings[wording].format(thing), kind, thing, answer)
        for kind, (wordings, answers) in FACTS.items()
        for thing, answer in answers.items()
    ]


def trained_questions() -> list[Question]:
    """The 24 questions that users ask in the feedback phase (first wording)."""
    return [q for q in _questions(0) if q.thing not in UNTOUCHED]


def reworded_questions() -> list[Question]:
    """Held out: the same 24 facts in their second wording, which gets no thumbs."""
    return [q for q in _questions(1) if q.thing not in UNTOUCHED]


def untouched_questions() -> list[Question]:
    """Held out: 8 facts (first wording). No thumb covers them: a change in "right" is a side effect, not knowledge."""
    return [q for q in _questions(0) if q.thing in UNTOUCHED]


def all_questions() -> list[Question]:
    """All 64 questions: 32 facts in two wordings each. The reference model has seen all of them."""
    return _questions(0) + _questions(1)


def answers(kind: str) -> list[str]:
    """The eight answers that occur for a kind of question ("colour", "capital" or "sound").

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in FACTS:
        raise ValueError(f"kind is {kind!r}; it must be one of {sorted(FACTS)}")
    return list(dict.fromkeys(FACTS[kind][1].values()))


def replies(question: Question) -> list[Reply]:
    """Every possible reply to a question: 6 templates x 8 answers = 48, in a fixed order, none twice."""
    return [
        Reply(template.format(answer), answer, polite, answer == question.answer)
        for templates, polite in ((POLITE, True), (RUDE, False))
        for template in templates
        for answer in answers(question.kind)
    ]


def find_reply(question: Question, text: str) -> Reply | None:
    """The listed reply with this text (blanks around it do not matter), or None for any other text."""
    by_text = {reply.text.strip(): reply for reply in replies(question)}
    return by_text.get(text.strip())


# What a rater likes, given (polite, right). The course's human is "polite and right".
TASTES = {
    "polite and right": lambda polite, right: polite and right,
    "polite": lambda polite, right: polite,
    "right": lambda polite, right: right,
    "rude and right": lambda polite, right: right and not polite,
}


def judge(
    question: Question,
    reply: str,
    noise: float = 0.0,
    taste: str = "polite and right",
    rng: random.Random | None = None,
) -> bool:
    """The simulated human: thumbs up (True) only for a reply that is polite and right.

    Args:
        question: what was asked.
        reply: the model's text. Anything that is not one of the listed replies gets thumbs down.
        noise: chance in [0, 1] that the thumb is flipped.
        taste: a key of `TASTES`, for raters who want something else.
        rng: draws the flips; needed when noise is above 0.

    Raises:
        TypeError: reply is no string.
        ValueError: noise outside [0, 1], noise without rng, an unknown taste.
    """
    if not isinstance(reply, str):
        raise TypeError(f"reply is a {type(reply).__name__}; it must be the text of one reply")
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"noise is {noise}; it is a probability between 0 and 1")
    if taste not in TASTES:
        raise ValueError(f"taste is {taste!r}; it must be one of {sorted(TASTES)}")
    found = find_reply(question, reply)
    thumb = found is not None and bool(TASTES[taste](found.polite, found.right))
    if noise > 0.0:
        if rng is None:
            raise ValueError("noise needs rng, a random.Random with a seed, so that the thumbs can be repeated")
        thumb ^= rng.random() < noise
    return thumb


def draw_reply(question: Question, rng: random.Random, polite: float = 0.5, right: float = 0.5) -> Reply:
    """One random listed reply: polite with this chance and, independently, right with that one."""
    templates = POLITE if rng.random() < polite else RUDE
    if rng.random() < right:
        answer = question.answer
    else:
        answer = rng.choice([a for a in answers(question.kind) if a != question.answer])
    return find_reply(question, rng.choice(templates).format(answer))


def sft_rows(n_per_question: int, seed: int) -> list[dict]:
    """Texts for supervised fine-tuning: every question with random replies, shuffled. No thumbs in them.

    Returns:
        64 * n_per_question dicts with `prompt` and `completion`.
    """
    rng = random.Random(seed)
    rows = [
        {"prompt": question.prompt, "completion": draw_reply(question, rng).text}
        for question in all_questions()
        for _ in range(n_per_question)
    ]
    rng.shuffle(rows)
    return rows


def corpus() -> list[str]:
    """Every sentence of the world once: what the tokenizer is trained on."""
    texts = []
    for question in all_questions():
        texts.append(question.prompt)
        texts += [reply.text for reply in replies(question)]
    return texts
