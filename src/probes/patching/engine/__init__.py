"""Run only what a patch can change: from the patched layer up, from the patched position on."""
