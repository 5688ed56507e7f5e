"""What a person reads: one page with the verdict, its doubts, tables and figures."""
