"""Frozen configs, digests, atomic artifacts with provenance, progress, tables, shape vocabulary."""
