"""How fast and how frugal the package is, against its peers and against what the machine allows."""
