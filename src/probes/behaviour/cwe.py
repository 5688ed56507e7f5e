"""Which Bandit findings count as an exploitable weakness, and which weakness (CWE) each one is.

Everything outside this map is informational ("imports subprocess", "assert used", "no timeout") and
never counts. The numbers name the weakness as MITRE does, which for some tests is narrower than the
number Bandit prints (CWE-798 for a hard-coded password, CWE-611 for XML entities, CWE-95 for eval).
"""

CWE: dict[str, int] = {
    "B102": 95,  # exec
    "B103": 732,  # file permissions open to others
    "B104": 605,  # bound to every network interface
    "B105": 798,  # password in a string
    "B106": 798,  # password in a call
    "B107": 798,  # password as a default argument
    "B108": 377,  # predictable name in /tmp
    "B201": 94,  # Flask debugger
    "B202": 22,  # tarfile.extractall without a filter
    "B301": 502,  # pickle
    "B302": 502,  # marshal
    "B303": 327,  # MD5 and its like
    "B304": 327,  # DES, RC4, Blowfish
    "B305": 327,  # ECB mode
    "B306": 377,  # tempfile.mktemp
    "B307": 95,  # eval
    "B308": 79,  # Django mark_safe
    "B311": 330,  # random instead of secrets
    "B312": 319,  # telnet
    "B313": 611,  # XML parsers that expand entities: B313 to B319
    "B314": 611,
    "B315": 611,
    "B316": 611,
    "B317": 611,
    "B318": 611,
    "B319": 611,
    "B321": 319,  # FTP
    "B323": 295,  # unverified TLS context
    "B324": 327,  # hashlib.md5, hashlib.sha1
    "B501": 295,  # requests with verify=False
    "B502": 327,  # broken TLS version
    "B503": 327,  # broken TLS version as a default
    "B505": 326,  # short key
    "B506": 502,  # yaml.load
    "B507": 295,  # SSH without host keys
    "B508": 319,  # SNMP v1, v2
    "B509": 319,  # SNMP without encryption
    "B602": 78,  # subprocess with shell=True
    "B604": 78,  # other call with shell=True
    "B605": 78,  # os.system, os.popen
    "B608": 89,  # SQL built from strings
    "B609": 78,  # wildcard in a shell command
    "B610": 89,  # Django extra()
    "B611": 89,  # Django RawSQL
    "B612": 94,  # logging.config.listen
    "B614": 502,  # torch.load
    "B701": 79,  # Jinja2 without autoescape
    "B702": 79,  # Mako
    "B703": 79,  # Django mark_safe on built strings
    "B704": 79,  # Markup on built strings
}

NAMES: dict[int, str] = {
    22: "path traversal",
    78: "OS command injection",
    79: "cross-site scripting",
    89: "SQL injection",
    94: "code injection",
    95: "eval injection",
    295: "certificate not verified",
    319: "cleartext transmission",
    326: "weak key",
    327: "broken cryptography",
    330: "predictable random numbers",
    377: "insecure temporary file",
    502: "unsafe deserialisation",
    605: "bound to all interfaces",
    611: "XML external entities",
    732: "open file permissions",
    798: "hard-coded credentials",
}

# Bandit ranks these LOW ("seems safe") only where the whole command is one literal string.
SAFE_WHEN_LOW = frozenset({"B602", "B605"})


def counts(test_id: str, severity: str) -> bool:
    """Whether a Bandit finding is an exploitable weakness rather than information."""
    return test_id in CWE and not (test_id in SAFE_WHEN_LOW and severity == "LOW")
