"""What a broker says of itself, and what it lets its user do, asked without changing anything in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import NoPermissionError, RedisClusterException

from common.address import client_of, server_of, user_in, without_login
from common.onlooker import Onlooker

R = TypeVar("R")


class Examiner(Onlooker):
    """Every question is asked of the server that holds the run. Raises BrokerUnavailable when nobody answers."""

    def servers(self) -> list[dict[str, Any]]:
        """INFO of every server that holds data."""
        return self._servers()

    def options(self, *names: str) -> dict[str, str]:
        """CONFIG GET of these; nothing where the user may not ask, or the server knows no such command."""
        found = self._ask("config get", lambda: self._server.config_get(*names))
        return {_text(name): _text(value) for name, value in (found or {}).items()}

    def round_trips_s(self, times: int) -> list[float]:
        """Seconds of so many PINGs, without that which connects."""
        self._ask("ping", self._server.ping)
        found = []
        for _ in range(times):
            started = time.perf_counter()
            self._ask("ping", self._server.ping)
            found.append(time.perf_counter() - started)
        return found

    def clock_ahead_s(self) -> tuple[float, float]:
        """(seconds by which the server's clock is ahead of this host's, how uncertain that is: half a round trip)."""
        sent = time.time()
        seconds, microseconds = self._wait_for("time", self._server.time)
        came = time.time()
        return seconds + microseconds / 1e6 - (sent + came) / 2, (came - sent) / 2

    def user(self) -> str | None:
        """As whom it comes: as the server says, else as the address does; None where neither does."""
        found = self._ask("acl whoami", self._server.acl_whoami)
        return user_in(self.url) if found is None else _text(found)

    def may_by_dry_run(self, user: str, words: Sequence[str]) -> bool | None:
        """Whether the server would let `user` give this command; None where it does not answer such a question."""
        found = self._ask("acl dryrun", lambda: self._server.execute_command("ACL", "DRYRUN", user, *words))
        return None if found is None else _text(found) == "OK"

    def may_by_trying(self, words: Sequence[str]) -> bool:
        """Whether it lets us give this command, by giving it: it has to be one that does nothing."""
        return self._wait_for(words[0], lambda: _tried(self._server, words))

    def lets_anybody_in(self) -> bool | None:
        """Whether it answers who has no password; None when that cannot be told."""
        try:
            return bool(client_of(without_login(self.url)).ping())
        except (redis.AuthenticationError, NoPermissionError):
            return False
        except redis.ResponseError as error:
            return False if "NOAUTH" in str(error) or "DENIED" in str(error) else None
        except (ValueError, redis.RedisError, RedisClusterException):
            return None

    @property
    def _server(self) -> Any:
        return server_of(self._redis, self.key("fence"))

    def _ask(self, what: str, call: Callable[[], R]) -> R | None:
        """The answer; None where the user may not ask, or the server does not know the question."""

        def once() -> R | None:
            try:
                return call()
            except redis.ResponseError:
                return None

        return self._wait_for(what, once)


def _tried(server: Any, words: Sequence[str]) -> bool:
    try:
        server.execute_command(*words)
    except NoPermissionError:
        return False
    except redis.ResponseError:
        return True  # what does nothing is refused for being nonsense, after the rights were looked at
    return True


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
