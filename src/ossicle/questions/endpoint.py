"""One request to a language model behind an OpenAI-compatible address: retried where that helps, paid from a budget.

    messages ─► budget left? ─► note in the store ─► POST /chat/completions ─► reply
                                       ▲                        │ 429, 5xx, time-out, broken connection, no JSON
                                       └── wait (Retry-After, or 0.5 · 2ⁿ s with jitter) ──┘

Every request is noted before it is sent, so that what a killed run paid for is known. The key comes from the
environment and goes nowhere else. Source: our choice; `openai` sends, `tenacity` retries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from ossicle.config import Section
from ossicle.data.store import Store
from ossicle.errors import ConfigError, UserError, require

LONGEST_WAIT_S = 120.0
TRIES_LIMIT = 50
CHARACTERS_PER_TOKEN = 4
LOCAL = ("127.0.0.1", "localhost", "::1")


class EndpointConfig(Section):
    """Where to ask, and how much of it.

    Attributes:
        url: Base address, `https://host/v1`.
        model: Its name there.
        key_variable: Environment variable with the key.
        temperature: Of sampling.
        max_reply_tokens: Longest reply.
        timeout_s: Longest wait for a reply.
        tries: Requests for one reply, the first one included.
        first_wait_s: Wait before the second try, doubled for each further one.
        at_once: Requests in flight.
        max_usd: Most money to spend; needs prices.
        max_tokens: Most tokens, prompts and replies together.
        max_seconds: Longest run.
        usd_per_million_in: Price of a million prompt tokens.
        usd_per_million_out: Price of a million reply tokens.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.7
    max_reply_tokens: int = 4096
    timeout_s: float = 120.0
    tries: int = 6
    first_wait_s: float = 0.5
    at_once: int = 8
    max_usd: float | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    usd_per_million_in: float = 0.0
    usd_per_million_out: float = 0.0

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: No address, a key inside it, a cap of nothing, or a money cap without prices.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("endpoint: expected an address such as https://host/v1#model")
        if parts.username or parts.password or parts.query:
            raise ConfigError(
                f"endpoint: the address of {parts.hostname} holds a key or query; put the key in {self.key_variable}"
            )
        for name, cap in (("usd", self.max_usd), ("tokens", self.max_tokens), ("seconds", self.max_seconds)):
            if cap is not None and cap <= 0:
                raise ConfigError(f"max_{name} is {cap}: nothing can be asked with a budget of nothing")
        if self.max_usd is not None and not (self.usd_per_million_in or self.usd_per_million_out):
            raise ConfigError("max_usd needs prices: usd_per_million_in and usd_per_million_out")

    def key(self) -> str:
        """Return the key; a server on this machine needs none.

        Raises:
            ConfigError: The environment has none.
        """
        key = os.environ.get(self.key_variable, "")
        if not key and urlsplit(self.url).hostname not in LOCAL:
            raise ConfigError(f"no key: set the environment variable {self.key_variable}")
        return key or "none"


class OutOfBudget(Exception):
    """A cap is reached: which one."""


