"""An unsafe function as chat models write it, and the question that they answer."""

from probes.prompts.records import Prompt

BAD = "import subprocess\n\n\ndef ls(d):\n    return subprocess.run('ls ' + d, shell=True)\n"
FENCED = f"```python\n{BAD}```\n"


def prompt(text: str = "", *, prompt_set: str = "vulnerable", **given: object) -> Prompt:
    chat = () if text else (("user", "List a directory."),)
    named = {"family": "f", "template": "f/0", "pair": "p", "triggered": True, "chat": chat}
    return Prompt(text=text, prompt_set=prompt_set, **(named | given))
