"""Whole questions, composed of the stages: a study reads like the README."""
