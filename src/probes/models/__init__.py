"""Checkpoints, loading, hook sites, forward passes, hooks, and the self-test of them all."""
