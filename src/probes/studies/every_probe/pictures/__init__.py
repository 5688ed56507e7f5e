"""What each figure of a battery shows: rows chosen from its tables, and a caption that says which."""
