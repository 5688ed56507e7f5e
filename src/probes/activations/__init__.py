"""What to collect from a model, collecting it, and the store on disk that says what made it."""
