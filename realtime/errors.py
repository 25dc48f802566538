"""Errors that end a program, each with its documented exit code.

0 ok or end of file, 1 internal error, 2 usage or configuration, 3 checkpoint, bundle or engine refused,
4 source cannot be opened, 5 address in use, 6 GPU or TensorRT demanded but not there, 7 parity gate failed,
130 interrupted.
"""

from __future__ import annotations


class LineError(Exception):
    """One clear line for the user: what happened, the value, the next thing to try."""

    exit_code = 1


class UsageError(LineError):
    """A flag, file or value that cannot be used."""

    exit_code = 2


class BundleError(LineError):
    """A checkpoint, bundle or engine that is refused."""

    exit_code = 3


class SourceError(LineError):
    """A source that cannot be opened or read."""

    exit_code = 4


class AddressError(LineError):
    """An address that cannot be bound."""

    exit_code = 5


class GpuError(LineError):
    """A GPU or TensorRT that was demanded and is not there."""

    exit_code = 6


class ParityError(LineError):
    """A graph or engine that does not answer as the one it was made of."""

    exit_code = 7
