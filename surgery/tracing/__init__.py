"""Attention tracing (the paper's appendix E): which picture parts a decoder's layers connect, and how many of the links touch
the evidence."""
