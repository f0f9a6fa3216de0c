"""Requests to stop, a lack of memory, and secrets in addresses."""

import os
import re
import signal
import subprocess
import sys

import pytest

from hybridbatch.common import shortage as shortages
from hybridbatch.common.addresses import without_secrets
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.shortage import in_words, shortage
from hybridbatch.common.stopping import SIGNALS, command_signals, stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_is_a_flag_and_is_never_lost(number):
    before = signal.getsignal(number)
    with stop_requests() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
    with pytest.raises(KeyboardInterrupt), stop_requests():  # nobody has asked
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def interrupted_twice() -> None:
    with stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")


def test_a_second_interrupt_stops_at_once():
    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()


def handlers() -> list:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_is_stopped_and_gives_the_signals_back(number):
    before = handlers()
    with pytest.raises(KeyboardInterrupt), command_signals():
        signal.raise_signal(number)
    assert handlers() == before


def test_inside_a_command_the_second_interrupt_is_the_system_s(monkeypatch):
    before = handlers()
    with command_signals():
        with pytest.raises(KeyboardInterrupt), stop_requests():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert handlers() == before
    monkeypatch.setenv("WORLD_SIZE", "2")  # under torchrun, which repeats signals
    with command_signals():
        with pytest.raises(KeyboardInterrupt), stop_requests():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) != signal.SIG_DFL
    assert handlers() == before


def test_a_lack_of_memory_is_found_at_the_root_of_an_error():
    lacking = RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes."
    )
    error = ValueError("its weights cannot be loaded; fetch it again")
    error.__cause__ = lacking
    assert shortage(error) == "4,096 MiB more"
    for unmeasured in (MemoryError(), OSError(12, "Cannot allocate memory")):
        assert re.fullmatch(r"more than the [\d.]+ GiB that it may use", shortage(unmeasured))
    assert shortage(RuntimeError("could not create a primitive"))
    assert shortage(RuntimeError("could not create a primitive descriptor for a sum")) is None
    assert shortage(ValueError("bad value")) is None
    line = in_words("4,096 MiB more")
    assert "4,096 MiB more" in line
    assert "GiB are free" in line
    assert "\n" not in line


def test_libraries_that_would_wait_for_memory_are_loaded_first(monkeypatch):
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    monkeypatch.setattr(sys, "argv", ["hybridbatch", "mine", "data"])
    loaded: list[str] = []
    monkeypatch.setattr(shortages.importlib, "import_module", loaded.append)
    assert shortages.least() is None
    assert not loaded  # no limit
    monkeypatch.setattr(shortages, "address_space", lambda: 2 * 10**9)
    assert shortages.least() is None
    assert "scipy.linalg" in loaded
    assert os.environ["ARROW_DEFAULT_MEMORY_POOL"] == "system"
    assert shortages._held  # room for the message
    assert shortage(MemoryError())
    assert not shortages._held
    monkeypatch.setattr(shortages, "address_space", lambda: 10**9)
    assert "needed at least 1.4 GiB to load its libraries" in str(shortages.least())


@pytest.mark.parametrize(
    ("groups", "files", "used"),
    [
        ("4:memory:/a\n0::/a\n", {"memory/a/memory.limit_in_bytes": "1000"}, "total_rss 9\n"),
        ("0::/a\n", {"a/memory.max": "1000"}, "anon 5\nshmem 3\nkernel 1\n"),
    ],
)
def test_the_limit_of_a_container_of_either_version(monkeypatch, tmp_path, groups, files, used):
    ((name, limit),) = files.items()
    place = tmp_path / name
    place.parent.mkdir(parents=True)
    place.write_text(limit)
    (place.parent / "memory.stat").write_text(used)
    real = open

    def moved(path, *rest):
        return real(str(path).replace("/sys/fs/cgroup", str(tmp_path)), *rest)

    monkeypatch.setattr(shortages, "_groups", groups.splitlines)
    monkeypatch.setattr(shortages, "open", moved, raising=False)
    limit, statistics = shortages._container_files()
    assert limit == 1000
    assert shortages._anonymous(statistics.replace("/sys/fs/cgroup", str(tmp_path))) == 9


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:secret@host:8/v1?key=secret#gemma", "https://host:8/v1#gemma"),
        ("http://host/v1#gemma", "http://host/v1#gemma"),
        ("ray://:secret@head:10001", "ray://head:10001"),
        ("http://user:secret@host:port/v1", "http://host:port/v1"),
        ("nllb", "nllb"),
    ],
)
def test_secrets_of_addresses_are_not_shown(address, shown):
    assert without_secrets(address) == shown


def test_a_translator_sends_what_it_does_not_write():
    from hybridbatch.data.translation.endpoint import EndpointTranslator

    translator = EndpointTranslator("https://user:secret@host/v1?key=secret#gemma")
    assert "secret" not in str(translator.describe())
    assert translator._asked == "https://host/v1/chat/completions?key=secret"
    assert translator._login.startswith("Basic ")


@pytest.mark.parametrize(
    "address",
    ["http://u:SEC#RET@host:9/v1#m", "http://u:8#RET@host/v1#m", "http://u:SEC/RET@host/v1#m"],
)
def test_an_address_that_cannot_be_read_is_refused_without_its_secrets(address):
    from hybridbatch.data.translation.endpoint import EndpointTranslator

    with pytest.raises(ConfigError, match="address cannot be read") as refused:
        EndpointTranslator(address)
    assert "SEC" not in str(refused.value)
    assert "RET" not in str(refused.value)


FULL = """
import sys, time
from pathlib import Path
from hybridbatch.common import shortage
shortage._container_files = lambda: (1 << 20, sys.argv[1])
shortage.watch_container(lambda line: print(line, flush=True))
time.sleep(3 * shortage.WATCH_SECONDS)
print("still here", flush=True)
Path(sys.argv[1]).write_text("anon 1040000\\nfile 5000000\\nshmem 0\\nkernel 1000\\n")
time.sleep(60)
"""


def test_a_full_container_ends_a_command_with_one_line(tmp_path):
    statistics = tmp_path / "memory.stat"
    statistics.write_text("anon 500000\nfile 9000000\nshmem 0\nkernel 1000\n")  # files may go
    command = [sys.executable, "-c", FULL, str(statistics)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    first, second = done.stdout.splitlines()
    assert first == "still here"
    assert second.startswith("out of memory: ")
    assert "more than the 0.0 GiB that its container may use" in second
