"""Who computes the shards: this process, or the workers of a Ray cluster."""
