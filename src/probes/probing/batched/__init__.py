"""Every probe of a sweep at once: the sums that its fits share are done once."""
