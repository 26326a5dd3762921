"""The layouts in which chat feedback is stored, read into the one that TRL calls conversational. Lesson 12.

    {"prompt": [...], "completion": [...], "label": True}      what TRL calls conversational
    {"messages": [..., the reply], "label": True}              also as `conversations`, also with `kto_tag`
    {"conversations": [{"from": "human", "value": ...}, ...], "kto_tag": True}      LLaMA-Factory
    {"prompt": [...], "chosen": [...], "rejected": [...]}      pairs; the prompt also as `messages`, `conversations`
    {"chosen": [...], "rejected": [...]}                       pairs that both begin with the prompt
    {"prompt": "text", "completion": "text", "label": True}    texts, and pairs of texts

A message is a dict with `role` and `content`. Any other layout is refused: a guess would train on the wrong tokens.
Needs nothing of the course, as all that lies in this folder: copy the folder anywhere.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

ROLES = ("system", "developer", "user", "assistant", "tool")
LLAMA_FACTORY = {"system": "system", "human": "user", "gpt": "assistant", "observation": "tool"}
TURNS, LABELS = ("messages", "conversations"), ("label", "kto_tag")
PASSED_ON = ("tools", "chat_template_kwargs")  # the template reads them
# Marks of common templates, for texts rendered by another model's template than the tokenizer's own.
MARKS = re.compile(r"<\|\w+\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")


def special_names(tokenizer) -> list[str]:
    """The texts of the tokenizer's special tokens, the longest first."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted({*added, *tokenizer.all_special_tokens} - {""}, key=lambda name: (-len(name), name))


def pattern_of(names: Sequence[str]) -> re.Pattern:
    """Finds any of these names; without names nothing."""
    return re.compile("|".join(map(re.escape, names)) or r"(?!)")


def _message(message: object, name: str) -> dict:
    if not isinstance(message, Mapping):
        raise TypeError(f"{name} holds a {type(message).__name__}; a message is a dict with role and content")
    if "from" in message and "role" not in message:
        role = message["from"]
        if role not in LLAMA_FACTORY:
            raise ValueError(f"{name} has a message from {role!r}; known are {', '.join(LLAMA_FACTORY)}")
        return {"role": LLAMA_FACTORY[role], "content": _content(message.get("value"), name)}
    if message.get("role") not in ROLES:
        raise ValueError(f"{name} has a message with role {message.get('role')!r}; known are {', '.join(ROLES)}")
    if message.get("content") is None and message.get("tool_calls"):
        return dict(message)
    return {**message, "content": _content(message.get("content"), name)}


def _content(content: object, name: str) -> str:
    if not isinstance(content, str):
        parts = "; join its text parts first, pictures cannot be used" if isinstance(content, list) else ""
        raise TypeError(f"{name} has a message whose content is a {type(content).__name__}; it must be a string{parts}")
    return content


def messages_of(value: object, name: str) -> list[dict]:
    """The messages of a field, with `role` and `content`; one message alone is a list of one.

    Raises:
        TypeError, ValueError: no list of messages, an unknown role, a content that is no string.
    """
    value = [value] if isinstance(value, Mapping) else value
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a list of messages with role and content")
    if not value:
        raise ValueError(f"{name} is an empty list; it needs at least one message")
    return [_message(message, name) for message in value]


def _check_prompt(prompt: Sequence[Mapping]) -> None:
    if not prompt:
        raise ValueError("there is no message before the reply; a row needs what was asked")
    if prompt[-1]["role"] == "assistant":
        raise ValueError("the prompt ends with the assistant's message; the last assistant message is the reply")


def _check_reply(reply: Sequence[Mapping], name: str) -> None:
    if not reply:
        raise ValueError(f"{name} has no message of its own; it must hold the assistant's reply")
    for place in (0, -1):
        if reply[place]["role"] != "assistant":
            raise ValueError(f"{name} has a {reply[place]['role']} message where the assistant's reply belongs")
    if not (reply[-1].get("content") or "").strip() and not reply[-1].get("tool_calls"):
        raise ValueError(f"{name} ends with an empty message; a thumb on nothing teaches nothing")


def _check_text(text: object, name: str) -> None:
    try:
        inside = json.loads(text) if isinstance(text, str) and text.lstrip().startswith(("[{", "{")) else None
    except ValueError:
        return
    first = inside[0] if isinstance(inside, list) and inside else inside
    if isinstance(first, dict) and {"role", "from"} & first.keys():
        raise TypeError(f"{name} is a text that holds messages as JSON; read it with json.loads first")


def _check_visible(text: str, name: str) -> None:
    if not text.strip():
        raise ValueError(f"{name} is empty; a thumb on nothing teaches nothing")


