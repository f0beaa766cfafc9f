"""refattn: the group of commands. A command's module is imported when it is used, so that --help is quick."""

import contextlib
import errno
import importlib
import os
import sys
from typing import NoReturn

import click

import refattn
from refattn.common.environment import LAUNCHERS, launched
from refattn.common.notices import listen
from refattn.errors import ConfigError, RefattnError, in_one_line

FAULT = "this is a fault of refattn"
# Command: what it does. Its module in refattn.cli and the function in it have its name.
COMMANDS = {
    "prepare": "Structures and labels to a data set with its graph.",
    "join": "Parts of a data set, prepared by the jobs of an array, to one.",
    "train": "Train a network; without argument the built-in experiment.",
    "matbench": "Train and test on the five folds of a Matbench task.",
    "evaluate": "Errors of a trained run on its split, or on another data set.",
    "predict": "Properties and attention of structures in most files that ASE reads.",
    "explain": "What predictions rest on, site by site: tables, pictures and pages.",
    "embed": "Structures and sites as vectors, and maps of them.",
    "neighbours": "Voronoi neighbours of any structures, as a table or as arrays.",
    "verify": "Train a run again, and compare its parameters bit for bit.",
    "gradcheck": "Verify every gradient on this machine.",
    "oracle": "What a network makes of one batch, to check another implementation by.",
    "bench": "This machine, and refattn against the frameworks that are installed.",
    "data": "The built-in and the published data sets, and the dynamics that make others.",
    "import-keras": "Turn the authors' trained Keras model into a run.",
    "models": "The trained models that ship with the package, and their cards.",
    "warmup": "Compile the kernels before they are needed.",
    "info": "What is in a run or a data set; without argument this installation.",
}
ON_RANKS = ("train", "warmup", "models", "info")  # all others would do the same work in every process


class Commands(click.Group):
    """Imports a command when it is asked for, and turns errors into one sentence and exit status 1.

    Those of the system too, such as a full disk, and Ctrl-C, with status 130. Click itself would abort with status 1.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        name = name.replace("-", "_")
        return getattr(importlib.import_module(f"refattn.cli.{name}"), name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, context: click.Context) -> object:
        if sys.stderr is sys.__stderr__:  # not in a test or a notebook
            listen(lambda text: click.echo(text, err=True))
        try:
            return super().invoke(context)
        except RefattnError as error:
            self.end(str(error))
        except MemoryError as error:
            self.end(f"not enough memory ({in_one_line(error)}); ask for less")
        except OSError as error:
            if error.errno == errno.EPIPE:  # `refattn ... | head`: click ends quietly
                raise
            self.end(f"the system refuses ({in_one_line(error)}); check paths, rights and free space")
        except KeyboardInterrupt:
            self.end("interrupted; give the command again to start over or go on", 130)
        except Exception as error:
            if isinstance(error, click.ClickException | click.exceptions.Exit) or "REFATTN_TRACEBACK" in os.environ:
                raise
            reason = f"{type(error).__name__}, {in_one_line(error)}"
            self.end(f"{FAULT} ({reason}); report it with what REFATTN_TRACEBACK=1 in the environment shows")

    def end(self, message: str, status: int = 1) -> NoReturn:
        """Say one sentence on stderr and end with that status."""
        from refattn.common.text import printable

        with contextlib.suppress(OSError, ValueError):  # nobody can read it
            click.echo(f"refattn: {printable(' '.join(message.splitlines()))}", err=True)
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):  # full: else Python complains at its end
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(status)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(refattn.__version__)
@click.pass_context
def cli(context):
    """An interpretable attention network for materials: structure in, property and attention of every site out.

    Results go to stdout, progress to stderr. Exit status: 0 done, 1 failed, 2 bad usage, 130 interrupted.
    """
    size, number = launched() if LAUNCHERS.keys() & os.environ.keys() else (1, 0)
    if size > 1 and context.invoked_subcommand not in ON_RANKS:
        if number:
            sys.exit(1)  # the first one speaks
        raise ConfigError(
            f"{size} processes were started, and {context.invoked_subcommand} works in one; start one, or share the "
            "inputs out among the jobs of an array (sbatch --array), each with an output of its own; prepare, predict "
            "and embed do by --part K/N"
        )


if __name__ == "__main__":
    cli()
