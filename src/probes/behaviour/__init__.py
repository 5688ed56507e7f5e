"""What the model actually did: samples, their code judged but never run, rates."""
