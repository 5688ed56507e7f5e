"""Where a backdoor is: where the cue is read, where the decision is formed, and where it is written."""
