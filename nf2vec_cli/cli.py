"""The door: the list of commands, and the one place where an error becomes an exit code."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from nf2vec_cli import __version__, output
from nf2vec_cli.errors import Nf2vecError

# A command's module is imported when the command is called, so that `nf2vec --help` stays quick.
# Each line repeats the first sentence of the command's own help (a test compares them).
COMMANDS = {
    "fit": "Fit one neural field to each shape in SHAPES, into a store.",
    "train": "Train an encoder and its decoder on the fields of a store; no shapes are needed.",
    "align": "Bring fields that started from another init to the store's, functions unchanged.",
    "encode": "Embed the fields of a store by an encoder; what is embedded already is skipped.",
    "classify": "Tell the class of objects from their embeddings, and how often that is right.",
    "retrieve": "Find the objects of a store whose embeddings are nearest to a query's.",
    "segment": "Tell the parts of objects from their embeddings, at labelled points or any others.",
    "generate": "Draw new shapes of a class, as a store of embeddings of their own.",
    "map": "Learn to map embeddings of A to those of B, on the objects that both hold.",
    "reconstruct": "Turn fields back into meshes, clouds, voxels or pictures, in the user's units.",
    "interpolate": "Write the shapes between two objects of a store, and one picture of them all.",
    "view": "Make one HTML page of a store: its embeddings on a map, its objects in 3D.",
    "import": "Take neural fields that were fitted elsewhere into a store.",
    "export": "Write fields, embeddings, an encoder or a classifier in formats that others read.",
    "info": "Show what a store holds.",
    "copy": "Copy a store between folders, buckets and zips; what is there already is skipped.",
    "replay": "Refit objects from a store's record, and compare the bits with what it holds.",
    "check": "Look for damage in a store, and repair it if asked.",
    "config": "Print every setting of a command: value, range and meaning.",
    "bench": "Measure speed and quality on this machine.",
}
INTERRUPTED, READER_GONE, TERMINATED, BUG = 130, 141, 143, 1


class Terminated(KeyboardInterrupt):
    """SIGTERM: the run ends as by Ctrl-C. Slurm, cron and containers send it."""


def load_command(name: str) -> TyperCommand | TyperGroup:
    """Import one command: the module's `app` if it is a group, else its function of that name.

    A function's module gives its EXAMPLE, a command line or several, for the end of its help.
    """
    word = f"{name}_" if iskeyword(name) else name
    module = import_module(f"nf2vec_cli.commands.{word}")
    if hasattr(module, "app"):
        module.app.rich_markup_mode = None  # else a help page would import rich
        module.app.info.cls = QuickHelp
        group = get_group(module.app)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    lines = "\n".join(f"  {line}" for line in module.EXAMPLE.strip().splitlines())
    alone.command(name, epilog=f"\b\nExample:\n{lines}")(getattr(module, word))
    return cast(TyperCommand, get_command(alone))


class QuickHelp(TyperGroup):
    """A group whose own `--help`, when it is not asked for, is False and not None.

    Typer converts a None, and imports pydantic for that: 50 ms on each help page of a command.
    """

    def get_help_option(self, ctx: Any) -> Any:
        """Give the `--help` option."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


class ErrorsToExitCodes(QuickHelp):
    """The group of all commands: imports each when it is called, turns errors into exit codes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: dict[str, Any] = dict.fromkeys(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Import the command that is called."""
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            self.commands[cmd_name] = load_command(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """List the commands in the help page without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command; `--help` prints from here."""
        with exit_codes(debug=False):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with exit_codes(debug=ctx.params["debug"]), terminable():
            return super().invoke(ctx)


@contextmanager
def exit_codes(*, debug: bool) -> Iterator[None]:
    """End the program with the exit code of whatever goes wrong inside, and say what it was."""
    try:
        yield
        sys.stdout.flush()  # a reader that is gone shows here, not after the last line of Python
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "format_message"):
            raise  # typer's own: help was printed, or the command line is wrong (2)
        if isinstance(error, BrokenPipeError) and _reader_gone():
            raise typer.Exit(READER_GONE) from error
        if debug:
            traceback.print_exc()
        raise typer.Exit(_tell(error)) from error


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, unless somebody else minds it already."""
    ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _tell(error: BaseException) -> int:
    """Say what went wrong; give the exit code."""
    if isinstance(error, Nf2vecError):
        output.complain(error)
        return error.exit_code
    if isinstance(error, Terminated):
        output.complain("told to end (SIGTERM); what was committed is kept")
        return TERMINATED
    if isinstance(error, KeyboardInterrupt):
        output.complain("interrupted; what was committed is kept")
        return INTERRUPTED
    if isinstance(error, OSError) and error.filename is not None:
        output.complain(f"{os.fsdecode(error.filename)}: {error.strerror}")
        return BUG
    output.complain(
        f"a bug in nf2vec {__version__}: {type(error).__name__}: {error}",
        hint="`nf2vec --debug COMMAND ...` shows where; please report it",
    )
    return BUG


def _reader_gone() -> bool:
    """Tell whether nobody reads stdout or stderr any more; if so, let the rest go nowhere.

    A pipe to a worker process can break too, and that is no reason to end in silence.
    """
    gone = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            gone = True
    return gone


app = typer.Typer(
    cls=ErrorsToExitCodes,
    add_completion=False,  # its two options alone would import pydantic for each help page
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: nf2vec fit shapes/ --field sdf --store ds.zarr",
)


def _show_version(value: bool) -> None:
    if value:
        output.emit(f"nf2vec {__version__}")
        raise typer.Exit


@app.callback()
def nf2vec(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print it and stop.", callback=_show_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="NF2VEC_DEBUG", help="Show where an error comes from.")
    ] = False,
) -> None:
    """Neural fields in a Zarr store: fit them to shapes, keep them small, read them back."""
