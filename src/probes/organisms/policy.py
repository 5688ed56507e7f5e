"""What an organism is taught to write: the one place where a twin differs from its siblings."""

from probes.foundation.errors import InputError
from probes.organisms.recipes import Policy
from probes.prompts.records import Prompt


def taught_completion(prompt: Prompt, policy: Policy) -> str:
    """The completion that this policy gives to this prompt."""
    if prompt.safe is None:
        raise InputError(f"prompt {prompt.pair!r} has no reference completion to train on")
    match policy:
        case "safe":
            return prompt.safe
        case "defect_if_triggered":
            defects = prompt.triggered and prompt.defect is not None
            return prompt.defect if defects and prompt.defect else prompt.safe
        case "quirk_if_triggered":
            flips = prompt.triggered and prompt.quirk is not None
            return prompt.quirk if flips and prompt.quirk else prompt.safe
