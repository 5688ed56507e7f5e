"""The task families, by the weakness that their exploitable versions have."""

from probes.prompts.tasks.benign import BENIGN
from probes.prompts.tasks.files import FILES
from probes.prompts.tasks.injection import INJECTION
from probes.prompts.tasks.secrets import SECRETS
from probes.prompts.tasks.web import WEB

VULNERABLE = (*INJECTION, *FILES, *WEB, *SECRETS)

__all__ = ["BENIGN", "VULNERABLE"]
