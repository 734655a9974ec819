"""`lostattn eval`: the two ways of answering a task's items, and the run around them."""
