"""Site names of both kinds lead to the same places; wrong ones list the choices."""

import pytest

from probes.foundation.errors import InputError
from probes.models.sites import Site, parse_site, residual_sites


def test_both_spellings():
    for kind in ("resid_pre", "resid_post"):
        for layer in (0, 11):
            site = Site(kind, layer)
            assert parse_site(str(site), 12) == parse_site(site.hook_name, 12) == site
    assert str(parse_site("blocks.2.hook_resid_post", 3)) == "resid_post.2"


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resid_post.3", "unknown layer 3 .* layers 0 to 2"),
        ("resid_post.-1", "layers 0 to 2"),
        ("resid_pots.1", "Did you mean 'resid_post'.* resid_pre, resid_post"),
        ("mlp_out.1", "resid_pre, resid_post"),
        ("layer 1", "unknown site 'layer 1'"),
        ("blocks.1.attn.hook_z", "unknown site"),
    ],
)
def test_unknown_sites_list_the_choices(text, said):
    with pytest.raises(InputError, match=said):
        parse_site(text, 3)
