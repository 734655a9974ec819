"""Judging patched models: speed and memory under load, accuracy on questions, and the reports about both."""
