"""Passwords: kept off command lines, and out of everything that is printed, logged or published.

An address with a password stands in one place, the source that was opened with it. Everybody else sees it `redacted`;
and whatever text leaves the program goes through `scrub`, which knows each password by name, also percent-encoded.
Standard library only, and little of it: `hide_arguments` runs before anything else is loaded.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, quote_plus, unquote

from realtime.errors import UsageError
from realtime.private import read_secret

MASK = "***"
SHORTEST = 4  # characters of a password that is masked wherever it stands; a shorter one only behind its user's name
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/+")
_TELLING = r"[\w.-]*(?:token|key|passw(?:or)?d|passphrase|pwd|pass|secret|auth|credential|signature|sig)[\w.-]*"
_PAIR = re.compile(rf"(?<![\w%])({_TELLING}=)((?:(?!_[a-z]+=)[^&;#/\s])+)", re.IGNORECASE)
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s'\"<>]*@")
_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAMED_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/+)\$\{\w+\}(?::\$\{\w+\})?@")
_NAMED_QUERY = re.compile(r"\?(?:(?:\w+=)?\$\{\w+\}(?:&|$))+$")
_LEGAL = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*")  # of user and password, RFC 3986

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:[0-9]))(:[0-9]+)?")

_forms: set[str] = set()  # each secret in each form that it may take
_pattern: re.Pattern[str] | None = None
_hidden: dict[str, str] = {}  # an argument as it is shown -> as it was given
_lock = threading.Lock()


def redacted(spec: str) -> str:
    """An address without user, password and query: rtsp://***@host/path. Anything else as it is.

    Passwords may hold @ / ? # : % and spaces, so all up to the last @ goes, whatever the scheme, and also where it
    was forgotten (user:password@host).
    """
    begin = _SCHEME.match(spec)
    scheme = begin.group() if begin else ""
    before, at, rest = spec[len(scheme) :].rpartition("@")
    if not scheme and not (at and ":" in before):
        return _PAIR.sub(rf"\1{MASK}", spec) if "?" in spec else spec
    bare, mark, _ = re.match(r"([^?#]*)([?#]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    bare = _PAIR.sub(rf"\1{MASK}", bare)
    return f"{scheme}{MASK + '@' if at else ''}{bare}{mark + MASK if mark else ''}"


def written(spec: str) -> str:
    """An address as a person wrote it, where ${NAME} stands for every secret; else `redacted`."""
    without = _NAME.sub("", _NAMED_QUERY.sub("", _NAMED_USER.sub(r"\1", spec)))
    return spec if redacted(without) == without else redacted(spec)


def secrets_of(spec: str) -> list[str]:
    """What must not be seen of an address: user:password, the password, and telling values of its query.

    Where several @ leave open which one ends the password, each reading counts. ${NAME} alone is no secret.
    """
    begin = _SCHEME.match(spec)
    rest = spec[begin.end() if begin else 0 :]
    found = [value for _, value in _PAIR.findall(rest)] if begin else []
    for at in (place for place, letter in enumerate(rest) if letter == "@"):
        user, colon, password = rest[:at].partition(":")
        if colon or begin:
            found += [rest[:at], password if colon else user]
    return [text for text in dict.fromkeys(found) if _NAME.sub("", text).strip(":")]


def keep_secret(text: str) -> bool:
    """From now on `scrub` replaces this text, raw, percent-encoded, in base64 and as JSON and repr write it.

    False, and nothing done, where it is too short to be told from other words.
    """
    global _pattern
    plain = {one for one in (text, unquote(text)) if len(one) >= SHORTEST}
    if not plain:
        return False
    forms: set[str] = set()
    for one in plain:
        coded = {quote(one, safe=""), quote(one), quote_plus(one), quote(one, safe="!$&'()*+,;=:")}
        forms |= {one, *coded, *(re.sub(r"%..", lambda m: m.group().lower(), c) for c in coded)}
        forms |= {base64.b64encode(one.encode("utf-8", "surrogateescape")).decode()}
        forms |= {json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], repr(one)[1:-1]}
    with _lock:
        _forms.update(forms)
        _pattern = re.compile("|".join(map(re.escape, sorted(_forms, key=len, reverse=True))))  # the longest first
    return True


def scrub(text: str) -> str:
    """The text without any secret that is known, and without what stands between :// and @ in any address."""
    if _pattern is not None:
        text = _pattern.sub(MASK, text)
    return _USERINFO.sub(rf"\1{MASK}@", text) if "@" in text else text


def source_of(source: str, source_from: Path | None, environ: Mapping[str, str] = os.environ) -> str:
    """The address to open: what --source or --source-from say, with ${NAME} filled in; its secrets are known from now.

    Errors: UsageError names the variable that is missing, or says why the file is refused.
    """
    spec = _first_line(source_from) if source_from is not None else revealed(source)
    spec = expand(spec, environ)
    for secret in secrets_of(spec):
        keep_secret(secret)
    return spec


def revealed(value: str) -> str:
    """A flag's value as it was given, where `hide_arguments` took a password out of it."""
    return _hidden.get(value, value)


