"""Preset `efficient`: measuring what every KV group is good for, and choosing the groups that can go."""
