# SPDX-License-Identifier: MIT
"""What workers of a cluster announce and plans ask for, as Dask's resources: names and numbers.

Amounts (vCPUs, memory, disk) are taken while a plan runs. What a worker just is or has (KVM, a guest's image,
this version of the harness and the driver) is announced as more than anybody takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from harness.document.units import MIB
from harness.errors import BenchError
from harness.host.amounts import Amounts
from harness.host.cache import content_key
from harness.host.checkout import PACKAGE, driver_source_files

Resources = Mapping[str, float]

VCPUS, MEMORY, DISK, KVM = "vcpus", "memory_mib", "disk_mib", "kvm"
_GUEST, _SOURCES = "guest_", "sources_"
_PLENTY = 1_000_000.0


def offered(host: Amounts, *, kvm: bool, guests: Iterable[str]) -> dict[str, float]:
    """Return what a worker on this host announces."""
    return {
        VCPUS: float(host.vcpus),
        MEMORY: float(host.memory_bytes // MIB),
        DISK: float(host.disk_bytes // MIB),
        _SOURCES + sources_key(): _PLENTY,
        **({KVM: _PLENTY} if kvm else {}),
        **{_GUEST + quote(guest, safe=""): _PLENTY for guest in guests},
    }


def demanded(need: Amounts, *, kvm: bool, guest: str) -> dict[str, float]:
    """Return what a plan asks for."""
    return {
        VCPUS: float(need.vcpus),
        MEMORY: float(-(-need.memory_bytes // MIB)),
        DISK: float(-(-need.disk_bytes // MIB)),
        _SOURCES + sources_key(): 1.0,
        **({KVM: 1.0} if kvm else {}),
        _GUEST + quote(guest, safe=""): 1.0,
    }


def placed(demand: Resources, workers: Mapping[str, Resources], *, plan: str) -> dict[str, float]:
    """Return the demand as the workers can meet it: a plan of more vCPUs than any has takes all of one's.

    :raise BenchError: no worker could ever run the plan; says what each lacks.
    """
    lacks = {name: _lacking(demand, offer) for name, offer in workers.items()}
    able = [offer for name, offer in workers.items() if lacks[name] is None]
    if not able:
        reasons = "; ".join(f"{name} {lack}" for name, lack in lacks.items()) or "there is none"
        raise BenchError(f"no worker can run {plan}: {reasons}")
    return {**demand, VCPUS: min(demand[VCPUS], max(offer.get(VCPUS, 0.0) for offer in able))}


def sources_key() -> str:
    """Return a key that changes with the harness, the sample driver and the guest's programs."""
    own = [*PACKAGE.rglob("*.py"), *(PACKAGE / "guest/reference_guest").glob("*")]
    files = {path.relative_to(PACKAGE).as_posix(): path for path in own if path.is_file()}
    parts: list[str | bytes] = []
    # By names below their folder, which are the same in a checkout and where a wheel was installed.
    for name, path in [*sorted(files.items()), *driver_source_files().items()]:
        parts += [name, path.read_bytes()]
    return content_key(parts)


def _lacking(demand: Resources, offer: Resources) -> str | None:
    if any(offer.get(name, 0) < 1 for name in demand if name.startswith(_SOURCES)):
        return "has another version of the harness or the driver"
    for name in demand:
        if name.startswith(_GUEST) and offer.get(name, 0) < 1:
            return f"does not have the guest {name.removeprefix(_GUEST)}"
    if demand.get(KVM, 0) > offer.get(KVM, 0):
        return "has no KVM"
    for name, what in ((MEMORY, "memory"), (DISK, "disk")):
        if demand[name] > offer.get(name, 0):
            return f"has {what} of {offer.get(name, 0):.0f} MiB and it needs {demand[name]:.0f} MiB"
    return "has no vCPUs to give" if offer.get(VCPUS, 0) < 1 else None
