"""What can go wrong with the lab, in words for the person who started it."""


class LabError(Exception):
    """The lab cannot do what was asked; the message says what to change."""
