"""The parser of every command: wrong usage is one line that names the option and where options are listed."""

from __future__ import annotations

import argparse
from typing import NoReturn

from models.errors import UserError


class CommandParser(argparse.ArgumentParser):
    """A parser that reports wrong usage as a UserError, without argparse's usage."""

    def __init__(self, command: str, description: str, **options) -> None:
        # Not on error: parse_known_args raises, and reports the error itself.
        super().__init__(prog=f"pairmill {command}", description=description, exit_on_error=False, **options)

    def parse_known_args(self, args=None, namespace=None):
        try:
            return super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            if isinstance(error.__context__, argparse.ArgumentTypeError):
                # A type of ours, whose message begins with the value and ends with what to give instead.
                raise UserError(" ".join(filter(None, (error.argument_name, error.message)))) from None
            self.error(": ".join(filter(None, (error.argument_name, error.message))))

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists the options")
