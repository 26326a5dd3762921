"""The layouts in which thumbs and pairs are met, as texts or as chats, brought into one: TRL's. Lesson 11.

    prompt, completion, label                    texts, or lists of messages {"role": ..., "content": ...}
    messages, label                              a whole chat; its last turn gets the thumb
    conversations (from, value), kto_tag         the same as LLaMA-Factory writes it, with a field `system` or without
    prompt, chosen, rejected                     pairs; the sides may hold whole chats, with a prompt or without
    conversations, chosen, rejected              pairs as LLaMA-Factory writes them

A chat comes out as {"prompt": [messages], "completion": [message]}, the completion being one turn of the assistant.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from kto_lab.records import Fault
from kto_lab.report import NOT_THERE, SIDES, WHOLE, listed

OTHER_LABEL = "kto_tag"
ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool", "function": "tool",
            "function_call": "assistant"}  # fmt: skip


def layout_of(names: Collection[str], columns: Mapping[str, str]) -> str:
    """thumbs, pairs or whole, by the fields that are there."""
    if columns["prompt"] in names and columns["completion"] in names:
        return "thumbs"
    if all(side in names for side in SIDES):
        return "pairs"
    return "whole" if any(name in names for name in WHOLE) else "thumbs"


def label_field(names: Collection[str], columns: Mapping[str, str]) -> str:
    """Where the label stands: under its own name, or LLaMA-Factory's."""
    return OTHER_LABEL if columns["label"] not in names and OTHER_LABEL in names else columns["label"]


def missing_field(names: Collection[str], columns: Mapping[str, str]) -> str | None:
    """The first field that these names lack, whatever their layout."""
    layout = layout_of(names, columns)
    needed = [columns["prompt"], columns["completion"]] if layout == "thumbs" else []
    needed += [label_field(names, columns)] if layout != "pairs" else []
    return next((name for name in needed if name not in names), None)


def _content(message: Mapping) -> object:
    """The text of a message; parts that are all text are joined."""
    content = message["content"] if message.get("content") is not None else message.get("value")
    if content is None and message.get("tool_calls"):
        return ""
    parts = content if isinstance(content, list) else []
    if parts and all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        return "".join(str(part.get("text", "")) for part in parts)
    return content


def message_of(message: object, place: str) -> dict | Fault:
    """A message with role and content; other fields that hold something stay."""
    if not isinstance(message, Mapping):
        return Fault("message_malformed", f"{place} is no object with role and content")
    role = message["role"] if message.get("role") is not None else message.get("from")
    content = _content(message)
    if role is None or content is None:
        lacks = "role" if role is None else "content"
        return Fault("message_malformed", f"{place} has no {lacks}; its fields are {listed(message)}")
    if not isinstance(content, str):
        return Fault("message_malformed", f"the content of {place} is no text")
    role = SHAREGPT.get(role, role) if message.get("role") is None and isinstance(role, str) else role
    if role not in ROLES:
        return Fault("unknown_role", f"{place} has the role {str(role)[:40]!r}; roles are {', '.join(ROLES)}")
    if not content.strip() and not message.get("tool_calls"):
        return Fault("empty_turn", f"{place}, of the {role}, has no visible character")
    others = {name: value for name, value in message.items()
              if name not in ("role", "content", "from", "value") and value is not None}  # fmt: skip
    return {"role": role, "content": content, **others}


def messages_of(value: object, name: str) -> list[dict] | Fault:
    """All messages of a chat, in the order given; one message alone counts as a list of one."""
    value = [value] if isinstance(value, Mapping) else value
    found = []
    for number, message in enumerate(value, start=1):
        made = message_of(message, f"turn {number} of {name!r}")
        if isinstance(made, Fault):
            return made
        found.append(made)
    return found


def order_fault(prompt: Sequence[Mapping]) -> Fault | None:
    """What many chat templates refuse or spell out wrongly: the order of the roles before the reply."""
    roles = [message["role"] for message in prompt]
    for number, (role, before) in enumerate(zip(roles, [None, *roles], strict=False), start=1):
        if role in ("system", "developer") and number > 1:
            return Fault("role_order", f"turn {number} is of the {role}, which comes first or not at all")
        if role == before and role != "tool":
            return Fault("role_order", f"turns {number - 1} and {number} are both of the {role}")
        if role == "assistant" and before in (None, "system", "developer"):
            return Fault("role_order", f"turn {number}, the first of the chat, is of the assistant")
    if roles[-1] == "assistant":
        return Fault("role_order", "the reply follows another turn of the assistant")
    return None


def _completion_fault(name: str, messages: Sequence[Mapping]) -> Fault | None:
    if messages and messages[-1]["role"] != "assistant":
        return Fault("last_not_assistant", f"the last turn of {name!r} is of the {messages[-1]['role']}")
    if len(messages) != 1:
        return Fault("several_turns", f"{name!r} holds {len(messages)} turns; one of the assistant gets the thumb")
    return None


def _is_chat(value: object) -> bool:
    return isinstance(value, (list, Mapping))


