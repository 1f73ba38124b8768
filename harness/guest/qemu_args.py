# SPDX-License-Identifier: MIT
"""``qemu_args`` of a guest profile: arguments for QEMU that have no key of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from harness.document.model import Text

#: Options whose meaning the harness depends on, by what says it instead; qemu(1).
_OWN_KEYS = {
    "machine": "the key machine",
    "M": "the key machine",
    "cpu": "the key cpu_model",
    "smp": "vm: in a plan",
    "m": "vm: in a plan",
    "numa": "vm: nodes in a plan",
    "accel": "hil run --accelerator",
    "enable-kvm": "hil run --accelerator",
    "bios": "the key firmware",
    "pflash": "the key firmware",
    "S": "vm: start in a plan",
}
_TAKEN = frozenset(
    """
    action chroot daemonize display incoming loadvm mon monitor no-reboot no-shutdown nographic pidfile
    preconfig qmp qmp-pretty qtest qtest-log readconfig run-with runas sandbox serial snapshot
    """.split()  # noqa: SIM905 - one to a line would be a page
)


def _are_free(args: tuple[str, ...]) -> tuple[str, ...]:
    for argument in args:
        option = argument.removeprefix("-").removeprefix("-")
        if argument.startswith("-") and option in _OWN_KEYS:
            raise ValueError(f"{argument} is what {_OWN_KEYS[option]} says; allowed: what has no key")
        if argument.startswith("-") and option in _TAKEN:
            raise ValueError(f"{argument} is the harness's own; allowed: what adds to the VM")
    if args and not args[0].startswith("-"):
        raise ValueError(f"{args[0]!r} is no option; allowed: such as [-device, i6300esb]")
    return args


QemuArgs = Annotated[tuple[Text, ...], AfterValidator(_are_free)]
