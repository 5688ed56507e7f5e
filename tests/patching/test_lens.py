"""Direct logits add up to the logits, and every stream is read as the model itself would read its last."""

import numpy as np
import pytest
import torch
from patching_cases import random_model
from torch import nn

from probes.foundation.errors import InputError, StageError
from probes.models.loading import Model
from probes.patching.lenses import direct_logits, freeze, logit_lens
from probes.patching.pairs import EncodedPair, encode_pairs

NATS = 1e-4


@pytest.fixture(scope="module")
def encoded(tokenizer, pairs) -> list[EncodedPair]:
    return encode_pairs(pairs, tokenizer)[:2]


def plain(model: Model, tokens, n_prompt: int) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(torch.tensor([tokens]), use_cache=False).logits[0, n_prompt - 1 :]


def test_direct_logits_add_up_to_the_model_s_own(model: Model, encoded) -> None:
    found = direct_logits(model, encoded, n_boot=20, n_flips=20)
    total = found.per_prompt.groupby("pair", sort=False)[["clean", "corrupted"]].sum()
    for i, pair in enumerate(encoded):
        assert pair.defect[0] != pair.safe[0]
        for run in ("clean", "corrupted"):
            logits = plain(model, getattr(pair, run), pair.n_prompt)[0].double()
            if model.name == "gemma2":  # before the bend
                logits = 3 * torch.atanh(logits / 3)
            right = float(logits[pair.defect[0]] - logits[pair.safe[0]])
            assert total[run].iloc[i] == pytest.approx(right, abs=5 * NATS)
            assert found.totals[run].iloc[i] == pytest.approx(right, abs=5 * NATS)
    heads = found.rows[found.rows["kind"] == "z"]
    assert len(heads) == 8 and heads["mean"].abs().min() > 0
    embed = found.rows[found.rows["kind"] == "embed"]["mean"].iloc[0]
    assert abs(embed) < found.rows["mean"].abs().max()
    assert "most of it by" in repr(found) and "z.1" in found._repr_html_()


def test_one_head_s_term_is_what_is_lost_without_it(tokenizer, encoded) -> None:
    """With the norm's scale held by hand: a Llama without a final norm loses exactly the head's term."""
    model = random_model("llama", tokenizer)
    model.hf.model.norm = nn.Identity()
    found = direct_logits(model, encoded, n_boot=0, n_flips=0)
    pair, before = encoded[0], plain(model, encoded[0].clean, encoded[0].n_prompt)[0]
    weight = model.hf.model.layers[1].self_attn.o_proj.weight
    weight[:, 8:16] = 0  # head 1 of the last layer writes nothing any more
    model.hf.model.layers[1].mlp.down_proj.weight.zero_()
    after = plain(model, pair.clean, pair.n_prompt)[0]
    lost = (before - after)[pair.defect[0]] - (before - after)[pair.safe[0]]
    rows = found.per_prompt[found.per_prompt["pair"] == pair.name].set_index("component")["clean"]
    assert rows["z.1.1"] + rows["mlp_out.1"] == pytest.approx(float(lost), abs=NATS)
    assert abs(rows["z.1.1"]) > NATS


