"""Prompts: records, triggers, the task grammar, the corpus with its grouped splits, and readers."""
