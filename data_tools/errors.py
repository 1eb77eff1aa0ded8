"""The error of the whole program, and the texts that reach a terminal."""


class InputError(ValueError):
    """A mistake in what the user gave: one line with the file, row or flag; what was found, what was expected, what to do.

    Command-line front ends print its `line` without a stack trace and exit with code 2. A mistake in an `argument`
    begins with its name, ``device: found ...``, and on a command line with the flag, ``--device: found ...``.
    """

    def __init__(self, message: str, argument: str = ""):
        self.argument = argument
        if argument:
            message = f"{argument}: {message}"
        line = " ".join(
            line.strip() for line in message.splitlines()
        )  # other libraries' errors have several lines
        super().__init__(clean(line))

    @property
    def line(self) -> str:
        """As a command prints it."""
        return f"--{self}" if self.argument else str(self)


def clean(text: str) -> str:
    """Return `text` with all that a terminal would obey, line breaks excepted, written out as ``\\x1b``.

    Names come from files of anybody. Those that are in no encoding come out as ``\\udcff``.
    """
    if text.replace("\n", "").isprintable():  # nearly always
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text
    )
