"""Safety training, all of it real: what is supposed to cure an organism, and what then brings it back."""
