"""The frame of every command: common options, commands of other packages, errors and exit codes.

``--profile`` and ``--json`` are understood before and after any subcommand. Commands that need more than
the base install come from entry points in the group ``koinon.commands``: each names a list of click commands, which
get the same options and may ask ``invocation()`` for them.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, NoReturn

import click
from google.protobuf.message import Message

from koinon.cli import output
from koinon.client import Client, connect
from koinon.display import plain, printable
from koinon.errors import InvalidInput, KoinonError, Unavailable
from koinon.profile import ENVIRONMENT

GROUP = "koinon.commands"
NODE_COMMANDS = dict.fromkeys(("init", "genesis", "node", "doctor", "ledger"), "node") | {
    "testnet": "testnet",
    "demo": "demo",
}
"""Commands of the ``node`` extra, and the entry point that brings each."""

EXTENDED = {"key": "node"}
"""Own groups to which an extra adds commands, and its entry point."""

_INTERRUPTED = 130
_SENTENCE = 200  # characters
_TRACEBACK = "KOINON_TRACEBACK"


@dataclass(slots=True)
class Invocation:
    """What the common options of one invocation say."""

    profile: str | None = None
    json: bool = False
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        """The client of the profile, connected on first use and closed with the command."""
        if self._client is None:
            ask = _ask_passphrase if sys.stdin.isatty() else None
            self._client = connect(self.profile, ask_passphrase=ask, on_undecided=_say_undecided)
            click.get_current_context().find_root().call_on_close(self._client.close)
        return self._client


def invocation() -> Invocation:
    """The invocation of the command that runs."""
    return click.get_current_context().ensure_object(Invocation)


def tell(
    data: Message | dict[str, Any], text: str, *beside: str, facts: Iterable[tuple[str, str]] | None = None
) -> None:
    """What a command says that did one thing: JSON; or a line for a person, facts, and what else there is to say."""
    if invocation().json:
        output.show_json(plain(data) if isinstance(data, Message) else data)
        return
    output.show_text(f"{printable(text)}\n")
    if facts is not None:
        output.show(output.facts(facts))
    for line in beside:
        output.say(line)


def _say_undecided() -> None:
    """For scripts, too, which see no line that says what goes on."""
    output.say("the ledger has not decided yet; koinon why-stalled tells why")


def _ask_passphrase(prompt: str) -> str:
    answer: str = click.prompt(prompt, hide_input=True, err=True)
    return answer


def _set_profile(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Invocation).profile = value


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Invocation).json = True


def with_common_options(command: click.Command) -> click.Command:
    """The command, and all below it, understanding ``--profile`` and ``--json`` where they do not already.

    Lists of commands show the whole first sentence of each: click would cut it off where the line ends.
    """
    command.short_help = command.get_short_help_str(_SENTENCE)
    taken = {name for parameter in command.params for name in parameter.opts}
    if "--profile" not in taken:
        help_text = f"Who asks, of which node: a file, or the name of one.  [env: {ENVIRONMENT}]"
        command.params.append(
            click.Option(["--profile"], metavar="FILE", expose_value=False, callback=_set_profile, help=help_text)
        )
    if "--json" not in taken:
        command.params.append(
            click.Option(["--json"], is_flag=True, expose_value=False, callback=_set_json, help="Data as JSON.")
        )
    if isinstance(command, click.Group):
        for child in command.commands.values():
            with_common_options(child)
    return command


class App(click.Group):
    """The root command."""

    def __init__(self, commands: Sequence[click.Command]) -> None:
        super().__init__(
            "koinon",
            help="Find data of other institutions, ask for access, and compute jointly on what never leaves home.\n\n"
            "\b\nExamples:\n"
            "  koinon testnet up --dir net --detach\n"
            "  koinon --profile net/profiles/analyst.toml catalog search pancreatitis\n"
            '  koinon query "SELECT rx, COUNT(*) FROM ercp.indo_rct GROUP BY rx" --dry-run\n',
            epilog="Data goes to stdout, everything else to stderr. Exit codes: 2 input, 3 not found, 4 refused, "
            "5 key or certificate, 6 node out of reach, 7 a bound was hit, 8 corrupt.",
            no_args_is_help=True,
            context_settings={"max_content_width": output.HELP_WIDTH},
        )
        for command in commands:
            self.add_command(command)
        with_common_options(self)
        self.params.append(
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_version,
                help="Show the version.",
            )
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Own commands and those of installed packages; those of the node extra always."""
        return sorted({*super().list_commands(ctx), *NODE_COMMANDS, *(command.name or "" for command in _others())})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """An own command, or one that an installed package brings."""
        if own := super().get_command(ctx, cmd_name):
            if isinstance(own, click.Group) and cmd_name in EXTENDED:
                _extend(own, EXTENDED[cmd_name])
            return own
        if cmd_name not in NODE_COMMANDS:
            return next((command for command in _others() if command.name == cmd_name), None)
        try:
            return next(command for command in _commands(NODE_COMMANDS[cmd_name]) if command.name == cmd_name)
        except (ImportError, StopIteration) as error:
            return _Missing(cmd_name, str(error) or "it is not there")

    def main(self, args: Sequence[str] | None = None, *_: object, **extra: Any) -> NoReturn:
        """Run one invocation, then leave the process with its exit code."""
        _open_streams()
        extra.pop("standalone_mode", None)
        extra["prog_name"] = "koinon"
        sys.exit(self._run(args, extra))

    def _run(self, args: Sequence[str] | None, extra: dict[str, Any]) -> int:
        try:
            outcome = super().main(args, standalone_mode=False, **extra)
            sys.stdout.flush()
        except KoinonError as error:
            output.say_error(error.message, error.rule, error.hint)
            return error.exit_code
        except click.exceptions.NoArgsIsHelpError as error:  # whose message is the help, of many lines
            sys.stderr.write(f"{error.format_message()}\n")
            return InvalidInput.exit_code
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "koinon"
            output.say_error(error.format_message(), InvalidInput.default_rule, f"{where} --help")
            return InvalidInput.exit_code
        except click.ClickException as error:
            output.say_error(error.format_message(), InvalidInput.default_rule, "")
            return InvalidInput.exit_code
        except (click.Abort, KeyboardInterrupt) as error:
            return _interrupted(error)
        except OSError as error:
            return _failed_output(error)
        except UnicodeEncodeError as error:  # what was typed, as the system handed it on; our output escapes
            output.say_error(f"{error.object!a} is not UTF-8 text", InvalidInput.default_rule, "write it in UTF-8")
            return InvalidInput.exit_code
        except Exception as error:  # noqa: BLE001 - the last frame: a bug still ends in one line
            return _bug(error)
        return outcome if isinstance(outcome, int) else 0


