"""Keep finished stores: verify, repair, list, tidy, merge, export and move them."""
