"""What can go wrong through the user's input or data, each with a message that says what was found and what to do.

Every error here is a mistake that a user can mend, so the command line prints its message without a traceback and exits
with code 2. Programming errors stay ordinary exceptions (exit code 1).
"""

#: Exit codes of the command. The fourth is EX_TEMPFAIL of sysexits.h, "try again": saved, and --resume continues. The
#: last is what a shell reports of a program whose output nobody reads any more.
OWN_FAULT, USER_MISTAKE, INTERRUPTED, TO_BE_CONTINUED, READER_GONE = 1, 2, 130, 75, 141


def printable(text: object) -> str:
    """Text in one line, without what a terminal would obey: escape sequences, line breaks, marks that reorder text.

    Names of datasets, texts in checkpoints and names of files come from others and may hold anything.

    Args:
        text: Any object, as ``str`` has it.

    Returns:
        The text, with the characters that `repr` would escape in the form that it would give them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class NenyaError(ValueError):
    """A mistake in what the user gave: the message says what was found, what was expected and what to do.

    Args:
        message: One line. It may hold names and texts from files: what is not `printable` in them is escaped.
        details: Further lines, likewise.
    """

    def __init__(self, message: str, *details: str) -> None:
        super().__init__(message, *details)

    def __str__(self) -> str:
        return "\n".join(printable(line) for line in self.args)


class OptionError(NenyaError):
    """An options file, or a value assigned to an option, that cannot be used."""


class DataError(NenyaError):
    """Imagery or labels that cannot be read or do not fit the options."""


class CheckpointError(NenyaError):
    """A checkpoint that is missing, damaged, or does not fit the model."""


class CollapseError(NenyaError):
    """The features carry (almost) no information any more, whatever the loss says."""


class NonFiniteLossError(NenyaError):
    """The loss became NaN or infinite."""


class OtherProcessError(NenyaError):
    """Another process of the run failed, or is lost.

    Attributes:
        speaks: Whether this process is the one to say so.
        lost: Whether the other is gone, instead of having told what is wrong with the input.
    """

    def __init__(self, message: str, *details: str, speaks: bool = False, lost: bool = False) -> None:
        super().__init__(message, *details)
        self.speaks = speaks
        self.lost = lost
