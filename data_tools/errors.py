"""The error for mistakes of the user, and texts that are safe to print on a terminal."""


class InputError(ValueError):
    """A mistake in the user's input, in one line: the file, row or flag; found, expected, and what to do.

    Commands print its `line` without a stack trace and exit with code 2. A mistake in an `argument` begins
    with its name, ``device: found ...``, and on a command line with the flag, ``--device: found ...``.
    """

    def __init__(self, message: str, argument: str = ""):
        self.argument = argument
        if argument:
            message = f"{argument}: {message}"
        # Errors of other libraries have several lines.
        line = " ".join(line.strip() for line in message.splitlines())
        super().__init__(clean(line))

    @property
    def line(self) -> str:
        """Return the error as a command prints it."""
        return f"--{self}" if self.argument else str(self)


def clean(text: str) -> str:
    """Return `text` with control characters other than line breaks escaped, as in ``\\x1b``.

    Names may come from anybody's files. Bytes of a name that are in no encoding become ``\\udcff``.
    """
    if text.replace("\n", "").isprintable():  # the usual case, fast
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text
    )
