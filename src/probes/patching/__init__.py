"""Which activations carry the trigger to the answer: exact grids of the residual stream."""
