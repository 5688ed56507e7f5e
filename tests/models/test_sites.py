"""Site names of both kinds lead to the same places; wrong ones list the choices."""

import random

import pytest

from probes.foundation.errors import InputError
from probes.models.sites import KINDS, Site, all_sites, parse_site, residual_sites


def test_both_spellings():
    for kind in KINDS:
        for layer in (0, 11):
            site = Site(kind, layer)
            assert parse_site(str(site), 12) == parse_site(site.hook_name, 12) == site
    assert str(parse_site("blocks.2.hook_resid_mid", 3)) == "resid_mid.2"
    assert str(parse_site(" blocks.2.attn.hook_z ", 3)) == "z.2"


def test_negative_layers_count_from_the_end():
    assert parse_site("mlp_out.-1", 3) == Site("mlp_out", 2)
    assert parse_site("blocks.-3.hook_attn_out", 3) == Site("attn_out", 0)


def test_residual_sites_are_every_depth_once():
    sites = residual_sites(3)
    assert [str(site) for site in sites] == [
        "resid_pre.0",
        "resid_post.0",
        "resid_post.1",
        "resid_post.2",
    ]
    assert [site.depth for site in sites] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="at least one layer"):
        residual_sites(0)


def test_sites_sort_in_the_order_of_computation():
    sites = all_sites(2)
    assert [str(site) for site in sites] == [
        *("resid_pre.0", "z.0", "attn_out.0", "resid_mid.0", "mlp_out.0", "resid_post.0"),
        *("resid_pre.1", "z.1", "attn_out.1", "resid_mid.1", "mlp_out.1", "resid_post.1"),
    ]
    mixed = random.Random(0).sample(sites, len(sites))
    assert sorted(mixed) == sites
    assert sorted(mixed, key=lambda site: site.depth)[0].depth == 0
    assert all_sites(2, ("resid_post", "z")) == [sites[i] for i in (1, 5, 7, 11)]
    assert len({*sites, *all_sites(2)}) == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resid_post.3", "unknown layer 3 .* layers 0 to 2"),
        ("resid_post.-4", "layers 0 to 2"),
        ("resid_pots.1", "Did you mean 'resid_post'.* resid_pre, z, attn_out, resid_mid, mlp_out,"),
        ("layer 1", "unknown site 'layer 1'.* z.<layer>.* blocks.<layer>.attn.hook_z"),
        ("blocks.1.hook_z", "Did you mean 'attn.hook_z'"),
        ("blocks.1.attn.hook_mlp_out", "Did you mean 'hook_mlp_out'"),
    ],
)
def test_unknown_sites_list_the_choices(text, said):
    with pytest.raises(InputError, match=said):
        parse_site(text, 3)


def test_what_a_caller_cannot_use_is_unknown():
    residual = ("resid_pre", "resid_post")
    assert parse_site("resid_post.1", 3, residual) == Site("resid_post", 1)
    for text in ("mlp_out.1", "blocks.1.hook_mlp_out", "mlp"):
        with pytest.raises(InputError, match=r"resid_pre(\.<layer>)?, (hook_)?resid_post"):
            parse_site(text, 3, residual)


def test_a_site_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="Did you mean 'mlp_out'"):
        Site("mlp", 0)
    with pytest.raises(InputError, match="counts from 0, not -1"):
        Site("z", -1)
    with pytest.raises(InputError, match="Choose one of: resid_pre, z, attn_out"):
        all_sites(2, ("zz",))
