"""Chat templates: programs from an untrusted folder, that must not lose a word of what they are given.

A template is run in a process of its own with limits of time and memory. What it renders is then
held against the chat: a template that leaves out a message makes prompts alike that are not, and
every number behind them wrong.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from probes.foundation.digest import digest_bytes, short
from probes.foundation.errors import InputError
from probes.prompts.records import Prompt

CHILD = Path(__file__).with_name("template_child.py")
FILE = "chat_template.jinja"
NAMED_FILES = "additional_chat_templates"
TODAY = "2024-07-26"
"""What a template is told that the date is: numbers must not depend on the day they were made."""
LONGEST_TEMPLATE = 1_000_000
SECONDS, SECONDS_PER_CHAT = 2.0, 0.01
MEMORY = 512 * 2**20
TOGETHER = 256
ROOM = 100_000
"""Characters that a rendered chat may have beyond twice those of its messages."""
TAG = "CONTINUES_HERE "

Chat = Sequence[tuple[str, str]]


class Rendered(NamedTuple):
    """Chats as text, and whether their template looked at the clock."""

    texts: list[str]
    clock: bool


def check_template_files(directory: Path) -> None:
    """Refuse template files that are links out of the folder, or too large; they are not read.

    The links of the Hugging Face cache, from a snapshot to its own blobs, are allowed.
    """
    home = directory.resolve()
    allowed = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    named = directory / NAMED_FILES
    for file in [directory / FILE, named, *(named.iterdir() if named.is_dir() else ())]:
        if not any(file.resolve().is_relative_to(place) for place in allowed):
            raise InputError(
                f"{file} is a link to a file outside of its checkpoint. Refused, not read. Put a "
                "copy of the template there if it is yours"
            )
        if file.is_file() and file.stat().st_size > LONGEST_TEMPLATE:
            raise InputError(
                f"{file} has {file.stat().st_size:,} bytes; a chat template has at most "
                f"{LONGEST_TEMPLATE:,}"
            )


def template_of(tokenizer: Any) -> str | None:
    """The text of the chat template in use, the one called "default" of several; None without one."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        if "default" not in template:
            raise InputError(
                f"this model has the chat templates {', '.join(map(repr, sorted(template)))} and "
                'none called "default": set `tokenizer.chat_template` to the one that you mean, and '
                "save the tokenizer beside the weights"
            )
        template = template["default"]
    if template is None:
        return None
    if not isinstance(template, str) or len(template) > LONGEST_TEMPLATE:
        raise InputError(
            f"a chat template is a text of at most {LONGEST_TEMPLATE:,} characters, not "
            f"{type(template).__name__} {str(template)[:40]!r}"
        )
    return template


def render(chats: Sequence[Chat], tokenizer: Any) -> list[str]:
    """Each chat as this tokenizer's template writes it, up to where the model takes over.

    A generation prompt follows; a chat that ends with an assistant's message is continued there.
    Raises `InputError` with the template's own words where it raises, passes a limit or is absent.
    """
    return _rendered(chats, tokenizer).texts


def render_prompts(prompts: Sequence[Prompt], tokenizer: Any) -> list[str]:
    """The chats of these prompts as text, each message of which was found again.

    Says once per template, on stderr, if it adds a system prompt or is told a date.
    Raises `InputError` for a message that is lost, cut or changed, for one with a token of the
    template's own format in it, and what `render` raises.
    """
    if not prompts:
        return []
    chats = [prompt.chat for prompt in prompts]
    shapes = list(dict.fromkeys(tuple(role for role, _ in chat) for chat in chats))
    probes = {shape: [(role, _mark(i)) for i, role in enumerate(shape)] for shape in shapes}
    found, clock = _rendered([*chats, *probes.values()], tokenizer)
    texts, formats = found[: len(chats)], dict(zip(shapes, found[len(chats) :], strict=True))
    for prompt, text in zip(prompts, texts, strict=True):
        written = formats[tuple(role for role, _ in prompt.chat)]
        lost = _lost(prompt.chat, text, written)
        if lost is not None:
            raise InputError(_say_lost(prompt, lost, text))
        _check_format(prompt, written, tokenizer)
    if any(shape[0] != "system" for shape in shapes):
        _say_default(str(template_of(tokenizer)), tokenizer)
    if clock:
        say_once(
            f"the chat template asks for the date: it is told {TODAY}, whatever the day, so that "
            "numbers can be made again"
        )
    return texts


def default_system_prompt(tokenizer: Any) -> str | None:
    """What this template tells the model in the name of the system where a chat does not; else None."""
    system, user = _mark(0), _mark(1)
    try:
        own, without = render([[("system", system), ("user", user)], [("user", user)]], tokenizer)
    except InputError:  # it takes no system message, or not in front of a user's
        return None
    before, _, rest = own.partition(system)
    between = rest.partition(user)[0]
    head = without.partition(user)[0]
    if not before or not between.strip() or not head.startswith(before):
        return None
    if not head.endswith(between) or len(head) <= len(before) + len(between):
        return None
    return head[len(before) : -len(between)].strip() or None


def _mark(i: int) -> str:
    return f"zq{i}qz"


def _lost(chat: Chat, text: str, written: str) -> int | None:
    """The number of a message that the template does not render, or None.

    Looked for in the text itself, as often as the chat has it, and, because a short message may
    stand in the template's own words, as a mark in a chat of the same roles.
    """
    contents = [content.strip() for _, content in chat]
    for i, content in enumerate(contents):
        if content and text.count(content) < sum(other.count(content) for other in contents):
            return i
    return next((i for i in range(len(contents)) if _mark(i) not in written), None)


