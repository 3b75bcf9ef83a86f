"""What a user sees when a run ends with an error: one message, last, not buried in a traceback."""

import dis
import logging
import sys
from types import TracebackType

logger = logging.getLogger(__name__)

_PACKAGE = __name__.rsplit(".", 2)[0]  # `common`, or `scripts` in an exported bundle


def report_failures() -> None:
    """From now on, end this process with :func:`report` if an exception reaches the top."""
    sys.excepthook = report


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print ``error: <message>`` to stderr as the last line (``sys.excepthook`` interface).

    An error that this library raises has a message which says what to do, so the message is all that is printed (the
    traceback is logged at level DEBUG). Anything else may be a defect: the whole traceback comes first.
    """
    if not isinstance(error, Exception):  # Ctrl-C
        sys.__excepthook__(kind, error, trace)
        return
    cause = root_cause(error)
    if is_deliberate(cause):
        logger.debug("The run ends with an error.", exc_info=(kind, error, trace))
        message = str(cause)
    else:
        sys.__excepthook__(kind, error, trace)
        message = f"{type(cause).__name__}: {cause}"
    print(f"\nerror: {message}", file=sys.stderr, flush=True)


def root_cause(error: BaseException) -> BaseException:
    """The exception below those in which MONAI wraps what happens in a config ("Failed to evaluate ...")."""
    while error.__cause__ is not None and _module_and_opcode(error)[0].startswith("monai."):
        error = error.__cause__
    return error


def is_deliberate(error: BaseException) -> bool:
    """Whether a ``raise`` statement of this library is where the exception comes from."""
    module, opcode = _module_and_opcode(error)
    return module.startswith(f"{_PACKAGE}.") and opcode == "RAISE_VARARGS"


def _module_and_opcode(error: BaseException) -> tuple[str, str]:
    """Name of the module and instruction in which ``error`` was raised."""
    trace = error.__traceback__
    if trace is None:
        return "", ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code
    return str(trace.tb_frame.f_globals.get("__name__", "")), dis.opname[code[trace.tb_lasti]]
