"""`weir`: the commands, their help, and how they end. Imports inside commands keep `weir --help` quick."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from weir import __version__
from weir.cli import keys, logs, teams
from weir.cli.options import ConfigFile, Json, RedisUrl

EPILOG = (
    "A first minute:  weir serve   (prints a key and a curl line)\n\n"
    "A first team:  weir teams create search --rpm 600 --tpm 200000   then   weir keys create --team search"
)

app = typer.Typer(
    name="weir",
    help="One internal endpoint for every LLM: a key per team, limits exact to the token, streams untouched.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(teams.app, name="teams")
app.add_typer(keys.app, name="keys")
app.add_typer(logs.app, name="logs")


def main() -> None:
    """The console script."""
    app()


def _version(asked: bool) -> None:
    if asked:
        print(f"weir {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One internal endpoint for every LLM: a key per team, limits exact to the token, streams untouched."""


@app.command()
def serve(
    config: ConfigFile = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; '::' is IPv6 and IPv4.", show_default="::")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.", show_default="8080")] = None,
    ops_port: Annotated[int | None, typer.Option(help="Port of health and metrics.", show_default="9090")] = None,
    redis_url: RedisUrl = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; in Kubernetes rather more pods.", show_default="1")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Quick start: openai, python, transformers or echo.", show_default="echo")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Quick start: the model's name.")] = None,
    upstream: Annotated[str | None, typer.Option(help="Quick start: its server, as http://localhost:8000/v1.")] = None,
    target: Annotated[
        str | None, typer.Option(help='Quick start: a Python function as the model, as "module:callable".')
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="Quick start: a key of your own that shall be valid.")] = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Forget keys and limits at the end.")] = False,
) -> None:
    """Start the endpoint.

    With nothing at all it works on a laptop: it starts a Redis of its own, serves the [bold]echo[/bold] model, makes a
    team and a key, and prints a curl line. Give [bold]--upstream[/bold] to put a real model behind it, and
    [bold]--config[/bold] for everything else.
    """
    from weir.cli.serve import Start, start

    start(
        Start(
            config=config,
            host=host,
            port=port,
            ops_port=ops_port,
            redis_url=redis_url,
            workers=workers,
            backend=backend,
            model=model,
            upstream=upstream,
            target=target,
            api_key=api_key,
            ephemeral=ephemeral,
        )
    )


@app.command()
def check(config: ConfigFile = Path("weir.yaml")) -> None:
    """Say everything that is wrong with a configuration; start nothing. Exit code 1 if anything is."""
    from weir.settings import BadSettings, load, remarks

    sys.path.insert(0, str(Path.cwd()))  # where whoever names a module expects it
    try:
        settings = load(config, to_serve=True)
    except BadSettings as error:
        for problem in error.problems:
            print(problem.told(config), file=sys.stderr)
        count = len(error.problems)
        where = "" if all(problem.in_file for problem in error.problems) else " and the environment"
        print(f"{count} problem{'s' if count > 1 else ''} in {config}{where}.", file=sys.stderr)
        raise typer.Exit(1) from None
    for remark in remarks(settings):
        print(f"{config}: {remark}.")
    print(f"{config} is good: {len(settings.models)} models, {len(settings.teams)} teams.")


@app.command("check-backend")
def check_backend_(
    url: Annotated[str, typer.Argument(help="The engine's address, as http://localhost:8000/v1.")],
    model: Annotated[
        str | None, typer.Option(help="Which of its models.", show_default="the first that it lists")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable that holds its key.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds that one answer may take.")] = 60.0,
    json: Json = False,
) -> None:
    """See what an engine can do before it stands behind Weir, and what Weir makes up for. Asks some 35 small requests.

    Exit code 0 if everything that Weir needs works, 1 if not, 2 if nobody is there.
    """
    from weir.cli.check_backend import Asked, check_backend

    check_backend(Asked(url=url, model=model, api_key_env=api_key_env, timeout=timeout, as_json=json))


@app.command("top")
def top_(
    ops_url: Annotated[str, typer.Option(help="The ops port.")] = "http://localhost:9090",
    interval: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One frame, for scripts.")] = False,
    json: Json = False,
) -> None:
    """See what a running Weir does now: rates, refusals, latencies, and the slowest streams under way. Ctrl-C ends it.

    Rates are those of all processes of this replica; streams are those of the process that answers, and with
    --workers above 1 that is one of several.
    """
    from weir.cli.top import top

    top(ops_url, interval, once=once, as_json=json)
