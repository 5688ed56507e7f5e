"""Runs that can be stopped and taken up: folders, steps, and the engines that carry them out."""