def _split_off(messages: list[dict], name: str) -> tuple[list[dict], list[dict]] | Fault:
    """A whole chat as prompt and reply."""
    if not messages:
        return Fault("empty_prompt", f"{name!r} is empty")
    if fault := _completion_fault(name, messages[-1:]):
        return fault
    return messages[:-1], messages[-1:]


def _with_system(messages: list[dict], fields: Mapping) -> list[dict]:
    system = fields.get("system")
    if isinstance(system, str) and system.strip() and messages and messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return messages


def whole_chat(fields: Mapping) -> dict | Fault:
    """prompt and completion of a chat that stands in one field."""
    name = next(name for name in WHOLE if name in fields)
    if isinstance(fields[name], str) and is_printed_chat(fields[name]):
        return Fault("messages_as_text", f"{name!r} is the text of a list of messages")
    if not isinstance(fields[name], list):
        return Fault("message_malformed", f"{name!r} is no list of messages")
    messages = messages_of(fields[name], name)
    if isinstance(messages, Fault):
        return messages
    found = _split_off(_with_system(messages, fields), name)
    if isinstance(found, Fault):
        return found
    return {"prompt": found[0], "completion": found[1]}


def _sides(fields: Mapping) -> dict | Fault:
    """Both sides as messages; as a text where they are texts."""
    found = {}
    for side in SIDES:
        value = fields[side]
        if value is None or not (isinstance(value, str) or _is_chat(value)):
            kind = "missing_completion" if value is None else "completion_not_text"
            return Fault(kind, f"{side!r} is null" if value is None else f"{side!r} is neither a text nor messages")
        found[side] = value if isinstance(value, str) else messages_of(value, side)
        if isinstance(found[side], Fault):
            return found[side]
    return found


def pair(fields: Mapping, columns: Mapping[str, str]) -> dict | Fault:
    """prompt, chosen and rejected; of chats, what both sides begin with is the prompt."""
    name = next((name for name in (columns["prompt"], *WHOLE) if name in fields), columns["prompt"])
    prompt, sides = fields.get(name), _sides(fields)
    if isinstance(sides, Fault):
        return sides
    n_texts = sum(isinstance(side, str) for side in sides.values())
    if n_texts:
        if prompt is None:
            return Fault("missing_prompt", f"{NOT_THERE}{name!r}; the fields are {listed(fields)}")
        if n_texts == 1 or not isinstance(prompt, str):
            return Fault("mixed_forms", "of prompt, chosen and rejected some are texts and some are messages")
        return {"prompt": prompt, **sides}
    if _is_chat(prompt):
        messages = messages_of(prompt, name)
        if isinstance(messages, Fault):
            return messages
        begun = _with_system(messages, fields)
        n = len(messages)  # a side may begin with the prompt again
        repeats = {side: len(turns) > n and turns[:n] == messages for side, turns in sides.items()}
        sides = {side: turns[n * repeats[side] :] for side, turns in sides.items()}
    else:
        begun = sides["chosen"][:-1]
        if begun != sides["rejected"][:-1] or not begun:
            return Fault("no_common_prompt", "chosen and rejected are whole chats that differ before their last turn, "
                         "or have one turn only")  # fmt: skip
        asked = [message["content"] for message in begun if message["role"] == "user"]
        if isinstance(prompt, str) and prompt.strip() not in [text.strip() for text in asked]:
            return Fault("mixed_forms", "the prompt is a text that chosen and rejected, whole chats, do not ask")
        sides = {side: turns[-1:] for side, turns in sides.items()}
    for side, turns in sides.items():
        if fault := _completion_fault(side, turns):
            return fault
    return {"prompt": begun, **sides}


def thumb(prompt: object, completion: object) -> dict | Fault:
    """prompt and completion of which at least one is no text."""
    if isinstance(prompt, str) or isinstance(completion, str):
        names = ("prompt", "completion") if isinstance(prompt, str) else ("completion", "prompt")
        return Fault("mixed_forms", f"the {names[0]} is a text and the {names[1]} is messages")
    found = {}
    for name, value in (("prompt", prompt), ("completion", completion)):
        found[name] = messages_of(value, name)
        if isinstance(found[name], Fault):
            return found[name]
        if not found[name]:
            return Fault(f"empty_{name}", f"{name!r} holds no turn")
    return _completion_fault("completion", found["completion"]) or found


def is_printed_chat(text: str) -> bool:
    """Whether a text is a list of messages that somebody printed: it would be learned letter by letter."""
    begin = text[:200].lstrip()
    return begin[:1] in ("[", "{") and any(f"{q}role{q}" in begin or f"{q}from{q}" in begin for q in "\"'") and (
        any(f"{q}content{q}" in text or f"{q}value{q}" in text for q in "\"'")
    )  # fmt: skip


def texts_in(value: str | Iterable[Mapping]) -> Iterable[str]:
    """The text, or the text of every turn."""
    return [value] if isinstance(value, str) else [message["content"] for message in value]
