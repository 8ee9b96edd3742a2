"""Orbax's event loops stay open until all that they started has ended, also where some of it failed."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from orbax.checkpoint._src import asyncio_utils

_run_sync = asyncio_utils.run_sync


def wait_for_all_tasks() -> None:
    """Wait, from now on, for the reads and writes beside one that fails; called again it changes nothing.

    orbax starts all arrays at once and closes its loop at the first error, such as that of a full disk. tensorstore's threads
    then report each of the others to a closed loop, which prints a traceback, and their own errors are never looked at.
    """
    asyncio_utils.run_sync = _run_all


def _run_all(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return _run_sync(_with_others(coroutine))


async def _with_others(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except BaseException:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.gather(*others, return_exceptions=True)
        raise
