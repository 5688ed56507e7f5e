"""Rules that are stated before the data is seen: how one is applied, and how its answer is put into words."""
