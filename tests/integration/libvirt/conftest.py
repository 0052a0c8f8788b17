"""One real host for all tests here; each brings VMs and networks of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.libvirt.bench import Bench, make_bench
from tests.support.guest import GuestUnavailable, build_guest
from tests.support.hypervisor import why_not


@pytest.fixture(scope="session")
def guest_image() -> Path:
    try:
        return build_guest()
    except GuestUnavailable as reason:
        pytest.skip(f"the guest cannot be built: {reason}")


@pytest.fixture(scope="session")
def capable() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bench(
    capable: None, guest_image: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path_factory.mktemp("libvirt"), guest_image) as ready:
        yield ready


_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def cleared(request: pytest.FixtureRequest, bench: Bench) -> AsyncIterator[None]:
    """A test leaves nothing to the next one, even if it fails."""
    yield
    if request.node.stash.get(_failed, False):
        await bench.clear()
    await bench.forget_images()
    bench.nets.clear()
