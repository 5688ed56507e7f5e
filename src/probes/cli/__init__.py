"""The command line, one verb per stage."""
