"""Is a found direction necessary for a backdoor, and is it sufficient? Doses, curves, controls, a reading."""
