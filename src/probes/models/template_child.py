"""Renders chat templates in a process of its own, because a template from a file may never end.

Run as a script by `probes.models.templates`, it reads one JSON object per line and answers each with
one. It imports nothing of this package and nothing heavy. The environment is the one that
transformers renders with, but for two things: the clock stands still, and nothing is drawn at random.
"""

import contextlib
import datetime
import functools
import json
import resource
import signal
import sys
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

FAULTS = (
    jinja2.TemplateError,
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError),
)


class Generation(jinja2.ext.Extension):
    """The tag `{% generation %}`, which marks what training counts and changes no text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class Clock:
    """A clock that always says the same, and remembers whether it was read."""

    def __init__(self, today: str) -> None:
        self.today = datetime.datetime.fromisoformat(today)
        self.was_read = False

    def strftime(self, form: str) -> str:
        self.was_read = True
        return self.today.strftime(form)


@functools.lru_cache(maxsize=4)
def compiled(source: str, today: str) -> tuple[jinja2.Template, Clock]:
    """A template in the sandbox of transformers' chat templates, without chance."""
    clock = Clock(today)
    found = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    del found.filters["random"], found.globals["lipsum"]
    found.filters["tojson"] = _tojson
    found.globals |= {"raise_exception": _raise, "strftime_now": clock.strftime}
    return found.from_string(source), clock


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def render(request: dict[str, Any]) -> dict[str, Any]:
    """Each chat as text, or the first fault with the number of its chat."""
    texts: list[str] = []
    try:
        template, clock = compiled(request["template"], request["today"])
        for chat in request["chats"]:
            parts, room = [], int(chat["longest"])
            for part in template.generate(request["variables"] | chat["variables"]):
                parts.append(part)
                room -= len(part)
                if room < 0:
                    raise ValueError(f"it writes more than {chat['longest']} characters")
            texts.append("".join(parts))
    except FAULTS as error:
        return {"fault": _message(error), "chat": len(texts)}
    return {"texts": texts, "clock": clock.was_read}


def _message(error: BaseException) -> str:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"line {error.lineno}: {error.message}"[:300]
    said = " ".join(str(error).split())[:300].rstrip(".")
    if isinstance(error, jinja2.TemplateError) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def main(n_bytes: int) -> None:
    limits = {"RLIMIT_AS": n_bytes, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # a system without this limit
            resource.setrlimit(getattr(resource, name), (limit, limit))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # of the processor; then it ends
        answer = json.dumps(render(request))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(answer, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
