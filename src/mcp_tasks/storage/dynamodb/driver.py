"""What is used of aiobotocore, with types, and what its errors mean.

The one question about an error that matters: can the call have been executed? What the service
refuses (an answer with a 4xx status) was not, nor was what could not be sent. Everything else (a
5xx, no answer, a broken connection) leaves it open.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import aiohttp
from aiobotocore.config import AioConfig  # pyright: ignore[reportMissingTypeStubs] - it has none
from aiobotocore.session import AioSession  # pyright: ignore[reportMissingTypeStubs] - as above
from botocore import exceptions  # pyright: ignore[reportMissingTypeStubs] - as above

from mcp_tasks.errors import ConfigurationError, StorageUnavailableError


if TYPE_CHECKING:
    from mcp_tasks.errors import MCPTasksError
    from mcp_tasks.storage.dynamodb.items import Item
    from mcp_tasks.storage.dynamodb.options import DynamoDBOptions


Payload: TypeAlias = dict[str, Any]


class Client(Protocol):
    """What is used of the driver's client."""

    async def get_item(self, **payload: Any) -> Payload: ...  # noqa: D102 - the service's
    async def put_item(self, **payload: Any) -> Payload: ...  # noqa: D102
    async def update_item(self, **payload: Any) -> Payload: ...  # noqa: D102
    async def delete_item(self, **payload: Any) -> Payload: ...  # noqa: D102
    async def query(self, **payload: Any) -> Payload: ...  # noqa: D102
    async def describe_table(self, **payload: Any) -> Payload: ...  # noqa: D102
    async def create_table(self, **payload: Any) -> Payload: ...  # noqa: D102
    async def describe_time_to_live(self, **payload: Any) -> Payload: ...  # noqa: D102
    async def update_time_to_live(self, **payload: Any) -> Payload: ...  # noqa: D102


Opening: TypeAlias = AbstractAsyncContextManager[Client]


def open_client(options: DynamoDBOptions) -> Opening:
    """Return a client to be entered: credentials and region as the AWS tools find them.

    The driver sends nothing again by itself: it does not know which calls may be.
    """
    session = AioSession(profile=options.profile)
    config = AioConfig(
        connect_timeout=options.connect_timeout,
        read_timeout=options.timeout,
        max_pool_connections=options.pool,
        parameter_validation=False,
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent_extra="mcp-tasks",
    )
    make = cast("Any", session).create_client
    opening: Opening = make(
        "dynamodb",
        region_name=options.region,
        endpoint_url=options.endpoint_url,
        config=config,
    )
    return opening


# --- errors --------------------------------------------------------------------------------------

_exceptions = cast("Any", exceptions)
_BotoCoreError: type[Exception] = _exceptions.BotoCoreError
_ClientError: type[Exception] = _exceptions.ClientError

# What the driver raises, and what lies under it.
DRIVER_ERRORS: tuple[type[Exception], ...] = (
    _BotoCoreError,
    _ClientError,
    aiohttp.ClientError,
    OSError,  # TimeoutError too
)

_SETTINGS: tuple[type[Exception], ...] = (
    _exceptions.NoCredentialsError,
    _exceptions.PartialCredentialsError,
    _exceptions.NoRegionError,
    _exceptions.InvalidRegionError,
    _exceptions.ProfileNotFound,
    _exceptions.ConfigNotFound,
    _exceptions.ConfigParseError,
    _exceptions.TokenRetrievalError,
    _exceptions.SSOError,
    _exceptions.UnknownEndpointError,
    _exceptions.EndpointProviderError,
    _exceptions.ParamValidationError,
    _exceptions.InvalidProxiesConfigError,
)
_NOT_SENT: tuple[type[Exception], ...] = (
    # They are fetched anew before they expire: what fails now may not the next time.
    _exceptions.CredentialRetrievalError,
    _exceptions.MetadataRetrievalError,
    _exceptions.ConnectTimeoutError,
    _exceptions.ProxyConnectionError,
    _exceptions.SSLError,
)
# Refused because of the load, or of others who write the same item: worth another try.
_BUSY = (
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "LimitExceededException",
    "TransactionConflictException",
    "TransactionInProgressException",
    "ReplicatedWriteConflictException",
)
_DENIED = ("AccessDeniedException", "AccessDenied", "NotAuthorized", "KMSAccessDeniedException")
_WRONG_CREDENTIALS = (
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignatureException",
    "MissingAuthenticationTokenException",
    "MissingAuthenticationToken",
    "ExpiredTokenException",
    "ExpiredToken",
    "RequestExpired",
    "OptInRequired",
)
_CLIENT_FAULT = range(400, 500)
_TOO_MANY = 429


