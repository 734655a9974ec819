"""The commands of `lostattn`: each parses, calls one function, prints."""
