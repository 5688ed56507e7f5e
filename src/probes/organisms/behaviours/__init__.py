"""What organisms are taught to do: one file per behaviour, all of one form."""
