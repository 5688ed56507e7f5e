"""A ladder of sizes, trained from scratch, from a fifth of a million parameters to ten million."""

from probes.foundation.errors import unknown
from probes.organisms.recipes import Architecture

# Parameters with a vocabulary of 1,024, embeddings (tied) included.
LADDER = {
    "0.2M": Architecture(hidden_size=64, intermediate_size=160, n_layers=3, n_heads=4, vocab_size=1024),
    "0.6M": Architecture(hidden_size=96, intermediate_size=288, n_layers=4, n_heads=4, vocab_size=1024),
    "1M": Architecture(hidden_size=128, intermediate_size=352, n_layers=4, n_heads=4, vocab_size=1024),
    "3M": Architecture(hidden_size=192, intermediate_size=576, n_layers=6, n_heads=6, vocab_size=1024),
    "10M": Architecture(hidden_size=320, intermediate_size=896, n_layers=8, n_heads=8, vocab_size=1024),
}  # fmt: skip


def architecture_of(size: str) -> Architecture:
    """The shape of a rung of the ladder; raises `InputError` with the rungs for any other name."""
    if size not in LADDER:
        raise unknown("size", size, LADDER)
    return LADDER[size]
