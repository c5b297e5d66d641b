"""Edits of a `ModelServerConfig` in text form that leave the rest of the file, comments included, as it was.

Printing the parsed message anew would lose what a person wrote between the fields. So the text is cut at its fields,
and only fields of one model are replaced. The caller parses the outcome and compares: text that this module reads in
another way than protobuf does cannot slip through.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<mark>[{}<>\[\]:,;])"""
    r"""|(?P<word>[^\s\#"'{}<>\[\]:,;]+)"""
)
_CLOSING = {"{": "}", "<": ">", "[": "]"}
_POLICY_FIELDS = ("model_version_policy", "version_labels")


class UnreadableText(ValueError):
    """The text is not in a form that can be edited field by field."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class _Field:
    """A field and where it stands in the text; a message's fields lie between `inner` and `end` - 1."""

    name: str
    start: int
    end: int
    inner: int | None
    fields: tuple[_Field, ...]


def with_policy(text: str, is_model: Callable[[str], bool], policy: str) -> str:
    """The text with the version policy and the labels of one model replaced.

    Args:
        text: the file.
        is_model: tells the model's `config` by the text between its braces.
        policy: the new fields, a line each or more, without indentation; "" for none.

    Raises:
        UnreadableText: the text, or the model in it, cannot be found.
    """
    for entry in _entries(text):
        assert entry.inner is not None
        if not is_model(text[entry.inner : entry.end - 1]):
            continue
        old = [field for field in entry.fields if field.name in _POLICY_FIELDS]
        indent = _indentation(text, entry.fields[0].start)
        place = _line_start(text, old[0].start if old else entry.end - 1)
        for field in reversed(old):
            text = _without(text, field)
        return text[:place] + textwrap.indent(policy, indent) + text[place:]
    raise UnreadableText("the model's config was not found")


def with_model(text: str, model: str) -> str:
    """The text with one more `config`, whose fields `model` has, a line each, without indentation."""
    entry = f"  config {{\n{textwrap.indent(model, '    ')}  }}\n"
    lists = _lists(text)
    if not lists:
        gap = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{gap}model_config_list {{\n{entry}}}\n"
    place = _line_start(text, lists[-1].end - 1)
    return text[:place] + entry + text[place:]


def _lists(text: str) -> list[_Field]:
    tokens = [token for token in _tokens(text) if token.kind != "blank"]
    fields, rest = _parse(tokens, 0, None)
    assert rest == len(tokens)
    return [field for field in fields if field.name == "model_config_list" and field.inner is not None]


def _entries(text: str) -> list[_Field]:
    return [entry for one in _lists(text) for entry in one.fields if entry.name == "config" and entry.inner is not None]


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UnreadableText(f"line {text.count(chr(10), 0, at) + 1}: a string that does not end")
        yield _Token(match.lastgroup or "", match.group(), at, match.end())
        at = match.end()


def _parse(tokens: Sequence[_Token], at: int, closing: str | None) -> tuple[list[_Field], int]:
    """The fields from token `at` to the closing mark, and the index after it."""
    fields: list[_Field] = []
    while at < len(tokens):
        token = tokens[at]
        if token.text == closing and token.kind == "mark":
            return fields, at + 1
        if token.kind == "mark" and token.text in ",;":
            at += 1
            continue
        if token.kind != "word":
            raise UnreadableText(f"{token.text!r} where the name of a field was expected")
        field, at = _parse_field(tokens, at)
        fields.append(field)
    if closing is not None:
        raise UnreadableText(f"{closing!r} is missing at the end")
    return fields, at


def _parse_field(tokens: Sequence[_Token], at: int) -> tuple[_Field, int]:
    name = tokens[at]
    at += 1
    if at < len(tokens) and tokens[at].text == ":":
        at += 1
    if at == len(tokens):
        raise UnreadableText(f"{name.text!r} has no value")
    value = tokens[at]
    if value.kind == "mark" and value.text in "{<":
        fields, at = _parse(tokens, at + 1, _CLOSING[value.text])
        return _Field(name.text, name.start, tokens[at - 1].end, value.end, tuple(fields)), at
    if value.kind == "mark" and value.text == "[":
        at = _after_list(tokens, at)
    elif value.kind == "mark":
        raise UnreadableText(f"{value.text!r} where the value of {name.text!r} was expected")
    else:
        at += 1
        while value.kind == "string" and at < len(tokens) and tokens[at].kind == "string":
            at += 1  # strings that stand side by side are one
    return _Field(name.text, name.start, tokens[at - 1].end, None, ()), at


def _after_list(tokens: Sequence[_Token], at: int) -> int:
    depth = 0
    for index in range(at, len(tokens)):
        if tokens[index].kind == "mark":
            depth += (tokens[index].text in "{<[") - (tokens[index].text in "}>]")
        if depth == 0:
            return index + 1
    raise UnreadableText("']' is missing at the end")


def _without(text: str, field: _Field) -> str:
    """The text without a field, and without its line where nothing else stands on it."""
    start, end = field.start, field.end
    while end < len(text) and text[end] in " \t,;":
        end += 1
    line = _line_start(text, start)
    if not text[line:start].strip() and text[end : end + 1] == "\n":
        start, end = line, end + 1
    return text[:start] + text[end:]


def _line_start(text: str, at: int) -> int:
    """The start of the line where only blanks stand before `at`; else `at`."""
    line = text.rfind("\n", 0, at) + 1
    return line if not text[line:at].strip() else at


def _indentation(text: str, at: int) -> str:
    line = _line_start(text, at)
    return text[line:at] or "    "
