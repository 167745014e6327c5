"""`python -m squint` is `squint`."""

from squint.cli import entry

if __name__ == "__main__":
    entry()
