"""Run the program as `python -m nf2vec_cli`."""

from nf2vec_cli.cli import app

if __name__ == "__main__":
    app(prog_name="nf2vec")
