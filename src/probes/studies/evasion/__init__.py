"""The adversary: organisms trained to evade a probe, and what still catches them."""
