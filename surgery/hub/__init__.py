"""The Hugging Face Hub: pushing a patched folder in one commit, pulling a repository whole."""