def expand(spec: str, environ: Mapping[str, str] = os.environ) -> str:
    """${NAME} replaced from the environment; as user or password it is taken as it is and percent-encoded.

    Errors: UsageError names the variable that is missing.
    """
    begin = _SCHEME.match(spec)

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in environ:
            raise UsageError(f"--source needs {name} from the environment, where it is not; run: export {name}=…")
        within = begin is not None and re.match(r"[^/]*@", spec[found.end() :])
        return quote(environ[name], safe="") if within else environ[name]

    return _NAME.sub(value, spec)


def sendable(address: str) -> str:
    """The address with user and password percent-encoded where they are not yet, as a player of streams needs it.

    A player takes all up to the first of / ? # for user, password and host. Where no host comes out of that, a
    password as it was typed stands there: then the last @ ends it, and all of it is encoded, % too.
    """
    begin = _SCHEME.match(address)
    rest = address[begin.end() :] if begin else ""
    before, at, host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if not begin or "@" not in rest or (_LEGAL.fullmatch(before) and _HOST.fullmatch(host)):
        return address
    userinfo, _, after = rest.rpartition("@")
    if not at and (":" not in userinfo or _HOST.fullmatch(host) or re.fullmatch(r"[^:]*(:[0-9]*)?", host)):
        return address  # host/path@more: no user at all
    if at and _LEGAL.fullmatch(before) and not _HOST.match(after):
        return address
    user, colon, password = userinfo.partition(":")
    return f"{begin.group()}{quote(user, safe='')}{colon}{quote(password, safe='')}@{after}"


def _first_line(path: Path) -> str:
    line = read_secret(path).partition("\n")[0].strip("\r \t")
    if not line or len(line) > 4096 or not line.isprintable():
        raise UsageError(f"the first line of {path} must be a source of 1 to 4096 printable characters; write it there")
    return line


TEMPLATE = "template"  # attribute of a record: its message before arguments and filters


class Scrub(logging.Filter):
    """Takes secrets out of what is logged, its exceptions included; on every handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True; the record's text, and its traceback as text, are without secrets from here on."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a wrong format, of which logging itself would print all arguments
            text = f"{record.msg} {record.args!r}"
        record.__dict__.setdefault(TEMPLATE, str(record.msg))
        record.msg, record.args = scrub(text), None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = scrub("".join(traceback.format_exception(*record.exc_info)).rstrip())
        if record.stack_info:
            record.stack_info = scrub(record.stack_info)
        return True


class _Record(logging.LogRecord):
    """Covers handlers that were made without a `Scrub`."""

    def getMessage(self) -> str:
        return scrub(super().getMessage())


def scrub_everything() -> None:
    """From now on log records and uncaught exceptions, of any thread, leave the program without secrets.

    Hooks that another program has set are left alone.
    """
    if logging.getLogRecordFactory() is logging.LogRecord:
        logging.setLogRecordFactory(_Record)
    for handler in (*logging.getLogger().handlers, logging.lastResort):
        if handler is not None and not any(isinstance(one, Scrub) for one in handler.filters):
            handler.addFilter(Scrub())
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _tell_uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda args: _tell_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda args: _tell_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _tell_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, SystemExit) or sys.stderr is None:
        return
    with contextlib.suppress(OSError):  # nobody reads any more what we say
        sys.stderr.write(scrub("".join(traceback.format_exception(kind, error, trace))))
        sys.stderr.flush()


def hide_arguments() -> None:
    """Takes passwords off this process's command line, where ps shows them to every user of the machine.

    From here on sys.argv too holds addresses as they may be seen, so no complaint about flags can show more;
    `source_of` knows what was given. Where the memory cannot be written, one line says so and what to do instead.
    """
    shown: dict[str, str] = {}
    for argument in sys.argv[1:]:
        flag, mark, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        secrets = secrets_of(value)
        if secrets:
            shown[argument] = flag + mark + redacted(value)
            _hidden[redacted(value)] = value
        for secret in secrets:
            keep_secret(secret)
    if not shown:
        return
    for arguments in (sys.argv, sys.orig_argv):
        arguments[:] = [shown.get(argument, argument) for argument in arguments]
    try:
        _overwrite({os.fsencode(given): os.fsencode(seen) for given, seen in shown.items()})
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        print(f"warning: the password can be seen in the list of processes ({why}); use --source-from", file=sys.stderr)


def _overwrite(shown: Mapping[bytes, bytes]) -> None:
    """Writes over arguments where the kernel reads them, each as long as it was. OSError, ValueError: nothing done.

    Through /proc/self/mem: a wrong place is an error there, not a crash.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # the program's name may hold anything
    begin, end = (int(field) for field in fields[45:47])  # arg_start, arg_end; ValueError where there are none
    if not 0 < begin < end < begin + 4_000_000:
        raise ValueError("the kernel does not tell where the arguments are")
    with open("/proc/self/cmdline", "rb") as file:
        told = file.read()
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(begin)
        found = memory.read(end - begin)
        pieces = [shown[one][: len(one)].ljust(len(one)) if one in shown else one for one in found.split(b"\0")]
        written = b"\0".join(pieces)
        if found != told or len(written) != len(found) or written == found:
            raise ValueError("the arguments are not where the kernel tells")
        memory.seek(begin)
        memory.write(written)
