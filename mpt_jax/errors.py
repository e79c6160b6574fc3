"""The one exception a user causes; the commands print its message as one line and exit with status 2."""


class InputError(ValueError):
    """Bad input from a user: the message says what is wrong, what was expected and what would work."""


def one_line(error: BaseException) -> str:
    """The message as one printable line of at most 2,000 characters: of a longer one the middle is left out.

    Examples:
      >>> one_line(InputError("no such" + chr(10) + " class"))
      'no such class'
    """
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return text if len(text) <= 2000 else f"{text[:1400]} ... {text[-595:]}"
