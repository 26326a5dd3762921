"""What is run, with which settings, and what is expected; committed before the three seeds were run. Lesson 12c.

Seen before: trials on the same model with other wordings. A judge of brevity alone took brief replies from 0.16 to 1.00
in 40 steps while right answers fell; SFT on the thumbs-up moved less and kept them. The wording was chosen on the
trained countries among six, since about a quarter of its replies get a thumbs-up. One trial of KTO with this protocol
(seed 99, 40 steps) took held-out thumbs-up from 0.21 to 0.80 and right answers from 0.34 to 0.80. The steps were then
cut to 24, so that all runs fit a laptop's evening. Beta and rate are those of the first trial; nothing else was tried.
"""

from dataclasses import dataclass

SEEDS = (3, 4, 5)
SAMPLES = 4  # replies to each trained question: 32 * 4 = 128 thumbs
CHECKED = 6  # replies to each held-out question: 16 * 6 = 96 judged replies
KL_SAMPLES = 4  # replies to each held-out question at temperature 1, where sampling measures the KL without bias
TEMPERATURE = 0.7
MAX_NEW_TOKENS = 48
FACT_TOKENS = 32
BETA, STEPS, BATCH_SIZE, LEARNING_RATE = 0.1, 24, 8, 1e-5
RATIO = 4 / 3  # n_up * desirable_weight / (n_down * undesirable_weight), the middle of the recommended band
SFT_TERM = 1.0


@dataclass(frozen=True)
class Method:
    """One way from the same 128 replies to a policy.

    Fields:
        loop: "sft", "kto" or "dpo".
        judge: a name of `questions.JUDGES`, who gives the thumbs.
        sft_term: the weight of the SFT term on the batch's own thumbs-up.
        title: how tables call it.
    """

    loop: str
    title: str
    judge: str = "right and brief"
    sft_term: float = 0.0


METHODS = {
    "sft": Method("sft", "SFT on the thumbs-up"),
    "kto": Method("kto", "KTO"),
    "dpo": Method("dpo", "DPO on the pairs there are"),
    "kto_sft": Method("kto", "KTO + SFT term", sft_term=SFT_TERM),
    "kto_brief": Method("kto", "KTO, judge of brevity alone", judge="brief"),
}

EXPECTED = {
    "thumbs": "KTO ends with a higher thumbs-up rate on held-out countries than the chat model it started from.",
    "baseline": "KTO ends with a higher thumbs-up rate than SFT on the thumbs-up.",
    "hacked": "With a judge of brevity alone KTO ends with fewer right replies than with a judge of both.",
    "moved": "KTO ends at a larger KL from the chat model than SFT.",
    "cost": "KTO knows fewer of the 100 facts afterwards than the chat model it started from.",
    "rope": "The SFT term leaves KTO at a smaller KL.",
}
