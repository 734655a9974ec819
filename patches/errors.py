"""The one exception of lostattn that a user is meant to read."""


class LostattnError(ValueError):
    """A mistake that the user can mend; the message is one sentence that says how."""
