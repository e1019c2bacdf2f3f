"""Commands about who may ask: make a token, check the file of callers. Offline."""

import hashlib
import secrets
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.shared import AsJson, fail, out, show
from gateway.domain.errors import InvalidInput

access = typer.Typer(no_args_is_help=True, help="Who may ask the gateway what.")

BYTES = 32


@access.command("new")
def new(
    name: Annotated[str, typer.Argument(help="the caller")],
    scope: Annotated[list[str], typer.Option("--scope", help="what it may do; may be given several times")],
    as_json: AsJson = False,
) -> None:
    """Make a token: it is shown once; the file of callers needs only its hash."""
    from gateway.domain.access import Scope

    unknown = [word for word in scope if word not in set(Scope)]
    if unknown:
        fail([f"--scope {word}: none of {', '.join(Scope)}" for word in unknown], code=2)
    token = secrets.token_urlsafe(BYTES)
    hashed = f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
    if as_json:
        out.print_json(data={"caller": name, "scopes": scope, "token": token, "hash": hashed})
        return
    print(f"token, shown this once: {token}")
    print("for the file of callers:")
    print(f"  {name}:\n    scopes: [{', '.join(scope)}]\n    tokens: ['{hashed}']")


@access.command("check")
def check(file: Path, as_json: AsJson = False) -> None:
    """Check a file of callers and what it refers to; list who may do what."""
    from gateway.config.access import load_access

    try:
        found = load_access(file).callers
    except InvalidInput as error:
        fail(error.problems, code=2)
    known = {caller.name: caller for caller in (*(c for _, c in found.tokens), *found.certificates.values())}
    rows = [
        {
            "caller": caller.name,
            "scopes": ", ".join(sorted(caller.scopes)),
            "tokens": sum(one.name == caller.name for _, one in found.tokens),
            "certificate": next((name for name, one in found.certificates.items() if one.name == caller.name), None),
            "requests_per_min": caller.requests_per_min,
        }
        for caller in known.values()
    ]
    if as_json:
        out.print_json(data={"callers": rows, "jwt": found.statements is not None})
        return
    show(rows, of="callers")
    if found.statements is not None:
        out.print("and whoever has a JWT of the issuer that is named", highlight=False)
