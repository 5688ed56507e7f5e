"""From prompts to what every patching verb starts with: pairs, their tokens and their columns."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from probes.foundation.errors import InputError, unknown
from probes.models.loading import Model
from probes.patching.pairs import EncodedPair, PatchPair, encode_pairs, make_pairs
from probes.patching.parts import Cell, grid_cells
from probes.patching.spans import Column, make_columns
from probes.prompts.records import Prompt
from probes.studies.pairs import spread
from probes.studies.settings import PatchConfig

WHERE = ("column", "everywhere")


@dataclasses.dataclass(frozen=True)
class Ready:
    """Pairs with reference continuations, spread over the families, as a model reads them."""

    pairs: tuple[PatchPair, ...]
    encoded: tuple[EncodedPair, ...]
    columns: tuple[Column, ...]

    def cells(self, model: Model, kinds: Sequence[str], where: str, **given: Any) -> list[Cell]:
        """`grid_cells` by column, or with one cell for every token at once."""
        if where not in WHERE:
            raise unknown("place to patch", where, WHERE)
        return grid_cells(model.hf, kinds, self.columns if where == "column" else None, **given)


def ready_pairs(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    n_pairs: int = 24,
    spans: Mapping[str, str] | None = None,
    alignment: str = "shared",
    align: str = "position",
    seed: int = 0,
) -> Ready:
    """Raises `InputError` where no prompt carries continuations, or pairs differ in token length.

    align: "tokens" takes pairs of unequal length; see `encode_pairs`.
    """
    able = [prompt for prompt in prompts if prompt.defect is not None]
    if not able:
        raise InputError(
            "no prompt has reference continuations: add `safe` and `defect` to the lines of the file"
        )
    pairs = spread(make_pairs(able), PatchConfig(n_pairs=n_pairs, seed=seed))
    encoded = encode_pairs(pairs, model.tokenizer, align=align)
    columns = make_columns(pairs, encoded, model.tokenizer, spans=spans, alignment=alignment)
    return Ready(tuple(pairs), tuple(encoded), tuple(columns))


def facts(model: Model, **given: Any) -> dict[str, Any]:
    """What the provenance of a table says of the model, and of how the table was made."""
    return {
        "model": model.name, "identity": model.digest, "weights": model.weights_digest,
        **given,
    }  # fmt: skip
