"""`python -m refattn`: the command line, also where `refattn` is not on the PATH."""

from refattn.cli.main import cli

if __name__ == "__main__":
    cli(prog_name="refattn")
