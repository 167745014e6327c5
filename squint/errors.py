"""How a command says that it failed."""


class Failure(Exception):
    """The command failed; the message is one line for whoever typed it, and the exit code is 1."""