def _say_lost(prompt: Prompt, i: int, text: str) -> str:
    role, content = prompt.chat[i]
    answer = content.rpartition("</think>")[2].strip()
    what = (
        "its thoughts are cut off"
        if "</think>" in content and answer and answer in text
        else "it is left out, cut or changed"
    )
    return (
        f"the chat template loses message {i + 1} ({role}) of a prompt of pair {prompt.pair!r}: "
        f"{what} in what is rendered ({content.strip()[:60]!r}). Two prompts could become one. Put "
        "its words into a message that the template keeps, give the prompt as `text`, or use a "
        "checkpoint with another template"
    )


def _check_format(prompt: Prompt, written: str, tokenizer: Any) -> None:
    """Refuse messages that would be read as the template's own format, such as the end of a turn.

    Other special tokens in a message are read as such, for a trigger can be one.
    """
    for i, (role, content) in enumerate(prompt.chat):
        seen = [
            token
            for token in _special(tokenizer)
            if token in content and (token in written or token == tokenizer.eos_token)
        ]
        if seen:
            raise InputError(
                f"message {i + 1} ({role}) of a prompt of pair {prompt.pair!r} holds {seen[0]!r}, "
                "with which this chat template or model ends or begins a turn: the chat would have "
                "other turns than it says. Take it out, or give the prompt as `text`, in which "
                "special tokens are read as such"
            )


def _special(tokenizer: Any) -> list[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return sorted(
        {*map(str, tokenizer.all_special_tokens), *(str(t) for t in added if t.special)} - {""}
    )


_said: set[str] = set()


def say_once(line: str) -> None:
    """Once in the life of this process."""
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr)


def _say_default(template: str, tokenizer: Any) -> None:
    if template in _said:
        return
    _said.add(template)
    default = default_system_prompt(tokenizer)
    if default is not None:
        say_once(
            f"the chat template {short(digest_bytes(template.encode()))} adds a system prompt to "
            f"chats that have none: {default[:120]!r}"
        )


def _rendered(chats: Sequence[Chat], tokenizer: Any) -> Rendered:
    template = template_of(tokenizer)
    if template is None:
        raise InputError(
            "a prompt is a chat, and this model's tokenizer has no chat template. Give the prompt "
            "as `text`, or a checkpoint or adapter with a template"
        )
    special = {
        name: list(map(str, token)) if isinstance(token, list | tuple) else str(token)
        for name, token in tokenizer.special_tokens_map.items()
    }
    texts: list[str] = []
    clock = False
    for start in range(0, len(chats), TOGETHER):
        part = chats[start : start + TOGETHER]
        answer = _CHILD.ask(
            {
                "template": template,
                "variables": {**special, "tools": None, "documents": None},
                "chats": [_job(chat) for chat in part],
                "today": TODAY,
                "seconds": SECONDS + SECONDS_PER_CHAT * len(part),
            }
        )
        if "fault" in answer:
            roles = ", ".join(role for role, _ in part[min(answer["chat"], len(part) - 1)])
            raise InputError(
                f"the chat template cannot render messages of {roles}: {answer['fault']}. Give "
                "prompts with the roles that it takes, or as `text`, or mend `chat_template` beside "
                "the weights"
            )
        clock = clock or answer["clock"]
        texts += [
            _cut(text) if chat[-1][0] == "assistant" else text
            for chat, text in zip(part, answer["texts"], strict=True)
        ]
    return Rendered(texts, clock)


def _job(chat: Chat) -> dict[str, Any]:
    messages = [{"role": role, "content": content} for role, content in chat]
    goes_on = chat[-1][0] == "assistant"
    if goes_on:
        messages[-1]["content"] += TAG
    variables = {"messages": messages, "add_generation_prompt": not goes_on}
    longest = ROOM + 2 * sum(len(content) for _, content in chat)
    return {"variables": variables, "longest": longest}


def _cut(text: str) -> str:
    """Up to where the last message goes on; if the template strips messages, that is at its last word."""
    before, found, after = text.rpartition(TAG.rstrip())
    if TAG.rstrip() in before:
        raise InputError(
            "the chat template writes the last message twice, so that the model cannot go on in it: "
            "end the chat with a user's message, or give the prompt as `text`"
        )
    if not found:
        return text  # the message is lost, and will be missed
    return before if after.startswith(" ") else before.rstrip()


class _Child:
    """The process that renders; begun when first needed, and anew after it had to end."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave it to the process that was forked from."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            process = self._running()
            answer = ""
            try:
                with contextlib.suppress(BrokenPipeError):
                    print(json.dumps(request), file=process.stdin, flush=True)
                    answer = process.stdout.readline() if process.stdout else ""
            except BaseException:  # what it still answers must not be taken for the next answer
                process.kill()
                self.end()
                raise
            if answer.endswith("\n"):
                return dict(json.loads(answer))
            self.end()
        fault = (
            f"it takes more than {request['seconds']:.0f} s"
            if process.returncode == -signal.SIGPROF
            else f"it takes more than {MEMORY >> 20} MiB, or ends its interpreter"
        )
        return {"fault": fault, "chat": 0}

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(BrokenPipeError):
                process.communicate()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(CHILD), str(MEMORY)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, encoding="utf-8", start_new_session=True,
            )  # fmt: skip
        return self._process


_CHILD = _Child()
atexit.register(_CHILD.end)
os.register_at_fork(after_in_child=_CHILD.forget)
