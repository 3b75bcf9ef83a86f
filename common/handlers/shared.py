"""A handler that other parts of a config refer to."""

from typing import Protocol

from ignite.engine import Engine


class Handler(Protocol):
    """What MONAI calls a handler."""

    def attach(self, engine: Engine) -> None: ...


class SharedHandler:
    """Stands for ``handler`` in a list of handlers.

    MONAI's property check wants every item of ``train#handlers`` to be a definition with a ``_target_``; an object that
    is defined elsewhere, because other parts of the config use it, cannot be named there directly.

    Args:
        handler: the handler to attach.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def attach(self, engine: Engine) -> None:
        """Attach the handler."""
        self.handler.attach(engine)
