"""A loaded model that knows which model it is."""

import contextlib
import dataclasses
import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from probes.foundation.digest import short
from probes.foundation.errors import InputError, unknown
from probes.foundation.html import html_table
from probes.models import adapters, quantised
from probes.models.address import base_and_adapter, resolve
from probes.models.anatomy import blocks
from probes.models.checkpoints import check_safe, template_digest
from probes.models.encoding import limit_ids, token_table
from probes.models.identity import Identity, check_same, identity_of
from probes.models.placement import (
    DEVICE,
    DEVICE_MAP,
    DTYPE,
    check_device,
    check_placement,
    fastest,
    input_device,
    is_on_disk,
    is_spread,
)
from probes.models.pretrained import read_tokenizer, read_weights, write_weights
from probes.models.sinks import Sinks, find_sinks
from probes.models.sites import Site
from probes.models.source import Source, as_pairs
from probes.models.templates import template_of
from probes.prompts.readers import as_prompts
from probes.prompts.records import Prompt

if TYPE_CHECKING:
    import probes.activations.record
    import probes.patching.next_token

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU = torch.device("cpu")
AUTO = "auto"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A causal language model for reading: plain Hugging Face module, tokenizer, and what they are.

    hf: in evaluation mode, its parameters without gradients (activations may still have them).
    name: what tables and figures call it. directory: where its files lie.
    loaded_as: its identity when it was loaded, whatever it is computed in; see `identity`.
    source: what `load_from` needs to load it again; None for a model made by hand.
    """

    hf: Any
    tokenizer: Any
    name: str
    directory: Path
    loaded_as: Identity
    source: Source | None = None

    @property
    def identity(self) -> Identity:
        """What tells it from other models; the chat template is the tokenizer's of now."""
        return self.loaded_as.model_copy(
            update={"template_digest": template_digest(self.tokenizer)}
        )

    @property
    def digest(self) -> str:
        """Of the identity: what results are kept and looked up by."""
        return self.identity.digest

    @property
    def weights_digest(self) -> str:
        """Of the weights alone: what a lineage of checkpoints is told by."""
        return self.loaded_as.weights_digest

    @cached_property
    def n_layers(self) -> int:
        return len(blocks(self.hf))

    @property
    def d_model(self) -> int:
        return int(self.hf.config.get_text_config().hidden_size)

    @property
    def device(self) -> torch.device:
        """Where token ids must go; of a model that is spread, the others are accelerate's affair."""
        return input_device(self.hf)

    @property
    def dtype(self) -> torch.dtype:
        """Of the residual stream, which is that of the embedding; quantised matrices differ."""
        weight: torch.Tensor = next(self.hf.get_input_embeddings().parameters())
        return weight.dtype

    @property
    def quantization(self) -> str | None:
        """None, "8bit" or "4bit"."""
        return self.loaded_as.quantization

    @property
    def compute(self) -> str:
        """What the forward pass computes in, such as "bfloat16, products of int8"."""
        return quantised.computes_in(self.quantization, self.dtype, self.device)

    @property
    def no_bridge(self) -> str | None:
        """Why there can be no `bridge` of this model, or None where there can."""
        if self.quantization is not None:
            return f"its matrices are quantised ({self.quantization})"
        if is_spread(self.hf):
            places = dict.fromkeys(str(place) for place in self.hf.hf_device_map.values())
            return f"it is spread over {', '.join(places)}"
        return None

    @property
    def chat_template(self) -> str | None:
        """The template that chats are rendered with, the adapter's own where it has one."""
        return template_of(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """An id of the embedding to fill batches with; any will do, because pads are masked.

        A padding token that was added to the tokenizer alone has no row there, and is not taken.
        """
        n_rows = self.hf.get_input_embeddings().weight.shape[0]
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None and token < n_rows:
                return int(token)
        return 0

    @cached_property
    def sinks(self) -> Sinks:
        """Tokens of this model whose norm is far beyond that of all others, found at first use."""
        return find_sinks(self)

    def bridge(self) -> Any:
        """This model as a TransformerLens `TransformerBridge`, weights unprocessed.

        The bridge rebuilds the module that it is given, so it gets a copy: this model stays plain,
        and the two take twice the memory. Raises `InputError` for a model that is spread or
        quantised.
        """
        if self.no_bridge:
            raise InputError(
                f"no bridge for {self.name}: the bridge needs a whole model on one device, and "
                f"{self.no_bridge}. Agreement with TransformerLens is not checked for it; check "
                "the same checkpoint, or a smaller one of its architecture, loaded plainly"
            )
        from probes.models.lens import boot

        return boot(self.hf, self.tokenizer, str(self.directory.resolve()))

    def tokens(self, prompt: Prompt | str) -> pd.DataFrame:
        """How this model reads a prompt: `token` (id) and `piece` (text) by position."""
        return token_table(next(as_prompts(prompt)), self.tokenizer)

    def generate(
        self, prompts: Sequence[Prompt | str] | Prompt | Path | str, **settings: Any
    ) -> str | list[str]:
        """What the model writes: `behaviour.evaluate.write_texts`, with the settings of `SamplingConfig`."""
        from probes.behaviour.evaluate import write_texts

        return write_texts(self, prompts, **settings)

    def run(
        self, *prompts: Prompt | str, sites: Sequence[Site | str] | None = None
    ) -> "probes.activations.record.Recorded":
        """Activations at every token of these prompts, in memory: `activations.record.record_runs`."""
        from probes.activations.record import record_runs

        return record_runs(self, prompts, sites)

    def patch(
        self,
        prompt: Prompt | str,
        from_: "probes.activations.record.Recorded",
        site: Site | str,
        position: int | Sequence[int] | None = None,
        *,
        answers: tuple[str, str] | None = None,
    ) -> "probes.patching.next_token.PatchedRun":
        """One exact patch of a prompt's run: `patching.next_token.patch_run`."""
        from probes.patching.next_token import patch_run

        return patch_run(self, prompt, from_, site, position, answers=answers)

    def steer(
        self,
        site: Site | str | Sequence[Site | str],
        direction: Any,
        dose: float | int = 1.0,
        *,
        tokens: str = "all",
    ) -> contextlib.AbstractContextManager[None]:
        """Add dose times the direction (numbers, or a linear probe) in a block: `patching.steering.steered`."""
        from probes.patching.steering import steered

        return steered(self, site, direction, dose, tokens=tokens)

    def facts(self) -> dict[str, str | int]:
        """What a reader wants to know at a glance, in order."""
        return {
            "model": self.name,
            "architecture": type(self.hf).__name__,
            "layers": self.n_layers,
            "d_model": self.d_model,
            "vocabulary": int(self.hf.config.get_text_config().vocab_size),
            "parameters": int(self.hf.num_parameters()),
            "dtype": self.compute,
            "device": str(self.device),
            "weights": short(self.weights_digest),
            "identity": short(self.digest),
            "chat template": short(template_digest(self.tokenizer) or "none"),
        }

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.facts().items())
        return f"Model({facts})"

    def _repr_html_(self) -> str:
        return html_table(self.facts())


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    label: str | None = None,
    adapter: str | Path | None = None,
    device_map: str | Mapping[str, int | str | torch.device] | None = None,
    quantization: str | None = None,
) -> Model:
    """Load a checkpoint directory or hub id for reading, after refusing everything unsafe in it.

    name: also a LoRA adapter's directory, which says what its base is, or both as "BASE+ADAPTER".
    device: "cpu", "cuda", "mps", "auto" for the fastest of these; by default that of `on_device`, which
        is the CPU where nothing is said.
    dtype: what to compute in, whatever the files hold; "auto" measures whether bfloat16 is faster
        here and near enough, and says so; by default float32, or that of `on_device`.
    label: a name for tables; by default the name of the directory, or the hub id, and "+" with that
        of the adapter.
    adapter: directory or hub id of a LoRA adapter, merged into the weights in `dtype`, in memory.
    device_map: for a model that does not fit one device: "auto", "balanced", "sequential", or a
        dictionary from modules to devices and "disk"; instead of `device`.
    quantization: "8bit" or "4bit" through bitsandbytes.
    Raises `InputError` for an unknown name, an unsafe or incomplete checkpoint or adapter, an
    unknown device, and a package that is missing.
    """
    wanted = (
        os.environ.get(DTYPE, "float32") if dtype is None else str(dtype).removeprefix("torch.")
    )
    if wanted not in (*DTYPES, AUTO):
        raise unknown("dtype", wanted, [*DTYPES, AUTO])
    if device is None and device_map is None:
        device_map = os.environ.get(DEVICE_MAP)
    base, own = base_and_adapter(name)
    if own is not None and adapter is not None:
        raise InputError(f"{name} is an adapter already ({own}), and adapter={adapter!s} another")
    adapter = own if adapter is None else adapter
    source = Source(
        directory=_address(base),
        label=label or "+".join(_short_name(part) for part in (base, adapter) if part is not None),
        device=_device(device, device_map is not None),
        dtype="bfloat16" if wanted == AUTO else wanted,
        adapter=None if adapter is None else _address(adapter),
        device_map=device_map if isinstance(device_map, str | None) else as_pairs(device_map),
        quantization=quantization,
    )
    found = _load(source, None)
    if wanted == AUTO:
        from probes.models.precision import bfloat16_will_do

        if not bfloat16_will_do(found):
            return _load(source.model_copy(update={"dtype": "float32"}), None)
    return found


