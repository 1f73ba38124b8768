# SPDX-License-Identifier: MIT
"""The command line is data: what it must always say, and what each wish adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.vm.argv import Disk, RamFile, command_line
from tests.qemu.bare_vm import bare_config, small_shape


def built(**changes: Any) -> list[str]:
    return command_line(bare_config(**changes), folder=Path("/logs"), qmp_fd=7)


def value_of(argv: list[str], option: str) -> str:
    assert argv.count(option) == 1, (option, argv)
    return argv[argv.index(option) + 1]


def test_the_guest_is_confined() -> None:
    argv = built()
    netdev = value_of(argv, "-netdev").split(",")
    assert "restrict=on" in netdev
    assert [part for part in netdev if part.startswith("hostfwd=")] == ["hostfwd=tcp:127.0.0.1:0-:22"]
    sandbox = value_of(argv, "-sandbox").split(",")
    assert sandbox[0] == "on"
    assert {"obsolete=deny", "elevateprivileges=deny", "spawn=deny", "resourcecontrol=deny"} == set(
        sandbox[1:]
    )
    assert "-nodefaults" in argv
    assert "-no-user-config" in argv


def test_the_shape_is_said_in_full() -> None:
    argv = built(shape=small_shape(vcpus=2, max_vcpus=8, memory="96 MiB", slots=3, max_memory="2 GiB"))
    assert value_of(argv, "-smp") == "cpus=2,maxcpus=8,sockets=8,dies=1,cores=1,threads=1"
    assert value_of(argv, "-m") == f"size={96 << 20}B,slots=3,maxmem={2 << 30}B"
    assert "slots" not in value_of(built(shape=small_shape(slots=0, max_memory="64 MiB")), "-m")


def test_a_disk_is_either_written_itself_or_under_a_passed_overlay() -> None:
    written = built(disk=Disk(path=Path("/a,b.raw"), format="raw", snapshot=False))
    assert value_of(written, "-drive") == "if=none,id=disk0,file=/a,,b.raw,format=raw"
    config = bare_config(disk=Disk(path=Path("/base.raw"), format="raw"))
    covered = command_line(config, folder=Path("/logs"), qmp_fd=7, overlay_fd=8)
    assert "file=/proc/self/fd/8,format=qcow2" in value_of(covered, "-drive")
    assert not any("/base.raw" in argument for argument in covered)
    with pytest.raises(ValueError, match="needs an overlay"):
        command_line(config, folder=Path("/logs"), qmp_fd=7)


@pytest.mark.parametrize("share", [True, False])
def test_a_template_and_its_fork_differ_in_sharing_only(share: bool) -> None:
    ram = RamFile(path=Path("/ram"), share=share)
    backend = value_of(built(ram_file=ram), "-object")
    switch = "on" if share else "off"
    assert backend == f"memory-backend-file,id=ram0,size={64 << 20},mem-path=/ram,share={switch}"


def test_a_template_has_a_file_for_the_memory_of_each_node() -> None:
    nodes = [{"vcpus": 4}, {"memory": "32 MiB"}, {"memory": "32 MiB", "backend": {"type": "memfd"}}]
    argv = built(shape=small_shape(nodes=nodes), ram_file=RamFile(path=Path("/r,a/ram"), share=True))
    backends = [argv[index + 1] for index, word in enumerate(argv) if word == "-object"]
    assert backends == [
        f"memory-backend-file,id=ram0,size={32 << 20},mem-path=/r,,a/ram,share=on",
        f"memory-backend-file,id=ram1,size={32 << 20},mem-path=/r,,a/ram1,share=on",
    ]
    assert [argv[index + 1] for index, word in enumerate(argv) if word == "-numa"] == [
        "node,nodeid=0,cpus=0-3",
        "node,nodeid=1,memdev=ram0",
        "node,nodeid=2,memdev=ram1",
    ]
    assert value_of(argv, "-machine") == "q35"


def test_firmware_is_read_and_its_variables_are_written_under_an_overlay() -> None:
    code, variables = (Disk(path=Path(path), format="raw") for path in ("/a,b.fd", "/vars.fd"))
    config = bare_config(firmware=code, variables=variables)
    argv = command_line(config, folder=Path("/logs"), qmp_fd=7, variables_fd=9)
    assert [argv[index + 1] for index, word in enumerate(argv) if word == "-drive"] == [
        "if=pflash,unit=0,readonly=on,file=/a,,b.fd,format=raw",
        "if=pflash,unit=1,file=/proc/self/fd/9,format=qcow2,cache=unsafe",
    ]
    argv = built(firmware=Disk(path=Path("/code"), format="qcow2"))
    assert "file=/code,format=qcow2" in value_of(argv, "-drive")
    with pytest.raises(ValueError, match="needs an overlay"):
        command_line(config, folder=Path("/logs"), qmp_fd=7)


def test_boot_choices_appear_only_when_wanted() -> None:
    plain = built(paused=False, network_device=None)
    for option in ("-S", "-incoming", "-kernel", "-initrd", "-append", "-drive", "-netdev"):
        assert option not in plain
    argv = built(
        kernel=Path("/k"), initrd=Path("/i"), append="console=ttyS0 quiet", incoming=True, extra=("-x", "y")
    )
    assert value_of(argv, "-kernel") == "/k"
    assert value_of(argv, "-initrd") == "/i"
    assert value_of(argv, "-append") == "console=ttyS0 quiet"
    assert value_of(argv, "-incoming") == "defer"
    assert "-S" in argv
    assert argv[-2:] == ["-x", "y"]
