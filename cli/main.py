"""refattn: the group of commands. A command's module is imported when it is used, so that --help is quick."""

import errno
import importlib
import sys

import click

import refattn
from refattn.errors import RefattnError, in_one_line

# Command: what it does. Its module in refattn.cli and the function in it have its name.
COMMANDS = {
    "prepare": "Structures and labels to a data set with its graph.",
    "train": "Train a network; without argument the built-in experiment.",
    "evaluate": "Errors of a trained run on its split, or on another data set.",
    "predict": "Properties and attention of structures in any file that ASE reads.",
    "explain": "What predictions rest on, site by site: tables, pictures and pages.",
    "embed": "Structures and sites as vectors, and maps of them.",
    "gradcheck": "Verify every gradient on this machine.",
    "bench": "This machine, and refattn against the frameworks that are installed.",
    "data": "The built-in and the published data sets, and the dynamics that make others.",
    "import-keras": "Turn the authors' trained Keras model into a run.",
    "info": "What is in a run or a data set; without argument this installation.",
}


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
        try:
            return super().invoke(context)
        except RefattnError as error:
            click.echo(f"refattn: {error}", err=True)
            sys.exit(1)
        except MemoryError as error:
            click.echo(f"refattn: not enough memory ({in_one_line(error)}); ask for less", err=True)
            sys.exit(1)
        except OSError as error:
            if error.errno == errno.EPIPE:  # `refattn ... | head`: click ends quietly
                raise
            reason = in_one_line(error)
            click.echo(f"refattn: the system refuses ({reason}); check paths, rights and free space", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("refattn: interrupted; give the command again to start over or go on", err=True)
            sys.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(refattn.__version__)
def cli():
    """An interpretable attention network for materials: structure in, property and attention of every site out.

    Results go to stdout, progress to stderr. Exit status: 0 done, 1 failed, 2 bad usage, 130 interrupted.
    """


if __name__ == "__main__":
    cli()
