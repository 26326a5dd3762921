"""The famous faults of KTO code, each a few changed words in this package. Lesson 10 shows them, the tests catch them.

A mutant is a list of edits of real source lines. `applied` compiles the edited function and lends its code to the
original for the length of a `with` block, so every caller in the process sees the fault.
"""

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType


@dataclass(frozen=True)
class Edit:
    """One change of the source: in `function` (such as "losses.kto_loss"), the text `correct` becomes `faulty`."""

    function: str
    correct: str
    faulty: str


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Fields:
        name: short, e.g. "no_shift".
        fault: what was done, in one sentence.
        edits: the changed words.
        caught_by: tests that fail under it ("file.test"); `tests/test_mutants.py` holds them to it.
        rows: which data the museum trains it on, "thumbs" or "pairs".
    """

    name: str
    fault: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]
    rows: str = "thumbs"


def _function(path: str) -> FunctionType:
    module, *names = path.split(".")
    found = importlib.import_module(f"kto_utils.{module}")
    for name in names:
        found = getattr(found, name)
    return found


def faulty_source(edits: tuple[Edit, ...] | list[Edit]) -> str:
    """The source of one function after its edits, which must all name that function.

    Raises:
        ValueError: a text to be replaced does not stand exactly once in the function: the code has moved on and the
            mutant must follow.
    """
    source = textwrap.dedent(inspect.getsource(_function(edits[0].function)))
    for edit in edits:
        times = source.count(edit.correct)
        if times != 1:
            raise ValueError(
                f"{edit.correct!r} stands {times} times in {edit.function}, expected once; the mutant must follow "
                "the code"
            )
        source = source.replace(edit.correct, edit.faulty)
    return source


def _compiled(path: str, edits: list[Edit]) -> FunctionType:
    original = _function(path)
    namespace: dict = {}
    code = compile(faulty_source(edits), f"<mutant of {path}>", "exec")
    exec(code, original.__globals__ | {"__name__": original.__module__}, namespace)
    return namespace[path.rsplit(".", 1)[-1]]


@contextlib.contextmanager
def applied(mutant: Mutant | None) -> Iterator[None]:
    """Within the block the package has this fault; None leaves it as it is. Not for several threads at once.

    Raises:
        ValueError: as `faulty_source`.
    """
    by_function: dict[str, list[Edit]] = {}
    for edit in mutant.edits if mutant else ():
        by_function.setdefault(edit.function, []).append(edit)
    parts = ("__code__", "__defaults__", "__kwdefaults__")
    faulty = {path: _compiled(path, edits) for path, edits in by_function.items()}
    saved = {path: [getattr(_function(path), part) for part in parts] for path in faulty}
    try:
        for path, function in faulty.items():
            for part in parts:
                setattr(_function(path), part, getattr(function, part))
        yield
    finally:
        for path, values in saved.items():
            for part, value in zip(parts, values, strict=True):
                setattr(_function(path), part, value)


def diff(mutant: Mutant) -> str:
    """The edits as a reader of code reviews knows them: lines with - are correct, lines with + have the fault."""
    lines = []
    for edit in mutant.edits:
        lines.append(f"  {edit.function}")
        lines += [f"- {line}" for line in edit.correct.splitlines()]
        lines += [f"+ {line}" for line in edit.faulty.splitlines()]
    return "\n".join(lines)


SCORING = "token_logps(model, input_ids, attention_mask, label_mask).sum(-1)"
KTO_ARGUMENT = "torch.sigmoid(-sign * beta * (logratio - z0.reshape(())))"

MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "no_shift",
            "Logits are compared with the token at their own place instead of the next one.",
            (
                Edit(
                    "logprobs._shifted",
                    "targets, scored = labels[:, 1:].long(), mask[:, 1:].bool()",
                    "targets, scored = labels[:, :-1].long(), mask[:, :-1].bool()",
                ),
            ),
            (
                "test_properties.test_p21_logits_that_know_the_next_token_score_zero_and_unshifted_ones_far_below",
                "test_trl.test_trl_b_sequence_log_probabilities_agree[plain]",
            ),
        ),
        Mutant(
            "batch_mask_sum",
            "Each log-probability is divided by the number of completion tokens in the whole batch.",
            (Edit("logprobs.sequence_logps", SCORING, SCORING + " / label_mask.sum()"),),
            (
                "test_properties.test_p26_the_score_of_a_row_does_not_depend_on_its_batch",
                "test_trl.test_trl_b_sequence_log_probabilities_agree[plain]",
            ),
        ),
        Mutant(
            "mean_of_tokens",
            "Each completion's log-probability is averaged over its tokens instead of summed.",
            (Edit("logprobs.sequence_logps", SCORING, SCORING + " / label_mask.sum(-1)"),),
            (
                "test_properties.test_p27_log_ratios_of_two_parts_add_up_to_that_of_the_whole",
                "test_trl.test_trl_b_sequence_log_probabilities_agree[plain]",
            ),
        ),
        Mutant(
            "loss_per_token",
            "The sigmoid is applied to every cell of the (B, T) table, padding and prompt included, then averaged.",
            (
                Edit("logprobs.sequence_logps", ".sum(-1)", ".flatten()"),
                Edit(
                    "train.train_kto",
                    "        policy_logps = run.logps(score_policy, batch)\n",
                    "        policy_logps = run.logps(score_policy, batch)\n"
                    '        batch["label"] = batch["label"].repeat_interleave(batch["input_ids"].shape[1] - 1)\n',
                ),
            ),
            (
                "test_properties.test_p36_a_step_of_train_kto_costs_what_both_printed_forms_say_by_hand",
            ),
        ),
        Mutant(
            "prompt_scored",
            "The prompt's tokens are scored like the completion's.",
            (Edit("logprobs.sequence_logps", SCORING, SCORING.replace("label_mask", "attention_mask")),),
            (
                "test_properties.test_p23_only_the_logits_from_the_prompts_last_place_to_the_one_before_eos_count",
                "test_trl.test_trl_b_sequence_log_probabilities_agree[plain]",
            ),
        ),
        Mutant(
            "eos_unscored",
            "Every eos token is masked, as happens where pad is set equal to eos and pads are masked by their id.",
            (
                Edit("logprobs._shifted", "mask[:, 1:].bool()", "mask[:, 1:].bool() & (labels[:, 1:] != 2)"),
            ),
            (
                "test_properties.test_p24_the_completion_and_eos_are_scored_and_nothing_else",
            ),
        ),
        Mutant(
            "padding_scored",
            "The padding behind a short reply is scored like the reply.",
            (
                Edit(
                    "logprobs.sequence_logps",
                    SCORING,
                    SCORING.replace("label_mask", "label_mask + 1 - attention_mask"),
                ),
            ),
            (
                "test_properties.test_p25_more_padding_changes_neither_scores_nor_loss_nor_gradients",
            ),
        ),
        Mutant(
            "independent_reference",
            "The reference is another, untrained model instead of a copy of the policy.",
            (
                Edit(
                    "model.reference_of",
                    "    return copy.deepcopy(policy)",
                    "    sizes = policy.config\n"
                    "    stranger = tiny_llama(\n"
                    "        sizes.vocab_size, sizes.hidden_size, sizes.intermediate_size, sizes.num_hidden_layers,\n"
                    "        sizes.num_attention_heads, seed=1,\n"
                    "    )\n"
                    "    return to_float64(stranger)",
                ),
            ),
            (
                "test_properties.test_p01_the_first_step_of_train_kto_costs_half_the_mean_weight",
                "test_properties.test_p30_the_reference_is_a_frozen_copy_that_shares_no_memory",
            ),
        ),
        Mutant(
            "reference_is_policy",
            "The reference is the policy itself, scored anew at each step under no_grad, so it moves along.",
            (
                Edit("model.reference_of", "copy.deepcopy(policy).requires_grad_(False).eval()", "policy.eval()"),
                Edit("train.train_kto", "    check_reference(policy, reference)\n", ""),
            ),
            (
                "test_properties.test_p30_the_reference_is_a_frozen_copy_that_shares_no_memory",
            ),
        ),
        Mutant(
            "reference_not_detached",
            "The reference is the policy itself, scored anew at each step, and its log-probabilities carry a gradient.",
            (
                Edit("model.reference_of", "copy.deepcopy(policy).requires_grad_(False).eval()", "policy.eval()"),
                Edit("train.train_kto", "    check_reference(policy, reference)\n", ""),
                Edit("train.train_kto", "with torch.no_grad():", "with torch.enable_grad():"),
            ),
            (
                "test_properties.test_p30_the_reference_runs_without_a_graph_and_both_without_dropout",
            ),
        ),
        Mutant(
            "gradient_through_z0",
            "Nothing stops the gradient at the reference point.",
            (
                Edit("losses.reference_point", ".clamp(min=0).detach()", ".clamp(min=0)"),
                Edit("losses.kto_loss", "device=policy_logps.device).detach()", "device=policy_logps.device)"),
                Edit("train.train_kto", "with torch.no_grad():", "with torch.enable_grad():"),
            ),
            (
                "test_properties.test_p06_gradients_are_those_of_a_constant_z0",
                "test_trl.test_trl_f_no_gradient_flows_through_the_reference_point",
            ),
        ),
        Mutant(
            "matched_z0",
            "The reference point is taken from the rows' own completions instead of mismatched ones.",
            (Edit("collator.KTOPaddingCollator.__call__", "pad_rows(mismatched(examples), ", "pad_rows(examples, "),),
            (
                "test_properties.test_p11_no_row_keeps_its_own_completion_and_none_is_lost_for_any_batch_size",
                "test_trl.test_trl_a_collated_batches_agree_field_by_field[plain]",
            ),
        ),
        Mutant(
            "clamp_before_mean",
            "Each row's log-ratio is clamped at 0, then averaged.",
            (Edit("losses.reference_point", ".mean().clamp(min=0)", ".clamp(min=0).mean()"),),
            (
                "test_properties.test_p07_the_reference_point_is_the_mean_and_then_clamped_at_0",
            ),
        ),
        Mutant(
            "no_clamp",
            "The mean of the mismatched log-ratios is used as it is, also when negative.",
            (Edit("losses.reference_point", ".clamp(min=0)", ""),),
            (
                "test_properties.test_p07_a_negative_mean_gives_the_loss_of_z0_0",
            ),
        ),
        Mutant(
            "reversed_completions",
            "The batch's completions are reversed instead of rotated: the middle row of an odd batch keeps its own.",
            (Edit("collator.mismatched", "examples[i - 1]", "examples[-1 - i]"),),
            (
                "test_properties.test_p11_no_row_keeps_its_own_completion_and_none_is_lost_for_any_batch_size",
            ),
        ),
        Mutant(
            "one_sided_batches",
            "Pairs become a block of all chosen replies and a block of all rejected ones, and nobody shuffles.",
            (
                Edit(
                    "data.unpair",
                    "random.Random(seed).shuffle(rows)",
                    'rows.sort(key=lambda row: not row["label"])',
                ),
                Edit(
                    "train.Batches.draw",
                    "torch.randperm(self.n_rows, generator=self.generator).tolist()",
                    "list(range(self.n_rows))",
                ),
            ),
            (
                "test_properties.test_p39_batches_of_unpaired_and_of_sorted_rows_are_mixed",
            ),
            rows="pairs",
        ),
        Mutant(
            "both_weights_1",
            "Both weights stay 1 although most thumbs point down.",
            (
                Edit(
                    "losses.balanced_weights",
                    "return desirable_over_undesirable, 1.0",
                    "return 1.0, 1.0",
                ),
            ),
            (
                "test_properties.test_p37_balanced_weights_of_the_papers_bands",
            ),
        ),
        Mutant(
            "beta_twice",
            "Beta is multiplied in twice, as happens where rewards that hold beta go into a loss that applies it.",
            (Edit("losses.kto_loss", KTO_ARGUMENT, KTO_ARGUMENT.replace("* beta *", "* beta * beta *")),),
            (
                "test_properties.test_p08_z0_is_in_nats_and_beta_is_applied_once",
                "test_trl.test_trl_d_loss_of_the_same_log_probabilities_and_kl_agrees[plain]",
            ),
        ),
        Mutant(
            "beta_beside_z0",
            "Beta multiplies the log-ratio alone, and the reference point is subtracted in raw nats.",
            (Edit("losses.kto_loss", KTO_ARGUMENT, "torch.sigmoid(-sign * (beta * logratio - z0.reshape(())))"),),
            (
                "test_properties.test_p08_z0_is_in_nats_and_beta_is_applied_once",
            ),
        ),
        Mutant(
            "log_sigmoid",
            "The row loss is -log sigmoid, as in DPO, instead of 1 - sigmoid.",
            (Edit("losses.kto_loss", KTO_ARGUMENT, "-F.logsigmoid(sign * beta * (logratio - z0.reshape(())))"),),
            (
                "test_properties.test_p05_each_loss_lies_between_0_and_its_weight",
                "test_properties.test_p18_both_tails_of_kto_vanish_where_dpo_keeps_pushing",
            ),
        ),
        Mutant(
            "learning_rate_too_high",
            "The learning rate is a thousand times too high.",
            (Edit("train.train_kto", '"learning_rate": 3e-4', '"learning_rate": 3e-1'),),
            (
                "test_properties.test_p17_the_default_learning_rate_of_train_kto_leaves_gradient_alive",
            ),
        ),
        Mutant(
            "thumbs_down_rewarded",
            "Thumbs down go through the branch of thumbs up, so disliked replies are pushed up too.",
            (Edit("losses.kto_loss", "sign = 2.0 * up - 1.0", "sign = torch.ones_like(up)"),),
            (
                "test_properties.test_p03_the_gradient_has_the_sign_of_the_label_alone",
            ),
        ),
    )
}
