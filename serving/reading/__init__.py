"""Rows of data and their pictures: one grammar for what users name, one reader for all commands."""