def _device(device: str | torch.device | None, mapped: bool) -> str:
    if device is None and mapped:
        return "cpu"
    return str(os.environ.get(DEVICE, "cpu") if device is None else device).replace(
        "auto", fastest()
    )


def load_from(source: Source, identity: Identity) -> Model:
    """Load the very model that another process had: `model.source` and `model.identity`.

    Raises `InputError` with what differs, before it loads, where another model lies there now.
    """
    return _load(source, identity)


def _load(source: Source, expected: Identity | None) -> Model:
    where, dtype = _check(source)
    directory = resolve(source.directory, source.adapter)
    check_safe(directory)
    adapter = None
    if source.adapter is not None:
        adapter = resolve(source.adapter)
        adapters.check_adapter(adapter)
    tokenizer = read_tokenizer(directory)
    if adapter is not None:
        tokenizer = adapters.adapted_tokenizer(tokenizer, adapter)
    identity = identity_of(directory, tokenizer, adapter=adapter, quantization=source.quantization)
    if expected is not None:
        check_same(
            identity, expected, f"at {source.directory} lies",
            "Give the checkpoint that it was made from, or begin anew with this one",
        )  # fmt: skip
    hf = _assemble(source, directory, adapter, where, dtype)
    blocks(hf)
    limit_ids(tokenizer, hf.get_input_embeddings().weight.shape[0])
    return Model(
        hf=hf,
        tokenizer=tokenizer,
        name=source.label,
        directory=directory,
        loaded_as=identity,
        source=source,
    )


