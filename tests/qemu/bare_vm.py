# SPDX-License-Identifier: MIT
"""The VM most tests here use: real QEMU under TCG, no guest in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.guest.acpi_registers import AcpiRegisters
from harness.vm.argv import VmConfig
from harness.vm.shape import VmShape
from harness.vm.vm import Vm

Launch = Callable[..., Vm]


def small_shape(**changes: object) -> VmShape:
    shape = {"vcpus": 1, "max_vcpus": 4, "memory": "64 MiB", "slots": 2, "max_memory": "1 GiB"}
    return VmShape.model_validate({**shape, **changes})


def bare_config(**changes: Any) -> VmConfig:
    """A VM whose vCPUs stand still and that has no guest."""
    defaults: dict[str, Any] = {"shape": small_shape(), "cpu_model": "qemu64", "paused": True}
    return VmConfig(**{**defaults, **changes})


def acpi_of(vm: Vm) -> AcpiRegisters:
    """Return the ACPI of a VM that was launched with ``qtest``, switched on."""
    assert vm.qtest is not None
    registers = AcpiRegisters(vm.qtest, dimm_slots=vm.config.shape.slots)
    registers.switch_on()
    return registers
