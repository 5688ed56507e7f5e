"""Organisms: recipes, architecture, tokenizer, the training loop, and families of twins."""
