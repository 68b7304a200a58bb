"""TensorRT's warnings: each told once, and how often it came; the next call starts anew."""

import logging
import threading
from enum import Enum
from types import SimpleNamespace

import pytest

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


def test_a_warning_that_nobody_can_mend_is_told_once_as_information(caplog):
    logger = new_logger(PACKAGE, "sdk.trt.test")
    with caplog.at_level(logging.INFO, "sdk.trt"):
        for layer in range(3):
            with logger.collected():
                logger.log(Severity.WARNING, f"Converting conv activation scales of layer {layer}")
                logger.log(Severity.WARNING, "Empty initializer")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "Converting conv activation scales of layer 0"),
        ("INFO", "Empty initializer"),
    ]


def test_ctrl_c_inside_a_callback_is_raised_when_the_call_is_over(monkeypatch):
    """TensorRT catches whatever leaves `log`, so an interrupt that Python delivers there would be lost."""
    logger = new_logger(PACKAGE, "sdk.trt.test")

    def pressed(*_):
        raise KeyboardInterrupt

    def elsewhere():
        with logger.collected():
            pass

    with pytest.raises(KeyboardInterrupt), logger.collected():
        monkeypatch.setattr(logger, "heard", pressed)
        logger.log(Severity.WARNING, "slow")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    with logger.collected():
        pass
