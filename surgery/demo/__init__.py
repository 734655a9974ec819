"""The demo: a small vision-language model that really sees, its questions, and the script that trained it."""