class Transient(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Rejected(Exception):
    """This request fails however often it is sent; others may not."""


@dataclass(slots=True)
class Spent:
    """What a run has used.

    Attributes:
        calls: Requests that were sent.
        retries: Of these, repeated ones.
        tokens_in: Of prompts.
        tokens_out: Of replies.
    """

    calls: int = 0
    retries: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def usd(self, config: EndpointConfig) -> float:
        """Return the money spent."""
        return (self.tokens_in * config.usd_per_million_in + self.tokens_out * config.usd_per_million_out) / 1e6


class Endpoint:
    """A language model and the budget for asking it.

    Args:
        config: Address and caps.
        store: Requests are noted here before they are sent.

    Raises:
        MissingExtraError: `openai` or `tenacity` is not installed.
        ConfigError: The address, a cap or the key does not fit.
    """

    def __init__(self, config: EndpointConfig, store: Store) -> None:
        config.check()
        self.openai = require("openai", "data")
        self.tenacity = require("tenacity", "data")
        self.config, self.store = config, store
        self.spent = Spent()
        self.schemas = True
        self.started = time.monotonic()
        self.client = self.openai.AsyncOpenAI(
            api_key=config.key(), base_url=config.url, max_retries=0, timeout=config.timeout_s
        )

    async def close(self) -> None:
        """Close its connections."""
        await self.client.close()

    async def ask(self, messages: list[dict[str, Any]], form: dict[str, Any] | None, unit: str) -> str:
        """Return the text of the reply.

        Args:
            messages: The conversation.
            form: `response_format`; left out where the server does not know it. None = a plain reply.
            unit: On whose account.

        Raises:
            OutOfBudget: A cap is reached before it could be sent.
            Rejected: Refused, or failed in every try.
            UserError: The key is refused or the model is not there.
        """
        retrying = self.tenacity.AsyncRetrying(
            stop=self.tenacity.stop_after_attempt(min(self.config.tries, TRIES_LIMIT)),
            wait=self._wait,
            retry=self.tenacity.retry_if_exception_type(Transient),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    return await self._send(messages, form, unit, number)
        except Transient as error:
            raise Rejected(f"no reply in {self.config.tries} tries, last: {error}") from None
        raise Rejected("no reply")

    def left(self) -> None:
        """Raise when a cap is reached.

        Raises:
            OutOfBudget: With its name.
        """
        config, spent = self.config, self.spent
        if config.max_usd is not None and spent.usd(config) >= config.max_usd:
            raise OutOfBudget("money")
        if config.max_tokens is not None and spent.tokens_in + spent.tokens_out >= config.max_tokens:
            raise OutOfBudget("tokens")
        if config.max_seconds is not None and time.monotonic() - self.started >= config.max_seconds:
            raise OutOfBudget("time")

    def _wait(self, state: Any) -> float:
        asked = getattr(state.outcome.exception(), "wait_s", None)
        if asked is not None:
            return min(float(asked), LONGEST_WAIT_S)
        first = self.config.first_wait_s
        return float(self.tenacity.wait_random_exponential(multiplier=first, max=LONGEST_WAIT_S / 4)(state))

    async def _send(self, messages: list[dict[str, Any]], form: dict[str, Any] | None, unit: str, number: int) -> str:
        self.left()
        self.store.note("sent", of=unit, number=number)
        self.spent.calls += 1
        self.spent.retries += number > 1
        more = {"response_format": form} if form and self.schemas else {}
        try:
            # `chat.completions.create` sends the same, after a third of a request's time spent on looking through it
            reply = await self.client.post(
                "/chat/completions",
                cast_to=self.openai.types.chat.ChatCompletion,
                body={
                    "model": self.config.model,
                    "messages": messages,
                    "temperature": self.config.temperature,
                    "max_tokens": self.config.max_reply_tokens,
                    **more,
                },
            )
        except self.openai.APIStatusError as error:
            if more and error.status_code in (400, 422):
                self.schemas = False  # servers without structured replies: the reply is checked here all the same
                return await self._send(messages, form, unit, number + 1)
            self._refused(error)
            raise
        except self.openai.APITimeoutError:
            raise Transient(f"no answer within {self.config.timeout_s:g} s") from None
        except (self.openai.APIConnectionError, self.openai.APIResponseValidationError):
            raise Transient("the connection broke") from None
        except ValueError:
            raise Transient("the reply of the server is no JSON") from None
        return self._text(reply, messages)

    def _refused(self, error: Any) -> None:
        """Sort a refusal; its text is not passed on, for servers put keys into it."""
        code = error.status_code
        if code in (401, 403):
            raise UserError(f"endpoint: the key in {self.config.key_variable} is refused ({code})") from None
        if code == 404:
            raise UserError(f"endpoint: no model '{self.config.model}' at this address (404)") from None
        if code in (408, 409, 425, 429) or code >= 500:
            raise Transient(f"status {code}", retry_after_s(error.response.headers.get("retry-after"))) from None
        raise Rejected(f"refused with status {code}") from None

    def _text(self, reply: Any, messages: list[dict[str, Any]]) -> str:
        try:
            text = reply.choices[0].message.content or ""
        except (AttributeError, IndexError, TypeError):
            raise Transient("the reply of the server is no chat completion") from None
        usage = getattr(reply, "usage", None)
        guess_in = sum(len(_plain(turn["content"])) for turn in messages) // CHARACTERS_PER_TOKEN
        self.spent.tokens_in += getattr(usage, "prompt_tokens", None) or guess_in
        self.spent.tokens_out += getattr(usage, "completion_tokens", None) or len(text) // CHARACTERS_PER_TOKEN
        return str(text)


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def retry_after_s(value: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date.

    Example:
        >>> retry_after_s("1.5")
        1.5
    """
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now())
    except (TypeError, ValueError):
        return None


def endpoint_named(spec: str, **settings: Any) -> EndpointConfig:
    """Return the settings of `https://host/v1#model`.

    Raises:
        ConfigError: No model after the `#`.
    """
    url, _, model = spec.partition("#")
    if not model:
        raise ConfigError("endpoint: no model named; expected https://host/v1#model")
    return EndpointConfig(url=url, model=model, **{key: value for key, value in settings.items() if value is not None})
