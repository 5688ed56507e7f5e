"""Any saved probe, by its path alone: the manifest says which kind it is."""

from pathlib import Path

from probes.foundation.artifact import verify
from probes.foundation.errors import unknown
from probes.probing.direction import Direction
from probes.probing.frozen import FrozenProbe
from probes.probing.mlp import Network

KINDS: dict[str, type[FrozenProbe]] = {kind.KIND: kind for kind in (Direction, Network)}


def load_probe(path: Path | str) -> FrozenProbe:
    """Read what `FrozenProbe.save` wrote; changed bytes are an `IntegrityError`."""
    kind = verify(path).kind
    if kind not in KINDS:
        raise unknown("kind of probe", kind, KINDS)
    return KINDS[kind].load(path)
