"""Every probe on every organism: families, seeds, controls, transfer and stages of safety training."""