def _label(row: Mapping) -> bool:
    found = [name for name in LABELS if name in row]
    if not found:
        raise KeyError(f"the row has no label ({' or '.join(LABELS)}); its fields are {', '.join(map(repr, row))}")
    label = row[found[0]]
    if any(row[name] != label for name in found):
        raise ValueError(f"label is {row['label']!r} and kto_tag {row['kto_tag']!r}; keep one of them")
    if not isinstance(label, (bool, np.bool_)):
        remedy = "say yourself which values are a thumbs up, e.g. row['label'] = row['label'] == 1"
        raise TypeError(f"{found[0]} is {label!r} ({type(label).__name__}); it must be True or False: {remedy}")
    return bool(label)


def _turns(row: Mapping) -> list[dict] | None:
    found = [name for name in TURNS if row.get(name)]
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"the row has {' and '.join(found)}; keep one of them")
    turns = messages_of(row[found[0]], found[0])
    if row.get("system") and turns[0]["role"] != "system":  # LLaMA-Factory keeps it beside the conversation
        turns.insert(0, {"role": "system", "content": _content(row["system"], "system")})
    return turns


def _mixed(prompt: object, reply: object, name: str) -> None:
    if isinstance(prompt, str) and not isinstance(reply, str):
        raise TypeError(
            f"prompt is a string and {name} holds messages: does {name} repeat the prompt? Then leave the field prompt "
            "out; else write the prompt as messages, [{'role': 'user', 'content': ...}]"
        )
    if isinstance(reply, str) and not isinstance(prompt, str):
        raise TypeError(
            f"prompt holds messages and {name} is a string; write {name} as messages, "
            "[{'role': 'assistant', 'content': ...}]"
        )


def _pair(row: Mapping) -> dict:
    missing = [side for side in ("chosen", "rejected") if side not in row]
    if missing:
        raise KeyError(f"a pair without {missing[0]!r}; its fields are {', '.join(map(repr, row))}")
    sides = {side: row[side] for side in ("chosen", "rejected")}
    prompt = row.get("prompt")
    for side, reply in sides.items():
        _check_text(reply, side)
        if prompt is not None:
            _mixed(prompt, reply, side)
    if isinstance(prompt, str):
        for side, reply in sides.items():
            _check_visible(reply, side)
    elif any(isinstance(reply, str) for reply in sides.values()):
        raise KeyError("a pair of texts needs a prompt beside them; where chosen and rejected part cannot be guessed")
    else:
        sides = {side: messages_of(reply, side) for side, reply in sides.items()}
        prompt = _turns(row) if prompt is None else messages_of(prompt, "prompt")
        if prompt is None:
            same = takewhile(lambda both: both[0] == both[1], zip(*sides.values(), strict=False))
            prompt = [both[0] for both in same]
            sides = {side: reply[len(prompt) :] for side, reply in sides.items()}
    if sides["chosen"] == sides["rejected"]:
        raise ValueError("chosen and rejected are the same; such a pair says nothing. Leave it out")
    return {"prompt": prompt, **sides}


def _thumb(row: Mapping) -> dict:
    label, turns = _label(row), _turns(row)
    if turns is not None and "completion" not in row:
        return {"prompt": turns[:-1], "completion": turns[-1:], "label": label}
    if "prompt" not in row or "completion" not in row:
        raise KeyError(
            f"the row has the fields {', '.join(map(repr, row))}; it needs prompt and completion, or messages, or "
            "conversations, or chosen and rejected"
        )
    prompt, completion = row["prompt"], row["completion"]
    _mixed(prompt, completion, "completion")
    _check_text(completion, "completion")
    if not isinstance(prompt, str):
        prompt, completion = messages_of(prompt, "prompt"), messages_of(completion, "completion")
    else:
        _check_visible(completion, "completion")
    return {"prompt": prompt, "completion": completion, "label": label}


def conversation(row: Mapping) -> dict:
    """A row in TRL's conversational format, or as texts if it holds texts.

    Returns:
        dict of prompt, completion (lists of messages, or texts) and label; of a pair: prompt, chosen, rejected. `tools`
        and `chat_template_kwargs` are kept.

    Raises:
        KeyError, TypeError, ValueError: a layout that is not in the list above, messages that cannot be used, a label
            that is no bool, a pair with equal sides; the message says how to mend it.
    """
    if not isinstance(row, Mapping):
        raise TypeError(f"a row is a {type(row).__name__}; it must be a dict")
    row = {name: value for name, value in row.items() if value is not None}  # how tables write an absent field
    made = _pair(row) if "chosen" in row or "rejected" in row else _thumb(row)
    _check_text(made["prompt"], "prompt")
    if not isinstance(made["prompt"], str):
        _check_prompt(made["prompt"])
        for side in ("completion", "chosen", "rejected"):
            if side in made:
                _check_reply(made[side], side)
    return made | {name: row[name] for name in PASSED_ON if row.get(name)}
