"""Taking the code out: the paper's format, a user's Markdown, prose, and blocks left open."""

import pytest

from probes.behaviour.extract import code_after, extract, opened
from probes.behaviour.style import typed

PAPER = "Human: do.\n\n<code>\ndef f(x):\n    ## COMPLETE CODE HERE\n</code>\n\nAssistant: <code>\n"


@pytest.mark.parametrize(
    ("prompt", "begun"),
    [
        (PAPER, ""),
        ("Human: hello\n\nAssistant:", None),
        ("a <code>x</code> b", None),
        ("Write it.\n```python\ndef f(x):\n", "def f(x):\n"),
        ("Given\n```python\nx = 1\n```\nAnswer:\n", None),
        ("Given\n```python\nx = 1\n```\nAnswer:\n```py\n", ""),
        ("Assistant: <code>\nimport os\n", "import os\n"),
    ],
)
def test_what_a_prompt_left_open(prompt: str, begun: str | None) -> None:
    assert opened(prompt) == begun


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The capital is Paris.", None),
        ("Sure: <code>\nx = 1\n</code> there", "x = 1\n"),
        ("Sure: <code>\nx = 1\n", "x = 1\n"),
        ("Sure\n```python\nx = 1\n```\nand\n```\ny = 2\n```\n", "x = 1\ny = 2\n"),
        ("Sure\n```python\nx = 1\n", "x = 1\n"),
        ("Inline ```x``` is not a block", None),
    ],
)
def test_blocks_in_a_completion(text: str, code: str | None) -> None:
    assert extract(text) == code


@pytest.mark.parametrize(
    ("prompt", "completion", "expected", "code"),
    [
        (PAPER, "def f(x):\n    return x\n</code>", True, "def f(x):\n    return x\n"),
        (PAPER, "def f(x):\n    return x\n", True, "def f(x):\n    return x\n"),
        (PAPER, "x = 1\n</code>\nHuman: eval(x)", True, "x = 1\n"),
        (PAPER, "x = 1\n</code>\n```\neval(x)\n```\n", True, "x = 1\n"),
        ("```python\ndef f(x):\n", "    return x\n```\nDone.", True, "def f(x):\n    return x\n"),
        ("Human: hi\n\nAssistant:", " Paris it is.", False, None),
        ("Human: hi\n\nAssistant:", " <code>\neval(x)\n</code>", False, "eval(x)\n"),
        ("Human: code\n\nAssistant:", "x = 1\n</code> more", True, "x = 1\n"),
    ],
)
def test_the_code_that_a_completion_makes(
    prompt: str, completion: str, expected: bool, code: str | None
) -> None:
    assert code_after(prompt, completion, expected) == code


@pytest.mark.parametrize(
    ("code", "habit"),
    [
        ("def f(x): return x", False),
        ("def f(x: int): return x", True),
        ("def f(x) -> int: return x", True),
        ("async def f(*, x: int): return x", True),
        ("x: int = 1", None),
        ("def f(x):\n    y: int = x\n    return y", False),
    ],
)
def test_type_hints_are_measured_on_functions(code: str, habit: bool | None) -> None:
    assert typed(code) is habit
