"""Where things lie in Redis: names and nothing else. Auth writes the records, admission's scripts read them.

All that one decision needs shares the hash tag `{team}`, so that one script can see it on a cluster too.

    weir:teams                          set of team names
    weir:idx:<digest>                   "<team> <key id>": whose a digest is, for ever
    weir:kid:<key id>                   the team of a key
    weir:replicas                       sorted set: process -> its last sign of life
    weir:levels                         hash: whose request lines are logged how -> level and end; gone with the last
    weir:{<team>}:team                  hash: limits, version, created      (budgets will be further fields)
    weir:{<team>}:keys                  set of key ids
    weir:{<team>}:key:<id>              hash: digest, expires, old_digest, old_until, state, limits, used ...
    weir:{<team>}:team:use              hash: levels of the team's buckets, a day beyond their last use
    weir:{<team>}:key:<id>:use          the same of one key
    weir:{<team>}:team:live             sorted set: reservation -> end of its lease
    weir:{<team>}:key:<id>:live         the same of one key
    weir:{<team>}:res:<reservation>     what one request holds until it is settled
"""

TEAMS = "weir:teams"
REPLICAS = "weir:replicas"
LEVELS = "weir:levels"


def index(digest: str) -> str:
    return f"weir:idx:{digest}"


def owner(key_id: str) -> str:
    return f"weir:kid:{key_id}"


def team(name: str) -> str:
    return f"weir:{{{name}}}:team"


def team_keys(name: str) -> str:
    return f"weir:{{{name}}}:keys"


def key(team_name: str, key_id: str) -> str:
    return f"weir:{{{team_name}}}:key:{key_id}"


def use(record: str) -> str:
    return record + ":use"


def live(record: str) -> str:
    return record + ":live"


def reservation(team_name: str, reservation_id: str) -> str:
    return f"weir:{{{team_name}}}:res:{reservation_id}"
