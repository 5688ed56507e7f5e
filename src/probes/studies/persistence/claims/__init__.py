"""The paper's findings, each as a measure of the grid with its control, and the rule that compares them."""