def _open_streams() -> None:
    """Whatever we were started with, something can be read and written, whatever its encoding.

    A closed descriptor would be that of the next file opened, a ledger's even, with whatever a library prints in it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class _Missing(click.Command):
    """Stands for a command whose package is not installed."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            name,
            short_help="needs: pip install 'koinon[node]'",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
        self._reason = reason

    def invoke(self, ctx: click.Context) -> NoReturn:
        raise Unavailable(
            f"koinon {self.name} needs what an institution installs ({self._reason})",
            rule="missing-extra",
            hint="needs: pip install 'koinon[node]'",
        )


def _extend(group: click.Group, entry_point: str) -> None:
    """Add what an extra brings for this group; where it is not installed, the group stays as it is."""
    try:
        for command in _commands(entry_point):
            if command.name == group.name and isinstance(command, click.Group):
                group.commands.update(command.commands)
    except ImportError:
        pass


def _commands(entry_point: str) -> Iterator[click.Command]:
    """Commands of one entry point. Raises ImportError."""
    for point in metadata.entry_points(group=GROUP, name=entry_point):
        for command in point.load():
            yield with_common_options(command)


def _others() -> Iterator[click.Command]:
    """Commands of packages that are neither this one nor the node extra."""
    for point in metadata.entry_points(group=GROUP):
        if point.name not in NODE_COMMANDS.values():
            yield from _commands(point.name)


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        output.show_text(f"koinon {metadata.version('koinon')}\n")
        context.exit()


def _interrupted(error: BaseException) -> int:
    """The cause of an interrupt says what may still become of what was under way; click wraps it once more."""
    output.say("interrupted")
    cause = error.__cause__.__cause__ if isinstance(error.__cause__, KeyboardInterrupt) else error.__cause__
    if isinstance(cause, KoinonError):
        output.say_error(cause.message, cause.rule, cause.hint)
    return _INTERRUPTED


def _failed_output(error: OSError) -> int:
    if error.errno == errno.EPIPE:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    output.say_error(str(error), "disk-error", "check the path, its permissions and the space on the disk")
    return KoinonError.exit_code


def _bug(error: Exception) -> int:
    if os.environ.get(_TRACEBACK):
        traceback.print_exception(error)
    output.say_error(
        f"{type(error).__name__}: {error}", KoinonError.default_rule, f"this is a bug; {_TRACEBACK}=1 shows where"
    )
    return KoinonError.exit_code
