"""A real PostgreSQL server on a free port of 127.0.0.1, for as long as a block runs."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live import free_port

OWNER = "postgres"  # PostgreSQL refuses to run as root; Debian's package makes this user


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, or None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of an empty database, as Prefect wants it.

    Raises:
        AssertionError: PostgreSQL is not installed.
    """
    bin_folder = programs()
    assert bin_folder is not None, "PostgreSQL is missing: install it with tests/install-system-packages"
    folder = Path(tempfile.mkdtemp(prefix="dn2-postgres-"))
    data, word, port = folder / "data", secrets.token_hex(16), free_port()
    (folder / "password").write_text(word)
    user = OWNER if os.geteuid() == 0 else None
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)

    def run(program: str, *arguments: str) -> None:
        command = [bin_folder / program, "-D", data, *arguments]
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        run("initdb", "--username=dn2", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync")
        listen = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "--wait", "--log", str(folder / "log"), "--options", listen)
        try:
            yield f"postgresql+asyncpg://dn2:{word}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
