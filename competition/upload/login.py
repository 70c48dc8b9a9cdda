"""The token: from the environment, or from a file that only its owner can read and that names the token's server."""

import getpass
import json
import os
import stat
from pathlib import Path

from common.errors import UserError
from common.files import atomically
from common.folders import printable
from competition.upload.answers import host
from competition.upload.codabench import checked_url, is_token, request_token

TOKEN_VARIABLE = "CODABENCH_TOKEN"
TOKEN_FILE = "~/.config/codabench/token"


def read_token(file: str | Path, url: str) -> str:
    """Reads the token for a server from `CODABENCH_TOKEN`, or else from a file.

    Args:
        file: the file that `login` has written.
        url: the server's address.

    Raises:
        UserError: there is no token, it is not valid or for another server, or others can read the file.
    """
    url, path = checked_url(url), Path(file).expanduser()
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return _token_in(path, host(url))
    if not is_token(token):
        raise UserError(
            f"{TOKEN_VARIABLE} must hold a token, one word of ASCII characters; make a new one with --login"
        )
    return token


def login(url: str, file: str | Path) -> Path:
    """Asks for name and password, and writes the server's host and token to a file of mode 600.

    Args:
        url: the server's address.
        file: the file; an existing one is replaced.

    Returns:
        Path of the file.

    Raises:
        UserError: standard input is closed. Refused, NoAnswer: see `codabench.Server.ask`.
    """
    url, path = checked_url(url), Path(file).expanduser()
    try:
        username = input(f"user name at {host(url)}: ")
        password = getpass.getpass("password: ")
    except EOFError as error:
        raise UserError(
            f"--login needs a terminal to ask for the password; use one, or set {TOKEN_VARIABLE}"
        ) from error
    token = request_token(url, username, password)
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = json.dumps({"host": host(url), "token": token})
    atomically(path, lambda temporary: _write_private(temporary, f"{saved}\n"))
    return path


def _token_in(path: Path, wanted: str) -> str:
    """Returns the token in a file, which must be that of the wanted host."""
    if not path.is_file():
        raise UserError(f"a token is required; set {TOKEN_VARIABLE}, or write {path} with --login")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UserError(f"the token file must be readable by its owner only, others can read it: chmod 600 {path}")
    try:
        saved = json.loads(path.read_text("utf-8", errors="replace"))
        server, token = str(saved["host"]), str(saved["token"])
    except (ValueError, TypeError, KeyError, RecursionError):  # files of earlier versions hold the token alone
        server, token = "", ""
    if not server or not is_token(token):
        raise UserError(f"{path} must hold a token and the host that it is for; log in again with --login")
    if server != wanted:
        raise UserError(
            f"the token in {path} is for {printable(server)}, --server is {wanted}; make a token for it with --login"
        )
    return token


def _write_private(path: Path, text: str) -> None:
    """Writes a new file that only its owner can read, from its first byte on."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
        target.write(text)
