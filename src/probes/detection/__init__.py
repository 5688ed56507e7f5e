"""Does a probe detect defection? Which rows it is fitted and judged on, its controls, the claim."""
