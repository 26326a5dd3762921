"""The printable interview sheet."""

from collections.abc import Callable, Sequence

from kto_course.handouts.wording import (
    choice_list,
    follow_up_list,
    mathml,
    red_flag_list,
    right_answer,
    to_html,
    to_inline_html,
)
from kto_course.questions import Question

TOPICS = {
    "prospect_theory": "Prospect theory", "model": "The model", "tokens": "Tokens", "batches": "Batches",
    "logprobs": "Log-probabilities", "loss": "The loss", "reference_point": "The reference point",
    "training": "Training", "dpo": "DPO", "halos": "HALOs", "alignment": "Alignment", "data": "Data",
    "engineering": "Engineering", "evidence": "Evidence",
}  # fmt: skip
SHEET_CSS = """
@page { size: A4; margin: 15mm 14mm; }
body { font: 10pt/1.4 "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; color: #000; max-width: 190mm; margin: 0 auto;
  padding: 0 4mm; }
h1 { font-size: 18pt; margin: 0.5em 0; } h2 { font-size: 14pt; border-bottom: 1.5pt solid #000; margin: 1.2em 0 0.6em; }
h3 { font-size: 11pt; margin: 1.2em 0 0.4em; border-bottom: 0.5pt solid #666; break-after: avoid; }
h4 { font-size: 1em; margin: 0 0 0.3em; break-after: avoid; }
p, ul { margin: 0.3em 0; } ul { padding-left: 1.3em; } a { color: inherit; }
pre { font-size: 8pt; line-height: 1.3; white-space: pre-wrap; border: 0.5pt solid #999; padding: 2mm; margin: 0.4em 0;
  break-inside: avoid; }
code { font-family: "DejaVu Sans Mono", Consolas, Menlo, monospace; font-size: 90%; }
math { font-size: 105%; } math[display="block"] { margin: 0.4em 0; }
.asked { display: grid; grid-template-columns: 2.2em 1fr 12em; gap: 0 0.6em; padding: 0.35em 0; break-inside: avoid;
  border-bottom: 0.3pt solid #bbb; }
.mark { text-align: right; white-space: nowrap; } .small { font-size: 8.5pt; color: #444; }
.asked p:first-child { margin-top: 0; }
#answers { break-before: page; }
article { margin-bottom: 1.1em; } article > .small { margin-top: 0.4em; }
@media print { body { max-width: none; padding: 0; font-size: 9pt; } #answers .columns { columns: 2; column-gap: 7mm; }
  pre { font-size: 6.8pt; } a { text-decoration: none; } }
"""


def _asked(number: int, question: Question) -> str:
    text = to_html(f"{question.question}\n\n{choice_list(question)}", mathml)
    place = f"lesson {question.lesson} · difficulty {question.difficulty}"
    boxes = '<span aria-label="mark: 0, 1 or 2 points">☐ 0 &nbsp; ☐ 1 &nbsp; ☐ 2</span>'
    return (
        f'<div class="asked" id="q{number}"><a href="#a{number}">{number}</a><div>{text}</div>'
        f'<div class="mark">{boxes}<br><span class="small">{place}</span></div></div>'
    )


def _answered(number: int, question: Question) -> str:
    title = to_inline_html(question.question.split("\n\n")[0], mathml)
    parts = [
        right_answer(question),
        f"**30 seconds.** {question.short}",
        f"**3 minutes.** {question.long}",
        follow_up_list(question),
        f"**Often heard, and wrong:**\n\n{red_flag_list(question)}",
    ]
    body = to_html("\n\n".join(part for part in parts if part), mathml)
    source = to_inline_html(question.source, mathml)
    place = f"Lesson {question.lesson}, {to_inline_html(question.section, mathml)}. Source: {source}."
    return (
        f'<article id="a{number}"><h4><a href="#q{number}">{number}</a> &nbsp;{title}</h4>\n{body}\n'
        f'<p class="small">{place}</p></article>'
    )


def interview_sheet(questions: Sequence[Question]) -> str:
    """The sheet as one HTML page: no script, nothing from elsewhere; first all questions, then all answers."""
    groups: dict[str, list[tuple[int, Question]]] = {}
    order = list(TOPICS)
    for number, question in enumerate(sorted(questions, key=lambda q: (order.index(q.topic), q.difficulty)), 1):
        groups.setdefault(question.topic, []).append((number, question))

    def section(entry: Callable[[int, Question], str]) -> str:
        return "\n".join(
            f"<h3>{TOPICS[topic]}</h3>\n" + "\n".join(entry(number, question) for number, question in group)
            for topic, group in groups.items()
        )

    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>KTO from Scratch: interview sheet</title>
<style>{SHEET_CSS}</style>
</head>
<body>
<h1>KTO from Scratch: interview sheet</h1>
<p>Candidate ______________________ &nbsp; Interviewer ______________________ &nbsp; Date ______________</p>
<p>{len(questions)} questions; the numbers lead to the answers in the second part. Ask, wait, then ask on. Marks: 0 for
a red flag or no answer, 1 for the short answer, 2 for the short answer with its reason or its limit.</p>
<section id="questions">
<h2>Questions</h2>
{section(_asked)}
</section>
<section id="answers">
<h2>Answers</h2>
<div class="columns">
{section(_answered)}
</div>
</section>
</body>
</html>
"""
