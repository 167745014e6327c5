"""How a command says that it failed."""


class Failure(Exception):
    """The command failed; the message is one line for whoever typed it, and the exit code is 1."""


def how_to_get(extra: str) -> str:
    """How an extra that is missing is installed. torch, which `models` has, comes from a lock file: without it pip
    takes builds of several gigabytes. The package is named by its path: by its name alone pip finds another one."""
    if extra == "models":
        return "run `make models-env` in the checkout, then this command as .venv-models/bin/squint"
    return f"install the extra '{extra}' in the checkout: .venv/bin/pip install -e '.[{extra}]'"
