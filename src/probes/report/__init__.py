"""What a person reads: one page with the claim, what to doubt, tables and figures."""
