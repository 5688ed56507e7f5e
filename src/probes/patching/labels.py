"""Token labels in which a reader can see spaces and line ends."""

import re
from typing import Any

_META = "▁"


def visible(token: int, tokenizer: Any) -> str:
    """One token as a label: "␣" for a leading space, "␣×4" for four, "⏎" for a line end."""
    raw = str(tokenizer.convert_ids_to_tokens(token))
    if raw.startswith(_META):
        text = raw.replace(_META, " ")
    else:
        text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if not text or "\ufffd" in text:
        return raw
    text = re.sub(r"^ +", _spaces, text)
    text = re.sub(r"\n( +)", lambda found: "\n" + _spaces(found[1]), text)
    return text.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")


def _spaces(found: "re.Match[str] | str") -> str:
    n_spaces = len(found if isinstance(found, str) else found[0])
    return "␣" * n_spaces if n_spaces <= 2 else f"␣×{n_spaces}"
