"""TensorRT's warnings: each told once, and how often it came; the next call starts anew."""

import logging
from enum import Enum
from types import SimpleNamespace

from sdk.trt_messages import new_logger


class Logger:
    def __init__(self):
        pass


class Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


for severity in Severity:
    setattr(Logger, severity.name, severity)
PACKAGE = SimpleNamespace(ILogger=Logger)


def test_a_repeated_warning_is_told_once_and_counted(caplog):
    logger = new_logger(PACKAGE, "sdk.trt.test")
    with caplog.at_level(logging.WARNING, "sdk.trt"), logger.collected():
        for _ in range(3):
            logger.log(Severity.WARNING, "Converting scales")
        logger.log(Severity.WARNING, "another")
    assert [record.getMessage() for record in caplog.records] == [
        "Converting scales",
        "another",
        "Converting scales (3 times)",
    ]


def test_the_next_call_hears_it_again(caplog):
    logger = new_logger(PACKAGE, "sdk.trt.test")
    with caplog.at_level(logging.WARNING, "sdk.trt"):
        for _ in range(2):
            with logger.collected():
                logger.log(Severity.WARNING, "Converting scales")
    assert [record.getMessage() for record in caplog.records] == ["Converting scales"] * 2