def _assemble(
    source: Source, directory: Path, adapter: Path | None, where: torch.device, dtype: torch.dtype
) -> Any:
    """Weights, merged with the adapter, where they were asked to be and as small.

    An adapter is merged on the CPU; a result that is then spread or quantised goes through
    safetensors in a temporary folder, which lives for as long as weights are read from it.
    """
    if source.placement is None and source.quantization is None:
        hf = read_weights(directory, dtype, device=where if adapter is None else CPU)
        if adapter is not None:
            hf = adapters.merge(hf, adapter).requires_grad_(False).to(where)
        return hf
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="probes-weights-")))
        if adapter is not None:
            merged = adapters.merge(read_weights(directory, dtype, device=CPU), adapter)
            directory = folder / "merged"
            write_weights(merged, directory)
            del merged
        hf = read_weights(
            directory,
            dtype,
            device=where,
            placement=source.placement,
            quantization=source.quantization,
            offload=folder,
        )
        if is_on_disk(hf):
            weakref.finalize(hf, cleanup.pop_all().close)
    return hf


def _check(source: Source) -> tuple[torch.device, torch.dtype]:
    """Refuse what can be refused before anything is read."""
    if source.dtype not in DTYPES:
        raise unknown("dtype", source.dtype, DTYPES)
    if source.placement is not None:
        check_placement(source.placement, source.device)
    if source.quantization is not None:
        quantised.check_quantization(source.quantization)
    if source.adapter is not None:
        adapters.check_peft()
    return check_device(source.device), DTYPES[source.dtype]


def _address(name: str | Path) -> str:
    """What finds the same folder from any other working directory; a hub id stays one."""
    path = Path(name).expanduser()
    return str(path.resolve()) if isinstance(name, Path) or path.exists() else name


def _short_name(name: str | Path) -> str:
    path = Path(name).expanduser()
    return path.resolve().name if path.is_dir() else str(name)


def for_workers(model: Model) -> Source:
    """How a Ray worker loads the model; raises `InputError` for one that was not loaded from files."""
    if model.source is None:
        raise InputError(
            f"{model.name} was made by hand, so Ray workers cannot load it: save it and load it "
            'with `load`, or use engine="process"'
        )
    # Ray shows a worker its own GPU only, as the first.
    on_gpu = model.source.device.startswith("cuda")
    return model.source.model_copy(update={"device": "cuda"}) if on_gpu else model.source
