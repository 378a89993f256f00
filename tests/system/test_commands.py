"""The command line for teams and keys, as a program uses it (`--json`) and as a person sees it."""

import csv
import io
import re
from typing import Any

import pytest

from tests.system.harness import Admin, clean_environment, run_weir, unique


def limits(shown: Any) -> dict[str, Any]:
    """Every limit in what `show --json` prints, wherever it stands; what is not there is not limited."""
    found: dict[str, Any] = dict.fromkeys(("rpm", "tpm", "concurrency"))

    def look(node: Any) -> None:
        if isinstance(node, dict):
            found.update({name: node[name] for name in found if name in node})
            for child in node.values():
                look(child)

    look(shown)
    return found


def test_a_team_from_its_making_to_its_end(admin: Admin) -> None:
    name = unique("team")
    made = admin.json("teams", "create", name, "--rpm", "600", "--tpm", "200000", "--concurrency", "50")
    assert made["name"] == name
    assert name in [team["name"] for team in admin.json("teams", "list")]
    assert limits(admin.json("teams", "show", name)) == {"rpm": 600, "tpm": 200_000, "concurrency": 50}
    admin.json("teams", "update", name, "--rpm", "none", "--tpm", "100")
    assert limits(admin.json("teams", "show", name)) == {"rpm": None, "tpm": 100, "concurrency": 50}
    assert admin.run("teams", "delete", name, stdin="y\n").returncode == 0
    assert name not in [team["name"] for team in admin.json("teams", "list")]
    assert admin.run("teams", "show", name).returncode != 0


def test_a_key_from_its_making_to_its_end(admin: Admin) -> None:
    team = admin.team()
    made = admin.json("keys", "create", "--team", team, "--name", "nightly", "--rpm", "5", "--expires", "90d")
    assert made["team"] == team
    assert made["key"].startswith(f"sk-weir-{made['id']}_")
    listed = [key for key in admin.json("keys", "list") if key["id"] == made["id"]]
    assert len(listed) == 1
    assert listed[0]["name"] == "nightly"
    shown = admin.json("keys", "show", made["id"])
    assert (shown["id"], shown["team"], limits(shown)["rpm"]) == (made["id"], team, 5)
    admin.json("keys", "update", made["id"], "--rpm", "7")
    assert limits(admin.json("keys", "show", made["id"]))["rpm"] == 7
    assert admin.run("keys", "revoke", made["id"]).returncode == 0


def test_a_revoked_key_has_no_old_secret_that_works(admin: Admin) -> None:
    key = admin.key()
    assert admin.json("keys", "rotate", key.id)["old_key_until"]
    assert admin.json("keys", "revoke", key.id)["old_key_until"] == ""


@pytest.mark.parametrize("what", ["teams", "keys"])
def test_an_update_of_nothing_is_refused(admin: Admin, what: str) -> None:
    key = admin.key()
    which = key.team if what == "teams" else key.id
    before = admin.json(what, "show", which)
    done = admin.run(what, "update", which)
    assert done.returncode == 1
    assert "nothing to change" in done.stderr
    assert admin.json(what, "show", which) == before


def test_a_row_in_a_pipe_is_a_line(admin: Admin) -> None:
    key = admin.key()
    done = run_weir("keys", "list", "--redis-url", admin.redis_url, env=clean_environment(COLUMNS="80"))
    (row,) = [line for line in done.stdout.splitlines() if key.id in line]
    assert key.team in row


def test_what_clients_programs_read_is_no_setting(admin: Admin) -> None:
    exported = {"WEIR_URL": "http://localhost:8080/v1", "WEIR_API_KEY": "sk-weir-x", "WEIR_MODEL": "echo"}
    done = run_weir("keys", "list", "--redis-url", admin.redis_url, env=clean_environment(**exported))
    assert done.returncode == 0, done.stderr


def test_a_secret_is_shown_once(admin: Admin) -> None:
    key = admin.key()
    for command in (("keys", "list"), ("keys", "show", key.id)):
        for form in ((), ("--json",), ("--csv",)) if command[1] == "list" else ((), ("--json",)):
            done = admin.run(*command, *form)
            assert done.returncode == 0, done.stderr
            assert key.id in done.stdout
            assert key.secret not in done.stdout + done.stderr
            assert key.secret.split("_", 1)[1] not in done.stdout + done.stderr


@pytest.mark.parametrize("what", ["teams", "keys"])
def test_a_listing_for_spreadsheets(admin: Admin, what: str) -> None:
    key = admin.key()
    done = admin.run(what, "list", "--csv")
    assert done.returncode == 0, done.stderr
    head, *rows = csv.reader(io.StringIO(done.stdout))
    column, value = ("name", key.team) if what == "teams" else ("id", key.id)
    assert value in [row[head.index(column)] for row in rows]
    assert {len(row) for row in rows} == {len(head)}


