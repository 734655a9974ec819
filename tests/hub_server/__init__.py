"""A Hub for tests: the HTTP protocol that huggingface_hub speaks, in threads of this process, with faults on demand."""