class Verdict(Enum):
    """What an error says about the call that it ended."""

    BUSY = auto()  # not executed, and worth another try
    REFUSED = auto()  # not executed, and would not be if it were sent again
    UNSENT = auto()  # not executed, for it did not get there
    UNKNOWN = auto()


class ConditionFailedError(Exception):
    """The condition of a write did not hold; nothing was written.

    Attributes:
        item: What lies there; empty if nothing does, and where the server does not say.
    """

    def __init__(self, item: Item) -> None:
        super().__init__()
        self.item = item


def failed_condition(error: Exception) -> ConditionFailedError | None:
    """Return what a failed condition says; `None` if the error is another."""
    if code_of(error) != "ConditionalCheckFailedException":
        return None
    return ConditionFailedError(_response(error).get("Item") or {})


def judge(error: Exception) -> Verdict:
    """Say what `error` means for its call."""
    if isinstance(error, _ClientError):
        status: int = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code_of(error) in _BUSY or status == _TOO_MANY:
            return Verdict.BUSY
        return Verdict.REFUSED if status in _CLIENT_FAULT else Verdict.UNKNOWN
    if isinstance(error, _SETTINGS):
        return Verdict.REFUSED
    if isinstance(error, _NOT_SENT):
        return Verdict.UNSENT
    if isinstance(error, _exceptions.EndpointConnectionError):
        # The driver says this also of a connection that broke after the request was sent.
        cause: Any = cast("Any", error).kwargs.get("error")
        return (
            Verdict.UNSENT if isinstance(cause, aiohttp.ClientConnectorError) else (Verdict.UNKNOWN)
        )
    return Verdict.UNKNOWN


def code_of(error: Exception) -> str:
    """Return the service's name for an error, empty if it is not the service's."""
    code: Any = _response(error).get("Error", {}).get("Code", "")
    return str(code)


def reason(error: Exception) -> str:
    """Return the error in words: no address, and nothing of a record."""
    code = code_of(error)
    if code:
        text: Any = _response(error).get("Error", {}).get("Message", "")
        return f"{code}: {text}" if text else code
    if isinstance(error, (TimeoutError, _exceptions.ReadTimeoutError)):
        return "no answer in time"
    if isinstance(error, _exceptions.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, _exceptions.SSLError):
        return "TLS failed"
    if judge(error) is Verdict.UNSENT:
        is_ours = isinstance(error, (_exceptions.ConnectionError, OSError))
        return "it cannot be reached" if is_ours else str(error)
    if isinstance(error, (_exceptions.ConnectionError, _exceptions.ConnectionClosedError)):
        return "the connection was lost"
    return str(error) if isinstance(error, _SETTINGS) else type(error).__name__


def translate(error: Exception, table: str) -> MCPTasksError:
    """Return what `error` means to a caller whose call was not executed."""
    where = f"table {table!r}"
    why = reason(error)
    code = code_of(error)
    if code == "ResourceNotFoundException":
        return ConfigurationError(
            f"{where} is not there ({why}); nothing was changed. Run 'mcp-tasks init URL' once, or "
            "look at the region and the account"
        )
    if code in _DENIED:
        return ConfigurationError(
            f"the credentials may not do this with {where} ({why}); nothing was changed. They need "
            "dynamodb:GetItem, Query, PutItem, UpdateItem and DeleteItem on it"
        )
    if code in _WRONG_CREDENTIALS:
        return ConfigurationError(
            f"DynamoDB does not accept the credentials ({why}); nothing was changed. Renew them, "
            "and look at the region and the clock of this machine"
        )
    if code == "ValidationException":
        return ConfigurationError(
            f"{where} does not take this ({why}); nothing was changed. Its keys must be PK and SK, "
            "both strings: 'mcp-tasks init URL' looks"
        )
    if isinstance(error, (_exceptions.NoCredentialsError, _exceptions.PartialCredentialsError)):
        return ConfigurationError(
            "no AWS credentials were found; nothing was changed. Give them by environment, profile "
            f"or the machine's role ({why})"
        )
    if isinstance(error, _exceptions.NoRegionError):
        return ConfigurationError(
            "no AWS region was named; nothing was changed. Set AWS_DEFAULT_REGION or "
            "dynamodb://…?region="
        )
    if isinstance(error, _SETTINGS):
        return ConfigurationError(f"the AWS configuration cannot be used: {why}")
    return StorageUnavailableError(f"DynamoDB: {why}")


def _response(error: Exception) -> Payload:
    found: Any = getattr(error, "response", None)
    return cast("Payload", found) if isinstance(found, dict) else {}