MISTAKES = [
    # what is typed                                                 what the complaint names
    pytest.param(("keys", "create", "--team", "no-such-team"), "no-such-team", id="key-of-no-team"),
    pytest.param(("keys", "show", "nosuchkey000"), "nosuchkey000", id="no-such-key"),
    pytest.param(("keys", "revoke", "nosuchkey000"), "nosuchkey000", id="revoke-no-such-key"),
    pytest.param(("keys", "rotate", "nosuchkey000"), "nosuchkey000", id="rotate-no-such-key"),
    pytest.param(("keys", "update", "nosuchkey000", "--rpm", "1"), "nosuchkey000", id="update-no-such-key"),
    pytest.param(("teams", "show", "no-such-team"), "no-such-team", id="no-such-team"),
    pytest.param(("teams", "update", "no-such-team", "--rpm", "1"), "no-such-team", id="update-no-such-team"),
    pytest.param(("teams", "create", "a{b}:*"), "a{b}:*", id="team-with-braces"),
    pytest.param(("teams", "create", "team-a", "--rpm", "-5"), "rpm", id="negative-limit"),
    pytest.param(("teams", "create", "team-b", "--rpm", "many"), "rpm", id="limit-not-a-number"),
    pytest.param(("teams", "create", "team-c", "--tpm", str(2**60)), "tpm", id="limit-beyond-53-bits"),
    pytest.param(("teams", "create", "team-d", "--expires", "soon"), "expires", id="no-duration"),
    pytest.param(("teams", "create", "team-e", "--shadow", "rpn"), "rpn", id="no-such-limit"),
]


@pytest.mark.parametrize(("typed", "named"), MISTAKES)
def test_a_mistake_is_answered_with_a_sentence(admin: Admin, typed: tuple[str, ...], named: str) -> None:
    done = admin.run(*typed)
    assert done.returncode != 0
    # A terminal's box may break a line and hyphens stay together; look at the words only.
    said = re.sub(r"[│\s]+", "", done.stdout + done.stderr)
    assert named in said
    assert "Traceback" not in done.stderr


def test_the_same_team_twice(admin: Admin) -> None:
    name = admin.team()
    done = admin.run("teams", "create", name)
    assert done.returncode != 0
    assert name in done.stdout + done.stderr


def test_a_redis_that_is_away_is_said_in_a_sentence() -> None:
    done = run_weir("keys", "list", "--redis-url", "redis://127.0.0.1:1/0")
    assert done.returncode != 0
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("keys", "list"), ("logs", "list")], ids=" ".join)
def test_a_redis_that_refuses_is_not_said_to_be_away(admin: Admin, command: tuple[str, ...]) -> None:
    done = run_weir(*command, "--redis-url", admin.redis_url.replace("://", "://:canary@"))
    assert done.returncode == 1
    assert "Are the user and the password of its URL right" in done.stderr
    assert "Is it running" not in done.stderr
    assert "canary" not in done.stderr
    assert ".." not in done.stderr


@pytest.mark.parametrize("command", [("keys", "list"), ("logs", "list")], ids=" ".join)
def test_a_port_without_tls_is_suspected(admin: Admin, command: tuple[str, ...]) -> None:
    done = run_weir(*command, "--redis-url", admin.redis_url.replace("redis://", "rediss://"))
    assert done.returncode == 1
    assert "does that port speak TLS, as rediss:// says?" in done.stderr


def test_nothing_to_import(admin: Admin) -> None:
    done = admin.run("keys", "import", "--team", admin.team(), stdin="")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_a_key_cannot_be_imported_twice(admin: Admin) -> None:
    """A digest belongs to one team for ever; a second import must not move it."""
    secret, first, second = unique("foreign"), admin.team(), admin.team()
    admin.json("keys", "import", "--team", first, stdin=secret)
    again = admin.run("keys", "import", "--team", second, stdin=secret)
    assert again.returncode != 0
    assert secret not in again.stdout + again.stderr


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("serve",),
        ("check",),
        ("check-backend",),
        ("top",),
        ("teams",),
        ("keys",),
        ("keys", "create"),
        ("logs",),
        ("logs", "level"),
    ],
)
def test_help_explains(command: tuple[str, ...]) -> None:
    done = run_weir(*command, "--help")
    assert done.returncode == 0
    assert "usage" in done.stdout.lower()
    assert len(done.stdout.splitlines()) > 8