def test_every_stream_is_read_through_the_model_s_own_end(model: Model, encoded) -> None:
    from probes.models.hooks import recording
    from probes.models.sites import residual_sites

    found = logit_lens(model, encoded, n_boot=20)
    pair = encoded[0]
    sites = residual_sites(model.n_layers)
    with torch.no_grad(), recording(model.hf, sites) as seen:
        model.hf(torch.tensor([pair.clean]), use_cache=False)
    decoder = model.hf.get_decoder()
    names = ("norm", "ln_f", "final_layer_norm")
    norm = next(getattr(decoder, name) for name in names if hasattr(decoder, name))
    each = found.per_prompt.set_index(["depth", "run", "measure", "pair"])["value"]
    for depth, site in enumerate(sites):
        with torch.no_grad():
            logits = model.hf.get_output_embeddings()(norm(seen[site][0, -1]))
        if model.name == "gemma2":
            logits = 3 * torch.tanh(logits / 3)
        logs = logits.log_softmax(-1)
        right = float(logs[pair.defect[0]] - logs[pair.safe[0]])
        assert each[depth, "clean", "parting", pair.name] == pytest.approx(right, abs=NATS)
        rank = 1 + int((logs > logs[pair.defect[0]]).sum())
        assert each[depth, "clean", "rank_defect", pair.name] == rank
    assert each[model.n_layers, "clean", "kl", pair.name] == pytest.approx(0, abs=1e-6)
    last = plain(model, [*pair.clean, *pair.defect[:-1]], pair.n_prompt).log_softmax(-1)
    other = plain(model, [*pair.clean, *pair.safe[:-1]], pair.n_prompt).log_softmax(-1)
    metric = sum(float(last[i, t]) for i, t in enumerate(pair.defect))
    metric -= sum(float(other[i, t]) for i, t in enumerate(pair.safe))
    assert each[model.n_layers, "clean", "metric", pair.name] == pytest.approx(metric, abs=NATS)
    assert len(found.curve()) == model.n_layers + 1 and "LogitLens(" in repr(found)
    with pytest.raises(InputError, match="parting, metric"):
        found.curve("logit")


def test_the_token_at_which_they_part_may_come_later(llama: Model, encoded) -> None:
    first = encoded[0]
    shared = EncodedPair(
        "later", first.clean, first.corrupted, (5, *first.safe), (5, *first.defect)
    )
    found = direct_logits(llama, [shared], n_boot=0, n_flips=0)
    logits = plain(llama, [*first.clean, 5], first.n_prompt)[1]
    right = float(logits[first.defect[0]] - logits[first.safe[0]])
    assert found.totals["clean"].iloc[0] == pytest.approx(right, abs=NATS)
    beginning = EncodedPair("x", first.clean, first.corrupted, (5,), (5, 6))
    with pytest.raises(InputError, match="beginning of the other"):
        logit_lens(llama, [beginning], n_boot=0)


def test_the_lens_and_transformer_lens_agree(llama: Model, encoded) -> None:
    from transformer_lens.tools.analysis.logit_lens import logit_lens as theirs

    pair = encoded[0]
    ours = logit_lens(llama, [pair], n_boot=0).per_prompt
    ours = ours[(ours["run"] == "clean") & (ours["measure"] == "parting")]["value"].to_numpy()
    bridge = llama.bridge()
    with torch.no_grad():
        seen = theirs(
            bridge, torch.tensor([pair.clean]), targets=[pair.defect[0], pair.safe[0]],
            return_type="log_probs",
        )  # fmt: skip
    values = np.asarray(seen.values.squeeze())
    np.testing.assert_allclose(ours[1:], (values[:, 0] - values[:, 1])[-len(ours) + 1 :], atol=NATS)


class Twisted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)


def test_what_is_not_linear_at_a_held_scale_is_refused(tokenizer, encoded) -> None:
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    for norm in (nn.LayerNorm(32), nn.RMSNorm(32), nn.Identity()):
        frozen = freeze(norm.requires_grad_(False), x)
        assert frozen.centred == isinstance(norm, nn.LayerNorm)
        terms = torch.stack([0.25 * x, 0.75 * x - 1, torch.ones_like(x)], 1)
        total = frozen.passed_on(x, terms).sum(1) + frozen.bias
        torch.testing.assert_close(total.float(), norm(x), atol=1e-4, rtol=0)
    model = random_model("llama", tokenizer)
    model.hf.model.norm = Twisted()
    with pytest.raises(InputError, match="neither RMSNorm nor LayerNorm"):
        direct_logits(model, encoded, n_boot=0, n_flips=0)
    bent = random_model("llama", tokenizer)
    bent.hf.lm_head.register_forward_hook(lambda _, __, out: out.tanh())
    with pytest.raises(InputError, match="not its unembedding"):
        direct_logits(bent, encoded, n_boot=0, n_flips=0)


def test_a_lens_that_does_not_end_in_the_answer_is_refused(llama, encoded, monkeypatch) -> None:
    from probes.patching import lenses as module

    monkeypatch.setattr(module, "final_norm", lambda trunk, kept, stream: stream)
    with pytest.raises(StageError, match="is not its answer"):
        logit_lens(llama, encoded, n_boot=0)
