"""The one exception a user causes; the commands print its message as one line and exit with status 2."""


class InputError(ValueError):
    """Bad input from a user: the message says what is wrong, what was expected and what would work."""
